"""What an interrupted run has left: where it is, whether it can be gone on with, and whether it is the run that is asked for."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.config import load_settings
from dpo_cli.config.sources import flag_name
from dpo_cli.errors import ConfigError, OutputError, quoted
from dpo_cli.run_folder.checkpoints import (
    LIST,
    TRAINED,
    Checkpoint,
    checkpoints_in,
    listed_step,
    newest_whole,
    remove_unfinished,
)
from dpo_cli.run_folder.disk import write_file
from dpo_cli.run_folder.files import command_of, is_ours
from dpo_cli.run_folder.lock import Holder

if TYPE_CHECKING:
    from pathlib import Path

    from dpo_cli.config import Settings

NOTES: Final = "run.json"
"""How a run was started, beyond its settings."""

WITHOUT_EFFECT = frozenset({
    "output_dir", "overwrite", "resume", "resume_anyway", "save_dtype", "save_minutes", "save_total_limit", "signal_grace",
})  # fmt: skip
"""Settings that may be others when a run goes on."""

SPEED_OR_OUTPUT = frozenset({
    "save_steps", "report_to", "save_rewards", "engine", "device", "gradient_checkpointing",
    "per_device_eval_batch_size", "generation_batch_size",
})  # fmt: skip
"""Settings that `--resume-anyway` lets change: they decide how fast a run is, what it writes, or how numbers are rounded."""

_BESIDE = re.compile(r"(.+)\.(partial|failed(-\d+)?)")


@dataclass(frozen=True)
class Left:
    """What an interrupted run has left.

    Attributes:
        folder: Where it is.
        checkpoint: The newest one that is whole; None if there is none.
        skipped: Why newer ones are not used, a sentence each.
    """

    folder: Path
    checkpoint: Checkpoint | None
    skipped: list[str] = field(default_factory=list)


def place_of(folder: Path) -> Path:
    """Where the results of a run go, from the name of that place or of a folder beside it."""
    match = _BESIDE.fullmatch(folder.name)
    return folder.with_name(match[1]) if match else folder


def find_left(place: Path) -> Left | None:
    """What is left of the run into a place: of those beside it, the one whose checkpoint was written last.

    Returns:
        It; without a checkpoint if the run was killed before its first one. None if there was no run.

    Raises:
        OutputError: If there are checkpoints, and none of them is whole.
    """
    beside = [place.with_name(f"{place.name}.partial")]
    if place.parent.is_dir():
        beside += sorted(
            path
            for path in place.parent.iterdir()
            if re.fullmatch(rf"{re.escape(place.name)}\.failed(-\d+)?", path.name)
        )
    found = [left for folder in beside if (left := _look(folder)) is not None]
    whole = [left for left in found if left.checkpoint is not None]
    if whole:
        return max(whole, key=_written)
    damaged = [left for left in found if left.skipped]
    if damaged:
        raise OutputError(
            "\n".join([f"{damaged[0].folder}: there is no checkpoint that is whole", *damaged[0].skipped]),
            hint="Start the run again without --resume; what is there is kept.",
        )
    return next((left for left in found if left.folder == beside[0]), None)


def _look(folder: Path) -> Left | None:
    if folder.is_symlink() or not folder.is_dir() or not is_ours(folder):
        return None
    holder = Holder.read(folder)
    if holder is not None and holder.state == "replaced":
        return None
    try:
        checkpoint, skipped = newest_whole(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read ({error.strerror})") from None
    return Left(folder, checkpoint, skipped)


def _written(left: Left) -> float:
    return 0.0 if left.checkpoint is None else (left.checkpoint.folder / LIST).stat().st_mtime


def can_go_on(folder: Path) -> bool:
    """Whether there is something in a run's folder that looks like a checkpoint of ours."""
    return (folder / TRAINED / LIST).is_file() or any(
        listed_step(path) is not None for path in checkpoints_in(folder)
    )


def differing_settings(settings: Settings, folder: Path) -> dict[str, tuple[Any, Any]]:
    """Settings that differ from those that a run's folder records: name to the recorded value and the one given now.

    Raises:
        ConfigError: If the record cannot be read, or is of another command.
    """
    if (command := command_of(folder)) != settings.command:
        raise ConfigError(f"--resume: {folder} is of dpo {command[:40]}, not of dpo {settings.command}")
    recorded = load_settings(type(settings), {}, str(folder / "config.toml"), recorded=True)
    then, now = recorded.model_dump(), settings.model_dump()
    return {
        name: (then[name], now[name])
        for name in now
        if name not in WITHOUT_EFFECT and then[name] != now[name]
    }


def require_same_settings(settings: Settings, folder: Path, *, anyway: bool) -> list[str]:
    """Refuse to go on with a run under other settings.

    Args:
        settings: Those given now.
        folder: The folder of the run.
        anyway: Let pass what changes speed, output or rounding alone.

    Returns:
        What was let pass, a sentence each.

    Raises:
        ConfigError: With one line for each changed setting.
    """
    lines: list[tuple[str, str]] = []
    passed: list[tuple[str, str]] = []
    for name, (then, now) in differing_settings(settings, folder).items():
        line = f"{flag_name(name)} is {_shown(now)}, but the run began with {_shown(then)}"
        (passed if anyway and name in SPEED_OR_OUTPUT else lines).append((name, line))
    if lines:
        minor = all(name in SPEED_OR_OUTPUT for name, _ in lines)
        raise ConfigError(
            "\n".join(f"--resume: {line}" for _, line in lines),
            hint="Give --resume-anyway to go on with it."
            if minor
            else f"`dpo resume {folder}` goes on with the settings of then.",
        )
    return [line for _, line in passed]


def write_notes(folder: Path, notes: dict[str, Any]) -> None:
    """Remember how a run was started."""
    write_file(folder / NOTES, json.dumps(notes) + "\n")


def read_notes(folder: Path) -> dict[str, Any]:
    """How a run was started; empty where that is not known."""
    try:
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}


def clear(left: Left, worthless: frozenset[str]) -> None:
    """Prepare a run's folder for being gone on with: what was unfinished goes, what is damaged is put aside.

    Args:
        left: What is there, in the folder that is written to.
        worthless: Names of files and folders that the run makes anew.
    """
    folder = left.folder
    remove_unfinished(folder)
    newer = [folder / TRAINED, *checkpoints_in(folder)]
    for path in newer:
        if left.checkpoint is not None and path.name == left.checkpoint.folder.name:
            break
        if path.is_dir():
            path.rename(path.with_name(f"{path.name}.damaged"))
    again = {path.name for path in (folder / TRAINED).glob("*")} if (folder / TRAINED).is_dir() else set()
    for path in folder.iterdir():
        if path.name in worthless and path.is_dir():
            shutil.rmtree(path)
        elif path.is_file() and (path.name in worthless | again or path.name.endswith(".part")):
            path.unlink()


def _shown(value: object) -> str:
    return "not set" if value is None else quoted(list(value) if isinstance(value, tuple) else value)
