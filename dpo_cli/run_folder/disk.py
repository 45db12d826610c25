"""The disk: what it refuses is explained, and what is written is on it before anything older goes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dpo_cli.errors import OutputError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO})
_NO_FSYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES})
_BY_RUST = re.compile(r"\(os error (\d+)\)")  # how safetensors passes an errno on
_BY_TORCH = ("PytorchStreamWriter failed writing", "unexpected pos")  # how torch.save does, without one
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_GIB, _MIB = 1 << 30, 1 << 20


def refusal(error: BaseException) -> str | None:
    """Why the disk refused a write; None if an exception, with all that it came from, has another cause."""
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None and (told := _BY_RUST.search(str(cause))):
            number = int(told[1])
        if number in _REFUSALS:
            return getattr(cause, "strerror", None) or os.strerror(number)
        if isinstance(cause, RuntimeError) and any(words in str(cause) for words in _BY_TORCH):
            return "the write was cut short"
        cause = cause.__cause__ or cause.__context__
    return None


@contextlib.contextmanager
def disk_in_words(what: str, place: Path) -> Iterator[None]:
    """Explain a write that the disk refuses.

    Args:
        what: What is written, for the message.
        place: The file or folder it goes to.

    Raises:
        TrainingError: In place of an error that came from a full, read-only or failing disk, a quota or a size limit.
    """
    try:
        yield
    except Exception as error:
        reason = refusal(error)
        if reason is None or isinstance(error, TrainingError):
            raise
        raise TrainingError(
            f"{place}: {what} could not be written ({reason}; {_room(place)})",
            hint="Free some space on that disk, or give an --output-dir on another one.",
        ) from error


def require_room(place: Path, size: int, what: str) -> None:
    """Refuse a run that would fill the disk.

    Args:
        place: Where it writes.
        size: Bytes that it writes at least.
        what: What they are, for the message.

    Raises:
        OutputError: If fewer bytes are free there.
    """
    free = _free(place)
    if free < size:
        raise OutputError(
            f"{place}: {readable(free)} are free there, but this run writes {readable(size)} ({what})",
            hint="Free some space on that disk, or give an --output-dir on another one.",
        )


def room_missing(place: Path, size: int) -> str:
    """How many bytes are needed and how many are free, in words, where they do not fit; else empty."""
    free = _free(place)
    return f"up to {readable(size)}, but {readable(free)} are free at {place}" if free < size else ""


def refuse_to_fill(place: Path, size: int) -> None:
    """Fail as a full disk does, before it is full.

    Raises:
        OSError: If fewer bytes are free there than are needed.
    """
    if _free(place) < size:
        reason = f"{os.strerror(errno.ENOSPC)}; {readable(size)} needed"
        raise OSError(errno.ENOSPC, reason, str(place))


def _free(place: Path) -> int:
    return shutil.disk_usage(_existing(place)).free


def readable(size: int) -> str:
    """Bytes in GiB or MiB, exact below that."""
    if size >= _GIB:
        return f"{size / _GIB:.1f} GiB"
    return f"{size / _MIB:.1f} MiB" if size >= _MIB else f"{size:,} bytes"


def _room(place: Path) -> str:
    text = f"{readable(_free(place))} free"
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY:
            text += f", files of at most {readable(limit)} allowed by ulimit -f"
    return text


def _existing(place: Path) -> Path:
    return next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())


def write_file(file: Path, text: str) -> None:
    """Write a UTF-8 file at once: whoever reads it sees the earlier content or the new one, never a part.

    Raises:
        OSError: If it cannot be written; what was there is there still.
    """
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name[:100]}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as part:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
        Path(name).chmod(0o666 & ~current_umask())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def current_umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def sync(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk; some file systems offer that for files alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder is on the disk: files first, then the names that lead to them."""
    if sys.platform == "win32":
        return
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(parent, name)
            if not path.is_symlink():
                sync(path)
        sync(Path(parent))


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step, so that neither is ever absent; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    done = rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE))
    return bool(done == 0)
