"""Files of a checkpoint besides optimizer and the trainer's state."""

# ruff: noqa: ANN401 - a model is a transformers model or a PeftModel

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any, Final

import torch

from dpo_cli.events import OnEvent, Warned
from dpo_cli.models.finite import trained_parameters
from dpo_cli.run_folder.checkpoints import TRAINED, Checkpoint, new_checkpoint
from dpo_cli.training.fingerprint import require_same

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_STATE: Final = "dpo_state.json"
_FINGERPRINT: Final = "fingerprint.json"
_RESULT: Final = "result.json"
_OF_THE_RUN: Final = frozenset({"config.toml", "running.json", "run.json"})
_MOMENTS: Final = 3
"""Bytes of a checkpoint, in those of the trained weights: themselves, and what Adam keeps of each."""


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write what our own parts remember, into a checkpoint."""
    (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """What our own parts remembered, from a checkpoint whose files are as they were written."""
    state: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    return state


def write_fingerprint(folder: Path, fingerprint: Mapping[str, Any]) -> None:
    """Write what decides the result of a run, into a checkpoint."""
    (folder / _FINGERPRINT).write_text(json.dumps(fingerprint, indent=1) + "\n", encoding="utf-8")


def read_fingerprint(folder: Path) -> dict[str, Any]:
    """What decided the result of the run that a checkpoint is of."""
    fingerprint: dict[str, Any] = json.loads((folder / _FINGERPRINT).read_text(encoding="utf-8"))
    return fingerprint


def checkpoint_bytes(model: Any) -> int:
    """About how many bytes a checkpoint takes."""
    return int(_MOMENTS * sum(p.numel() * p.element_size() for _, p in trained_parameters(model)))


def weights_digest(model: Any) -> str:
    """SHA-256 of the trained weights, as they are in memory."""
    digest = hashlib.sha256()
    for name, parameter in trained_parameters(model):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def tensors_of(model: Any) -> dict[str, torch.Tensor]:
    """All parameters of a model, by name, on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.named_parameters()}


def put_tensors(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put the values of `tensors_of` back."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])


def link(file: Path, place: Path) -> None:
    """Have a file at another place as well, without its bytes where the file system can do that."""
    place.unlink(missing_ok=True)
    try:
        place.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, place)


def keep_trained(
    folder: Path, step: int, model: Any, fingerprint: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """Keep the trained model, whose files are in the run's folder, as a checkpoint from which only asking is left.

    Args:
        folder: The run's folder; its files are linked, not copied.
        step: Optimizer steps taken.
        model: The trained model.
        fingerprint: What decided the result.
        result: What the training gave, as JSON can hold it.
    """
    with new_checkpoint(folder, step, TRAINED) as kept:
        for file in folder.iterdir():
            if file.is_file() and file.name not in _OF_THE_RUN:
                link(file, kept / file.name)
        write_state(kept, {"weights": weights_digest(model)})
        write_fingerprint(kept, fingerprint)
        (kept / _RESULT).write_text(json.dumps(result), encoding="utf-8")


def trained_result(folder: Path) -> dict[str, Any] | None:
    """What the training gave whose end a checkpoint is; None for a checkpoint on the way."""
    file = folder / _RESULT
    if not file.exists():
        return None
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


def of_the_same_run(
    resume: Checkpoint | None, now: dict[str, Any], *, anyway: bool, on_event: OnEvent
) -> dict[str, Any]:
    """What decides the result of a run, compared with what is the case now.

    Args:
        resume: The checkpoint that is gone on from; None for a run that begins.
        now: See `training.fingerprint.run_fingerprint`.
        anyway: Let pass what changes nothing but how numbers are rounded.
        on_event: Told what was let pass.

    Raises:
        ConfigError: If the run was another one.
    """
    if resume is None:
        return now
    recorded = read_fingerprint(resume.folder)
    for line in require_same(recorded, now, anyway=anyway):
        on_event(Warned("resume", f"The result will not be equal to the bit: {line}.", "", resume.step))
    if recorded["threads"] != now["threads"]:
        torch.set_num_threads(recorded["threads"])  # how sums are split decides how they are rounded
    return recorded
