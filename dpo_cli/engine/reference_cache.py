"""Reference log-probabilities, computed once per pair and kept on disk.

DPO compares the policy with the model it started from. That model does not change, so neither do its
log-probabilities: they are computed once, with no second copy of the weights in memory, and stored per
pair. Another beta, learning rate, loss, LoRA rank, seed, split or order of the same pairs finds them.

A stored value is found again only under everything that determines it (`model_key` and `pair_key`), and
a file is believed only if its checksum holds. Runs that write at the same time add to each other's values.
"""

# ruff: noqa: ANN401 - transformers' models are Any to mypy

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from transformers.dynamic_module_utils import get_relative_import_files

from dpo_cli.engine.cache_folder import cache_folder

KEY_BYTES = 32
LOCK_SECONDS = 10.0
"""How long to wait for another run that writes, before going on without the lock: one write takes far less."""

FORMAT = 1
CONFIG_WITHOUT_EFFECT = frozenset({
    "_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype", "pad_token_id", "bos_token_id",
    "eos_token_id", "architectures", "output_router_logits",
})  # fmt: skip
"""Config entries that do not change a log-probability; every other one is part of the key."""

Pair = Mapping[str, Any]
"""A tokenized pair: `prompt_ids`, `chosen_ids`, `rejected_ids`."""


@dataclass(frozen=True)
class Truncation:
    """How a row that is too long is cut: TRL's `max_length` and `truncation_mode`."""

    max_length: int | None
    mode: str = "keep_start"

    def cut(self, ids: Sequence[int]) -> Sequence[int]:
        """The tokens of a row that are left."""
        if self.max_length is None:
            return ids
        return ids[: self.max_length] if self.mode == "keep_start" else ids[-self.max_length :]


def pair_key(pair: Pair, truncation: Truncation) -> bytes:
    """What the model is shown of a pair: both rows after truncation, and which of their tokens are completion."""
    digest = hashlib.sha256()
    prompt = list(pair["prompt_ids"])
    for completion in (list(pair["chosen_ids"]), list(pair["rejected_ids"])):
        row = truncation.cut(prompt + completion)
        counted = len(truncation.cut([0] * len(prompt) + [1] * len(completion)))
        scored = sum(truncation.cut([0] * len(prompt) + [1] * len(completion)))
        digest.update(np.asarray([counted, scored, *row], dtype=np.int64).tobytes())
    return digest.digest()


def model_key(
    weights: Iterable[tuple[str, torch.Tensor]], config: Mapping[str, Any], circumstances: Mapping[str, Any]
) -> str:
    """Everything besides a pair's tokens that determines its reference log-probabilities.

    Args:
        weights: Names and tensors of the reference model, adapters left out where they are switched off.
        config: The model's config as a dict.
        circumstances: Precision, `ld_alpha`, engine, versions: anything JSON can hold.

    Returns:
        A SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    kept = {name: value for name, value in config.items() if name not in CONFIG_WITHOUT_EFFECT}
    digest.update(json.dumps([FORMAT, kept, dict(circumstances)], sort_keys=True, default=_plain).encode())
    for name, tensor in sorted(weights, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().view(-1).view(torch.uint8).cpu()
        digest.update(flat.numpy().data)
    return digest.hexdigest()


def _plain(value: object) -> object:
    """What JSON does not know, as text that is the same in every process: a set has no order of its own."""
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def model_code(model: Any) -> str | None:
    """A SHA-256 of the source of a model that brings its own code; None for one of transformers, which has a version.

    Args:
        model: A bare model, adapters taken off.
    """
    kind = type(model)
    package = kind.__module__.partition(".")[0]
    if package == "transformers":
        return None
    try:
        file = inspect.getfile(kind)
    except (TypeError, OSError):  # defined in a session without a file
        return None
    # Of remote code transformers keeps every file that it imports in one folder.
    imported = get_relative_import_files(file) if package == "transformers_modules" else []
    digest = hashlib.sha256()
    for source in sorted({file, *imported}, key=os.path.basename):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def reference_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of what TRL uses as the reference of a policy that has not been trained yet.

    That is the model itself; with adapters, the model without them, or with the adapter called `ref` that
    TRL adds when an existing adapter is trained further. Names are those of the bare model, so that
    full and LoRA training of one model share what is stored.

    Args:
        model: A `PreTrainedModel` or `PeftModel`.
    """
    bare = model.get_base_model() if hasattr(model, "peft_config") else model
    for name, tensor in bare.state_dict().items():
        if _is_reference(model, name):
            parts = name.split(".")
            yield ".".join(p for p in parts if p not in ("base_layer", "original_module")), tensor


