"""Where results may go: everything that is refused before a run begins."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dpo_cli.config import user_path
from dpo_cli.errors import OutputError
from dpo_cli.run_folder import lock as lock_file
from dpo_cli.run_folder.files import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LONGEST_NAME = 255 - len(".partial")
_ANOTHER = "Give another --output-dir."


def taken(path: Path) -> bool:
    """Whether a name is in use, be it by a link that leads nowhere."""
    return path.exists() or path.is_symlink()


def result_file(name: str, flag: str, ours: Callable[[Path], bool]) -> Path:
    """The file that a user has named for a result; refused now if it could not be written later, or is somebody's.

    Args:
        name: As the user wrote it; a link is followed.
        flag: The flag it was given with, for messages.
        ours: Whether an existing file holds this kind of result and nothing else: only that is replaced.

    Raises:
        OutputError: If the file must not or cannot be written.
    """
    file = user_path(name, OutputError)
    shown, file = f"{flag} {file}", file.resolve()
    if not file.parent.is_dir():
        raise OutputError(f"{shown}: there is no folder {file.parent}")
    if taken(file):
        if not file.is_file():
            what = "is a folder" if file.is_dir() else "is not a file that can be replaced"
            raise OutputError(f"{shown}: {what}", hint="Give the name of a new file.")
        if file.stat().st_size and not ours(file):
            raise OutputError(
                f"{shown}: exists and was not written by dpo", hint="Give the name of a new file."
            )
    _try_folder(file.parent, shown, hint="")
    return file


def link_target(path: Path) -> Path:
    """The path itself, or what a link of that name leads to.

    Raises:
        OutputError: If it leads nowhere: what should be there may be on a disk that is not mounted now.
    """
    if not path.is_symlink():
        return path
    target = path.resolve()
    if not target.exists():
        raise OutputError(f"{path}: is a link to {target}, which does not exist", hint=_ANOTHER)
    return target


def refuse_inputs(path: Path, model: Iterable[Path], data: Iterable[Path]) -> None:
    """Refuse to write over what is read."""
    target = path.resolve()
    for read, what in ((model, "the input model"), (data, "the input data")):
        for source in (one.resolve() for one in read):
            if target == source or target in source.parents:
                raise OutputError(f"{path}: is or contains {what}", hint=_ANOTHER)


def refuse_working_folder(path: Path) -> None:
    """Refuse the folder that dpo runs in, and those around it."""
    try:
        here = Path.cwd()
    except OSError:
        raise OutputError("the working folder no longer exists", hint="Change to one that exists.") from None
    target = path.resolve()
    if target == here or target in here.parents:
        raise OutputError(
            f"{path}: is or contains the working folder, which cannot be replaced as a whole",
            hint="Give --output-dir the name of a new folder.",
        )


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse what is there already, unless it is empty, or an earlier run's and to be replaced."""
    if not path.exists():
        return
    if path.is_mount():
        raise OutputError(
            f"{path}: is a mount point, which cannot be replaced as a whole",
            hint="Give --output-dir the name of a new folder inside it.",
        )
    if not path.is_dir():
        raise OutputError(f"{path}: is a file", hint="Give --output-dir the name of a folder.")
    if not any(path.iterdir()):
        return
    if not is_ours(path):
        raise OutputError(f"{path}: is not empty, and is not a dpo output folder", hint=_ANOTHER)
    if not overwrite:
        raise OutputError(
            f"{path}: contains the results of an earlier run",
            hint="Give another --output-dir, or add --overwrite to replace it.",
        )


def refuse_unwritable(path: Path) -> None:
    """Refuse a place where no folder can be made."""
    if (beyond := len(os.fsencode(path.name)) - _LONGEST_NAME) > 0:
        raise OutputError(f"{path}: its name is {beyond} bytes too long", hint=_ANOTHER)
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    # The final folder is replaced by a rename, so it is its parent that must be writable.
    _try_folder(there.parent if there == path.absolute() else there, str(path))


def _try_folder(folder: Path, shown: str, *, hint: str = _ANOTHER) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{shown}: cannot be written ({error.strerror})", hint=hint) from None


def refuse_strangers(staging: Path) -> None:
    """Refuse to fill a folder beside the place that is not a run's."""
    if not taken(staging):
        return
    empty = staging.is_dir() and not any(staging.iterdir())
    ours = is_ours(staging) or (staging / lock_file.NAME).is_file()
    if staging.is_symlink() or not staging.is_dir() or not (empty or ours):
        raise OutputError(
            f"{staging}: dpo writes the run there until it is done, but something else has that name",
            hint="Move it away, or give another --output-dir.",
        )
