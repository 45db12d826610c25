"""Checkpoints of a run: written beside, hashed, flushed to the disk and renamed, so that each is whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.run_folder.disk import exchange, sync, sync_tree
from dpo_cli.run_folder.manifest import files_in, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIST = "checkpoint.json"
"""The list of a checkpoint's files, each with size and SHA-256, and a hash of the list itself."""

TRAINED = "trained"
"""A checkpoint without an optimizer: the trained model, before it is asked and reported about."""

_NAME = re.compile(r"checkpoint-(\d+)")
_UNFINISHED = re.compile(r"(checkpoint-\d+|trained)\.(partial|old|damaged)")
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, whole when it was looked at.

    Attributes:
        folder: Where it is.
        step: Optimizer steps that it comes after.
    """

    folder: Path
    step: int


@contextlib.contextmanager
def new_checkpoint(parent: Path, step: int, name: str | None = None) -> Iterator[Path]:
    """Write a checkpoint.

    Args:
        parent: The run's folder.
        step: Optimizer steps taken.
        name: What it is called; `checkpoint-STEP` unless given.

    Yields:
        A folder to fill. When the block is left it gets its name; after an exception it is removed.
    """
    place = parent / (name or f"checkpoint-{step}")
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        write_list(partial, step)
        sync_tree(partial)
        _put(partial, place)
        sync(parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_list(folder: Path, step: int) -> None:
    """List every file of a folder with size and SHA-256."""
    files = {name: _entry(folder / name) for name in files_in(folder) if name != LIST}
    document = {"format": _FORMAT, "step": step, "files": files}
    document["sha256"] = _digest(document)
    (folder / LIST).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def damage(folder: Path) -> str:
    """What is wrong with a folder that has a list, in words; empty if every file is as it was written.

    Args:
        folder: A checkpoint, or another folder with such a list.
    """
    document = _read(folder / LIST)
    if document is None:
        return f"{LIST} is missing or damaged"
    if document["format"] != _FORMAT:
        return f"it was written in another format ({document['format']}), by another version of dpo"
    for name, entry in document["files"].items():
        file = folder / name
        if file.is_symlink() or not file.is_file():
            return f"{name} is missing"
        if (size := file.stat().st_size) != entry["size"]:
            return f"{name} has {size:,} bytes, not {entry['size']:,}"
        if sha256(file) != entry["sha256"]:
            return f"{name} was damaged: its SHA-256 is another one"
    return ""


def listed_step(folder: Path) -> int | None:
    """The step that a folder's list names; None without a list of ours."""
    document = _read(folder / LIST)
    return None if document is None else int(document["step"])


def checkpoints_in(parent: Path) -> list[Path]:
    """Folders named like checkpoints, newest first, whole or not."""
    found = [(int(match[1]), path) for path in parent.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True) if path.is_dir() and not path.is_symlink()]


def newest_whole(parent: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole: the trained model if there is one.

    Returns:
        It, or None; and for each newer one that was skipped, why, in a sentence.
    """
    skipped: list[str] = []
    trained = parent / TRAINED
    for folder in [*([trained] if trained.is_dir() else []), *checkpoints_in(parent)]:
        try:
            wrong = damage(folder)
        except OSError as error:
            wrong = f"it cannot be read ({error.strerror})"
        step = listed_step(folder)
        if not wrong and step is not None and folder.name in {f"checkpoint-{step}", TRAINED}:
            return Checkpoint(folder, step), skipped
        skipped.append(f"{folder.name} was skipped: {wrong or 'its name and its list do not agree'}.")
    return None, skipped


def rotate(parent: Path, limit: int, keep: str | None = None) -> None:
    """Remove the oldest checkpoints of ours beyond a number.

    Args:
        parent: The run's folder.
        limit: How many stay.
        keep: Path of one that is never removed.
    """
    ours = [path for path in checkpoints_in(parent) if listed_step(path) is not None]
    for path in ours[limit:]:
        if str(path) != keep:
            _remove(path)


def remove_checkpoints(parent: Path, *, keep: bool) -> None:
    """Remove what only an unfinished run needs.

    Args:
        parent: The run's folder.
        keep: Checkpoints were asked for, and stay.
    """
    remove_unfinished(parent)
    if (parent / TRAINED).is_dir():
        _remove(parent / TRAINED)
    if not keep:
        rotate(parent, 0)


def remove_unfinished(parent: Path) -> None:
    """Remove what a killed process has left of checkpoints that it was writing or removing."""
    for path in parent.iterdir():
        if _UNFINISHED.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def _remove(path: Path) -> None:
    """Remove a checkpoint; a kill in between leaves nothing that looks like one."""
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    path.rename(partial)
    shutil.rmtree(partial)


def _put(partial: Path, place: Path) -> None:
    """Give a checkpoint its name; one of that step that is there was damaged, and goes."""
    if not place.exists():
        partial.rename(place)
    elif exchange(partial, place):
        shutil.rmtree(partial)
    else:
        old = place.with_name(f"{place.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        partial.rename(place)
        shutil.rmtree(old)


def _entry(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": sha256(file)}


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _read(file: Path) -> dict[str, Any] | None:
    """A list of files, if it is one and nothing in it has changed."""
    try:
        if not file.is_file():
            return None
        document = json.loads(file.read_text(encoding="utf-8"))
        digest = document.pop("sha256")
        names = document["files"]
        sound = digest == _digest(document) and all(_inside(name) for name in names)
        return document if sound and isinstance(document["step"], int) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")
