"""What decides the result of a run besides its settings: pairs, model, tokenizer, versions, device."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import torch
from datasets import Dataset

from dpo_cli.errors import ConfigError
from dpo_cli.models.fingerprint import fingerprint as weights_fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasets import IterableDataset
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.models.locate import LocatedModel

_ROWS_AT_ONCE: Final = 10_000
_PACKAGES: Final = ("dpo-cli", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")
_ROUNDING: Final = frozenset({"versions", "device", "Python"})
"""What may change how numbers are rounded and nothing else."""


def run_fingerprint(
    located: LocatedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Dataset | IterableDataset,
    eval_pairs: Dataset | None,
    device: str,
) -> dict[str, Any]:
    """What decides the result, by names that messages use.

    The pairs of a stream are not known before they are read; what is known is where they come from.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = (
        backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    )
    return {
        "the model's weights": weights_fingerprint(located),
        "the tokenizer": _text_digest(vocabulary),
        "the chat template": _text_digest(json.dumps(tokenizer.chat_template)),
        "the pairs": rows_digest(pairs),
        "the held-out pairs": None if eval_pairs is None else rows_digest(eval_pairs),
        "device": device if device == "cpu" else f"{device} ({_card(device)})",
        "threads": torch.get_num_threads(),
        "Python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def require_same(recorded: Mapping[str, Any], now: Mapping[str, Any], *, anyway: bool) -> list[str]:
    """Compare what decided a run with what would decide its rest.

    Args:
        recorded: Of the run that was interrupted.
        now: Of this one.
        anyway: Let pass what changes nothing but how numbers are rounded.

    Returns:
        What was let pass, a sentence each.

    Raises:
        ConfigError: One line for each difference.
    """
    lines: list[str] = []
    passed: list[str] = []
    for name in now:
        if name == "threads" or recorded.get(name) == now[name]:
            continue
        if name in _ROUNDING:
            line = f"{name}: {_changes(recorded.get(name), now[name])}"
            (passed if anyway else lines).append(line)
        else:
            lines.append(f"{name} changed since the run began")
    if lines:
        only = all(line.split(":")[0] in _ROUNDING for line in lines)
        raise ConfigError(
            "\n".join(f"--resume: {line}" for line in lines),
            hint="Give --resume-anyway to go on; the result will not be equal to the bit."
            if only
            else "Start a new run in another --output-dir, or put back what was changed.",
        )
    return passed


def rows_digest(rows: Dataset | IterableDataset) -> str:
    """SHA-256 of the rows of a data set, in their order."""
    digest = hashlib.sha256()
    if not isinstance(rows, Dataset):
        return "a stream"
    for batch in rows.with_format("arrow").iter(_ROWS_AT_ONCE):
        table = batch.combine_chunks().replace_schema_metadata(None)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        digest.update(memoryview(sink.getvalue()))
    return digest.hexdigest()


def _changes(before: Any, now: Any) -> str:  # noqa: ANN401 - anything that was recorded
    if isinstance(before, dict) and isinstance(now, dict):
        return ", ".join(
            f"{key} {before.get(key)} is {now[key]} now" for key in now if before.get(key) != now[key]
        )
    return f"{before} is {now} now"


def _card(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.machine()


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
