"""The output folder: checked before the run, filled beside its place, moved there whole when the run is done.

`NAME.partial` is being filled, or was when its run was killed. `NAME.failed` holds what a run that did not finish
has left. `NAME.kept` holds a user's files that lay among earlier results.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dpo_cli.config import Settings, user_path
from dpo_cli.config.sources import flag_name
from dpo_cli.errors import OutputError, RunFinishedAlready
from dpo_cli.run_folder import lock as lock_file
from dpo_cli.run_folder import manifest, places, resume
from dpo_cli.run_folder.checkpoints import TRAINED, checkpoints_in, remove_checkpoints, rotate
from dpo_cli.run_folder.disk import current_umask, exchange, refusal, sync, sync_tree
from dpo_cli.run_folder.files import is_ours, write_settings
from dpo_cli.run_folder.lock import Holder, Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from dpo_cli.run_folder.checkpoints import Checkpoint
    from dpo_cli.run_folder.resume import Left

TRIAL = "trial"
"""The folder in which saving is tried before training; it keeps the room that the trained model will need."""

LEARNT = "learnt.safetensors"
"""Weights that knew a new name best so far, see `training.learning`."""

BEST, INITIAL, CANDIDATE = "best.safetensors", "initial.safetensors", "candidate.safetensors"
"""Weights that `--stop-on-collapse` keeps meanwhile: the best of those trained, those from before, those not judged yet."""

_WORTHLESS = frozenset({TRIAL, "config.toml", INITIAL, CANDIDATE, lock_file.NAME, resume.NOTES})
"""What a run writes before it has anything to show."""


class OutputFolder:
    """A folder that appears when the run has succeeded, and not before.

    It is filled beside its place, as `NAME.partial`, and claimed by one process at a time. What a run that did not
    finish leaves is kept as `NAME.failed` if there are checkpoints or a trained model in it. Earlier results are
    deleted when the new ones are on the disk and in their place; files that dpo did not write are moved to `NAME.kept`.

    Args:
        path: Where the results go. A link is followed: its target receives them.
        settings: What the run is told to do.
        overwrite: Replace a folder that an earlier run of dpo wrote.
        inputs: Folders that the model is read from, which the run must not write over.
        data: Files and folders that pairs, questions or templates are read from; likewise.
        go_on: Go on with the interrupted run into this place, if there is one.
        anyway: Let settings pass that change speed, output or rounding alone.
        notes: What `dpo resume` needs to know of how the run was started.
        notice: Called with a sentence about what was found or moved beside the folder.

    Attributes:
        path: Where the results go.
        staging: The folder that is filled.
        left: What the run is gone on with; None for one that begins.

    Raises:
        OutputError: If results cannot or must not go there. Nothing has been written then.
        ConfigError: If the interrupted run had other settings.
        RunFinishedAlready: If the run that should be gone on with is finished.
    """

    def __init__(
        self,
        path: str,
        settings: Settings,
        *,
        overwrite: bool = False,
        inputs: Iterable[Path] = (),
        data: Iterable[Path] = (),
        go_on: bool = False,
        anyway: bool = False,
        notes: Mapping[str, Any] | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = places.link_target(user_path(path, OutputError))
        self.settings = settings
        self.overwrite = overwrite
        self.notice = notice
        self._holder = Holder.here()
        self._notes = {"overwrite": overwrite, **(notes or {})}
        places.refuse_inputs(self.path, inputs, data)
        places.refuse_working_folder(self.path)
        self.staging = self.path.with_name(f"{self.path.name}.partial")
        self.left = self._find_left(anyway=anyway) if go_on else None
        places.refuse_existing(self.path, overwrite=overwrite)
        places.refuse_unwritable(self.path)
        places.refuse_strangers(self.staging)

    def __enter__(self) -> Self:
        """Claim the staging folder, in the same file system as the final place.

        Raises:
            OutputError: If another run fills it, or it cannot be made.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._locks = [self._claim() if self.left is None else self._claim_left(self.left)]
            write_settings(self.staging, self.settings)
            resume.write_notes(self.staging, self._notes | {"working_folder": str(Path.cwd())})
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Move the folder to its place; after a failure keep what is of worth, and say where.

        Raises:
            OutputError: If something was written to its place meanwhile; the results are kept beside it.
            TrainingError: If the disk fails; likewise.
        """
        try:
            if error is None:
                self._finish()
            elif worth := _worth(self.staging):
                aside = self._set_aside()
                asked = isinstance(error, (KeyboardInterrupt, SystemExit)) or refusal(error) is not None
                how = self._how_to_go_on(aside) if asked else ""
                error.add_note(f"{worth} in {aside}.{how}")
            else:
                shutil.rmtree(self.staging, ignore_errors=True)
        finally:
            for lock in self._locks:
                lock.release()

    def drop_checkpoints(self) -> None:
        """Remove those on the way to the trained model, now that it is kept, unless they were asked for."""
        if not self._keeps_checkpoints():
            rotate(self.staging, 0)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint that the run goes on from, in the folder that is filled."""
        if self.left is None or self.left.checkpoint is None:
            return None
        found = self.left.checkpoint
        return replace(found, folder=self.staging / found.folder.name)

    def _find_left(self, *, anyway: bool) -> Left | None:
        """What the run into this place has left, if it is the run that is meant."""
        left = resume.find_left(self.path)
        if left is None:
            if self.path.is_dir() and is_ours(self.path) and not self._is_another_run():
                raise RunFinishedAlready(f"{self.path}: this run is finished")
            return None
        if left.checkpoint is None:
            self.notice(f"{left.folder} holds no checkpoint yet: the run begins from the start.")
            return None
        for line in resume.require_same_settings(self.settings, left.folder, anyway=anyway):
            self.notice(f"{line}.")
        for line in left.skipped:
            self.notice(line)
        return left

    def _is_another_run(self) -> bool:
        """Whether the results that are there are of other settings, and may be replaced.

        Raises:
            OutputError: If they may not.
        """
        differing = resume.differing_settings(self.settings, self.path)
        if differing and not self.overwrite:
            names = ", ".join(flag_name(name) for name in differing)
            raise OutputError(
                f"{self.path}: contains the finished results of a run with other settings ({names})",
                hint="Give another --output-dir, or add --overwrite to replace it.",
            )
        return bool(differing)

    def _claim_left(self, left: Left) -> Lock:
        """Make what an interrupted run has left this process's own, under the name that it had while it ran."""
        if left.folder != self.staging:
            if places.taken(self.staging):
                self._claim().release()
                shutil.rmtree(self.staging)
            left.folder.rename(self.staging)
        lock = Lock(self.staging)
        lock.write(self._holder)
        there = replace(left, folder=self.staging)
        resume.clear(there, _WORTHLESS - {"config.toml", lock_file.NAME} | {BEST, manifest.NAME})
        found = self.checkpoint
        if found is not None:
            self.notice(f"Going on from {found.folder.name} (step {found.step}) of {left.folder}.")
        return lock

    def _how_to_go_on(self, folder: Path) -> str:
        """The command that goes on with what a folder holds, as the end of a message."""
        if not resume.can_go_on(folder):
            return ""
        return f" Go on with: dpo resume {shlex.quote(str(folder))}"

    def mark_trained(self) -> None:
        """Remember that the trained model is in the folder, whole: from now on it is never deleted."""
        sync_tree(self.staging)
        self._locks[0].write(replace(self._holder, state="trained"))

    def _claim(self) -> Lock:
        """Make the staging folder this process's own; first deal with what a killed run has left under that name."""
        while True:
            self.staging.mkdir(exist_ok=True)
            try:
                lock = Lock(self.staging)
            except FileNotFoundError:  # its run has just finished, or set it aside
                continue
            if not any(path.name != lock_file.NAME for path in self.staging.iterdir()):
                lock.write(self._holder)
                return lock
            try:
                self._put_away()
            finally:
                lock.release()

    def _put_away(self) -> None:
        """Put away what a killed run has left in the staging folder: its own work, or results that it replaced."""
        left = Holder.read(self.staging)
        if left is not None and left.state == "replaced":
            self._remove_earlier(self.staging)
            return
        killed = f"{self.staging} was left by a run that was killed ({left or 'unknown process'})"
        if worth := _worth(self.staging, killed=True):
            aside = self._set_aside()
            self.notice(f"{killed}. {worth} in {aside} now.{self._how_to_go_on(aside)}")
        else:
            shutil.rmtree(self.staging)
            self.notice(f"{killed} before it had anything to keep; it was removed.")

    def _finish(self) -> None:
        try:
            places.refuse_existing(self.path, overwrite=self.overwrite)
            remove_checkpoints(self.staging, keep=self._keeps_checkpoints())
            (self.staging / resume.NOTES).unlink(missing_ok=True)
            _open_to_others(self.staging)
            self._list_files()
            sync_tree(self.staging)
            self._place()
        except OutputError as error:
            raise OutputError(f"{error.message}; this run's results are in {self._set_aside()}") from None
        except BaseException as error:
            ours = Holder.read(self.staging)
            moved = ours is None or ours.state == "replaced"
            error.add_note(f"This run's results are in {self.path if moved else self._set_aside()}.")
            raise

    def _keeps_checkpoints(self) -> bool:
        """Whether checkpoints were asked for, and are part of the results."""
        values = self.settings.model_dump()
        return bool(values.get("save_steps") or "save_strategy" in values.get("trl", {}))

    def _list_files(self) -> None:
        try:
            manifest.write_manifest(self.staging)
        except OSError as error:
            self.notice(
                f"The list of files could not be written ({error.strerror}); --overwrite will keep them."
            )

    def _place(self) -> None:
        """Give the staging folder its final name. At every moment the earlier results or the new ones have it."""
        if not self.path.exists() or not any(self.path.iterdir()):
            self.staging.rename(self.path)
            earlier = None
        else:
            earlier = self._swap()
        sync(self.path.parent)
        (self.path / lock_file.NAME).unlink(missing_ok=True)
        if earlier is not None:
            self._remove_earlier(earlier)

    def _swap(self) -> Path:
        """Change places with the earlier results, which are marked first: whoever finds them knows what they are."""
        self._locks.append(Lock(self.path))
        self._locks[-1].write(replace(self._holder, state="replaced"))
        if exchange(self.staging, self.path):
            return self.staging
        earlier = self._free(
            "kept"
        )  # two renames where the system has no exchange: a kill between them leaves both aside
        self.path.rename(earlier)
        self.staging.rename(self.path)
        return earlier

    def _remove_earlier(self, earlier: Path) -> None:
        """Delete results that were replaced; what dpo did not write among them is kept beside, and named."""
        try:
            foreign = manifest.foreign_files(earlier)
            if foreign and earlier == self.staging:
                earlier = earlier.rename(self._free("kept"))
            manifest.remove_own(earlier, foreign)
        except OSError as error:
            self.notice(f"The replaced results are in {earlier}: they could not be removed ({error}).")
            return
        if foreign:
            more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""  # noqa: PLR2004 - a line
            names = f"{', '.join(foreign[:3])}{more}"
            self.notice(f"Not written by dpo, or changed since, so kept in {earlier}: {names}")

    def _set_aside(self) -> Path:
        """Keep the folder of a run that did not finish beside its place, under a name that nothing has."""
        with contextlib.suppress(OSError):  # a full or read-only disk; what is there stays there
            shutil.rmtree(self.staging / TRIAL, ignore_errors=True)
            _open_to_others(self.staging)
            manifest.write_manifest(self.staging, hashed=False)
        with contextlib.suppress(OSError):
            free = self.staging.rename(self._free("failed"))
            (free / lock_file.NAME).unlink(missing_ok=True)
            return free
        return self.staging

    def _free(self, ending: str) -> Path:
        names = (f"{self.path.name}.{ending}{'' if n == 1 else f'-{n}'}" for n in itertools.count(1))
        return next(place for name in names if not places.taken(place := self.path.with_name(name)))


def _worth(folder: Path, *, killed: bool = False) -> str:
    """What is worth keeping in the folder of a run that did not finish, as the beginning of a sentence; may be nothing.

    Args:
        folder: The folder.
        killed: The run was killed, and somebody else may have put something there since: what is not known is kept.
    """
    holder = Holder.read(folder)
    if holder is not None and holder.state == "trained":
        return "The trained model is"
    if (folder / TRAINED).is_dir():
        return "The trained model is"
    if checkpoints_in(folder):
        return "The checkpoints written so far are"
    if (folder / BEST).exists():
        return f"The best weights so far ({BEST}) are"
    unknown = sorted({path.name for path in folder.iterdir()} - _WORTHLESS)
    return f"What was written so far ({', '.join(unknown[:3])}) is" if killed and unknown else ""


def _open_to_others(folder: Path) -> None:
    """Give files the rights that the user's umask allows: safetensors writes private ones."""
    umask = current_umask()
    folder.chmod(0o777 & ~umask)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