def reference_is_trained(model: Any) -> bool:
    """Whether training changes what TRL takes as the reference, as with `bias="all"` of LoRA.

    Args:
        model: A `PreTrainedModel` or `PeftModel`.
    """
    bare = model.get_base_model() if hasattr(model, "peft_config") else model
    return any(p.requires_grad and _is_reference(model, name) for name, p in bare.named_parameters())


def _is_reference(model: Any, name: str) -> bool:
    """Whether a weight of a bare model belongs to the reference: to no adapter, or to the one called `ref`."""
    owners = set(getattr(model, "peft_config", {})) & set(name.split("."))
    return not owners or owners == {"ref"}


class ReferenceCache:
    """Reference log-probabilities of many pairs under one model key, in one file.

    Args:
        key: From `model_key`.
        folder: Where the file lies; `cache_folder()` when None.
        notice: Called with a sentence when a file is damaged or cannot be written.
    """

    def __init__(
        self, key: str, folder: Path | None = None, notice: Callable[[str], None] | None = None
    ) -> None:
        self.path = (cache_folder() if folder is None else folder) / "reference" / f"{key}.safetensors"
        self._notice = notice or (lambda _: None)

    def load(self) -> dict[bytes, tuple[float, float]]:
        """Pair key to (chosen, rejected) log-probability; empty when there is no file, or a damaged one."""
        return self._read(self._notice)

    def add(self, entries: Mapping[bytes, tuple[float, float]]) -> None:
        """Keep entries beside those on disk, also those that another run has put there since `load`.

        The file is replaced at once: a reader sees the old one or the new one, never a part.
        """
        if not entries:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.parent / "lock"):
                self._replace(self._read(lambda _: None) | dict(entries))
        except OSError as error:
            self._notice(f"Reference log-probabilities are not cached: {error}.")

    def _read(self, notice: Callable[[str], None]) -> dict[bytes, tuple[float, float]]:
        try:
            if self.path.exists() and not self.path.is_file():
                notice(f"{self.path} is not a regular file; reference log-probabilities will be recomputed.")
                return {}
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            notice(
                f"The stored reference log-probabilities cannot be read ({error}); they will be recomputed."
            )
            return {}
        try:
            keys, values = _verified(content)
        except (SafetensorError, KeyError, ValueError) as error:
            notice(f"{self.path} is damaged ({error}); reference log-probabilities will be recomputed.")
            return {}
        return {key.tobytes(): (float(a), float(b)) for key, (a, b) in zip(keys, values, strict=True)}

    def _replace(self, entries: Mapping[bytes, tuple[float, float]]) -> None:
        keys = np.frombuffer(b"".join(entries), dtype=np.uint8).reshape(-1, KEY_BYTES)
        values = np.asarray(list(entries.values()), dtype=np.float32).reshape(-1, 2)
        body = save_arrays({"keys": keys, "log_probs": values})
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(body + hashlib.sha256(body).digest())
            Path(name).replace(self.path)
        finally:
            with contextlib.suppress(OSError):
                Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; go on without it where there are no locks, or where nobody lets go of it.

    What is lost without it is at worst the entries of a run that writes at the same moment: files are replaced whole.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            # A named pipe in its place would keep us waiting for a reader.
            waiting = os.O_NONBLOCK if hasattr(os, "O_NONBLOCK") else 0
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | waiting, 0o666)
            _take_lock(held.enter_context(os.fdopen(descriptor, "ab")).fileno())
        yield


def _take_lock(descriptor: int) -> None:
    """Lock an open file until it is closed; wait for another holder, but not for ever."""
    if sys.platform == "win32":
        return
    import fcntl

    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        else:
            return


def _verified(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values of a cache file, if it is whole; a `ValueError` otherwise."""
    body, checksum = content[:-KEY_BYTES], content[-KEY_BYTES:]
    if hashlib.sha256(body).digest() != checksum:
        raise ValueError("its checksum does not match")
    arrays = load_arrays(body)
    keys, values = arrays["keys"], arrays["log_probs"]
    if keys.shape != (len(values), KEY_BYTES) or values.shape[1:] != (2,) or not np.isfinite(values).all():
        raise ValueError("its arrays have inconsistent sizes")
    return keys, values
