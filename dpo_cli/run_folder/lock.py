"""Who writes into a folder now: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from dpo_cli.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

NAME = "running.json"


@dataclass(frozen=True)
class Holder:
    """The process that fills a folder.

    Attributes:
        pid: Its number.
        host: The machine that it runs on.
        since: When it began, local time.
        state: "unfinished"; "trained" when the trained model is in the folder; "replaced" when the folder holds
            earlier results that are being deleted.
    """

    pid: int
    host: str
    since: str
    state: str = "unfinished"

    @classmethod
    def here(cls) -> Self:
        """This process."""
        return cls(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Who a folder says that fills it, or filled it; None where it does not say."""
        try:
            values = json.loads((folder / NAME).read_text(encoding="utf-8"))
            texts = (str(values[name])[:200] for name in ("host", "since", "state"))
            return cls(int(values["pid"]), *texts)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def __str__(self) -> str:
        """As in a message."""
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lock:
    """A folder claimed by this process.

    The system gives the lock up when the process ends, so one that was killed holds nobody up.
    Where there are no such locks (Windows, some network file systems) two runs are not kept apart.

    Args:
        folder: An existing folder.

    Raises:
        OutputError: If another process holds it.
        FileNotFoundError: If it was moved or removed meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(
            folder / NAME, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666
        )
        try:
            self._take(folder)
        except BaseException:
            self.release()
            raise

    def _take(self, folder: Path) -> None:
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = Holder.read(folder)
            raise OutputError(
                f"{folder}: another run is writing to it ({holder or 'unknown process'})",
                hint="Wait until it finishes, or give another --output-dir.",
            ) from None
        except OSError:  # no locks on this file system
            return
        mine, there = os.fstat(self._descriptor), (folder / NAME).stat()
        if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
            raise FileNotFoundError(folder)

    def write(self, holder: Holder) -> None:
        """Say who holds it."""
        text = json.dumps(asdict(holder)).encode()
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))

    def release(self) -> None:
        """Give it up."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
