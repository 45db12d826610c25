"""What dpo wrote into a folder, file by file, so that nothing else there is ever deleted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from dpo_cli.run_folder import lock
from dpo_cli.run_folder.disk import write_file

NAME = "manifest.json"
_UNLISTED = frozenset({NAME, lock.NAME})
"""Files of ours that the list leaves out: itself, and the lock, which goes."""


def files_in(folder: Path) -> list[str]:
    """Every file and link below a folder, by its path in it with forward slashes, sorted; links are not followed."""
    found = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(found)


def write_manifest(folder: Path, *, hashed: bool = True) -> None:
    """List every file in a folder that dpo alone has filled: size, time of the last change, SHA-256.

    Args:
        folder: The folder.
        hashed: Read each file for its SHA-256; without it a file that was copied is no longer known as ours.
    """
    names = [name for name in files_in(folder) if name not in _UNLISTED]
    entries = {name: _entry(folder / name, hashed=hashed) for name in names}
    text = json.dumps({"files": entries}, indent=1)
    write_file(folder / NAME, text + "\n")


def foreign_files(folder: Path) -> list[str]:
    """Files in a folder that dpo did not write there, or that somebody has changed since.

    All of them where there is no list of files, as in folders of versions that wrote none.
    """
    entries = _entries(folder)
    names = [name for name in files_in(folder) if name not in _UNLISTED]
    return [name for name in names if not _same(folder / name, entries.get(name))]


def remove_own(folder: Path, foreign: list[str]) -> None:
    """Delete everything in a folder but the foreign files, and the folder itself if nothing is left in it."""
    for name in set(files_in(folder)) - {*foreign, *_UNLISTED}:
        (folder / name).unlink()
    for name in (NAME, lock.NAME):  # last: a removal that is interrupted can be gone on with
        (folder / name).unlink(missing_ok=True)
    for parent, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            Path(parent).rmdir()


def _entries(folder: Path) -> dict[str, Any]:
    try:
        files = json.loads((folder / NAME).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return files if isinstance(files, dict) else {}


def _entry(file: Path, *, hashed: bool) -> dict[str, Any]:
    status = file.lstat()
    digest = sha256(file) if hashed else None
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}


def _same(file: Path, entry: object) -> bool:
    if not isinstance(entry, dict) or file.is_symlink():
        return False
    status = file.lstat()
    if status.st_size != entry.get("size"):
        return False
    if status.st_mtime_ns == entry.get("mtime_ns"):
        return True
    return entry.get("sha256") is not None and sha256(file) == entry["sha256"]


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
