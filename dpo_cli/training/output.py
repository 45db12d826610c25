"""The output folder: checked before the run, filled beside its place, moved there whole when the run is done."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dpo_cli.config import Settings, to_toml, user_path
from dpo_cli.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from dpo_cli.models.locate import LocatedModel

MARK = "# Written by dpo"
"""First words of `config.toml` in a folder of ours; only such a folder is ever replaced."""


class OutputFolder:
    """A folder that appears when the run has succeeded, and not before.

    It is filled beside its place, `config.toml` first. After a failure it goes, unless there are checkpoints in it:
    then it is kept as `NAME.failed`. Results that were there before are deleted when the new ones are in their place.

    Args:
        path: Where the results go.
        settings: What the run is told to do.
        overwrite: Replace a folder that an earlier run of dpo wrote.
        inputs: Folders that the run reads from, which it must not write over.

    Raises:
        OutputError: If results cannot or must not go there. Nothing has been written then.
    """

    def __init__(
        self, path: str, settings: Settings, *, overwrite: bool = False, inputs: Iterable[Path] = ()
    ) -> None:
        self.path = user_path(path, OutputError)
        self.settings = settings
        self.overwrite = overwrite
        _refuse_inputs(self.path, inputs)
        _refuse_working_folder(self.path)
        _refuse_existing(self.path, overwrite=overwrite)
        _refuse_unwritable(self.path)

    def __enter__(self) -> Self:
        """Make the staging folder, in the same file system as the final place."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.staging = self._temporary()
        write_settings(self.staging, self.settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Move the folder to its place; after a failure keep what has checkpoints, and say where.

        Raises:
            OutputError: If something was written to its place meanwhile; the results are kept beside it.
        """
        if error is None:
            self._move()
        elif any(self.staging.glob("checkpoint-*")):
            error.add_note(f"The checkpoints that were written so far are in {self._set_aside()}.")
        else:
            shutil.rmtree(self.staging)

    def _temporary(self) -> Path:
        return Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))

    def _move(self) -> None:
        try:
            _refuse_existing(self.path, overwrite=self.overwrite)
        except OutputError as error:
            raise OutputError(f"{error.message}; this run's results are in {self._set_aside()}") from None
        _open_to_others(self.staging)
        earlier = self._temporary()
        if self.path.exists():
            self.path.rename(earlier / "results")
        self.staging.rename(self.path)
        shutil.rmtree(
            earlier, ignore_errors=True
        )  # the new results are in place, whatever becomes of the old

    def _set_aside(self) -> Path:
        """Keep the folder beside its place, under a name that nothing has."""
        names = (f"{self.path.name}.failed{'' if n == 1 else f'-{n}'}" for n in itertools.count(1))
        free = next(place for name in names if not (place := self.path.with_name(name)).exists())
        _open_to_others(self.staging)
        self.staging.rename(free)
        return free


def write_settings(folder: Path, settings: Settings) -> None:
    """Write `config.toml`, which `--config` reads back."""
    (folder / "config.toml").write_text(
        to_toml(settings, f"{MARK[2:]} {settings.command}."), encoding="utf-8"
    )


def write_history(folder: Path, history: Iterable[dict[str, float]]) -> None:
    """Write `metrics.jsonl`, one logged step a line."""
    lines = [json.dumps(record) for record in history]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")


def model_folders(located: LocatedModel) -> list[Path]:
    """Every folder that a model is read from: an adapter's, and its base's."""
    return [located.folder, *(model_folders(located.base) if located.base else [])]


def _open_to_others(folder: Path) -> None:
    """Give files the rights that the user's umask allows: temporary folders and safetensors are private."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def _refuse_inputs(path: Path, inputs: Iterable[Path]) -> None:
    target = path.resolve()
    for folder in inputs:
        source = folder.resolve()
        if target == source or target in source.parents:
            raise OutputError(
                f"{path}: is or holds the model that is read", hint="Give another --output-dir."
            )


def _refuse_working_folder(path: Path) -> None:
    here, target = Path.cwd(), path.resolve()
    if target == here or target in here.parents:
        raise OutputError(
            f"{path}: is or holds the folder that dpo runs in, which cannot be put in place whole",
            hint="Give --output-dir the name of a new folder.",
        )


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if not path.exists():
        return
    if path.is_mount():
        raise OutputError(
            f"{path}: is where a file system is mounted, which cannot be put in place whole",
            hint="Give --output-dir the name of a new folder inside of it.",
        )
    if not path.is_dir():
        raise OutputError(f"{path}: is a file", hint="Give --output-dir the name of a folder.")
    if not any(path.iterdir()):
        return
    config = path / "config.toml"
    ours = config.is_file() and config.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    if not ours:
        raise OutputError(
            f"{path}: is not empty, and not an output folder of dpo", hint="Give another --output-dir."
        )
    if not overwrite:
        raise OutputError(
            f"{path}: holds the results of an earlier run",
            hint="Give another --output-dir, or --overwrite to replace it.",
        )


def _refuse_unwritable(path: Path) -> None:
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    # The final folder is replaced by a rename, so it is its parent that must be writable.
    there = there.parent if there == path.absolute() else there
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror})", hint="Give another --output-dir."
        ) from None
