"""Standard input, output and error as they may be found: closed, full, a pipe whose reader has gone."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

from dpo_cli.errors import DpoError

if TYPE_CHECKING:
    from collections.abc import Callable


class _Wrapped(io.TextIOBase):
    """A text stream whose failures are dealt with.

    Args:
        stream: What is written to; None, as Python has it for a closed one, takes nothing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = io.StringIO() if stream is None else stream
        self._gone = stream is None

    def _failed(self, error: OSError | ValueError) -> None:
        raise NotImplementedError

    def write(self, text: str) -> int:
        """Write, and deal with a failure."""
        if not text and isinstance(text, str):  # as Click does, to learn what kind of stream this is
            return 0
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, and deal with a failure."""
        self._try(self._stream.flush)

    def _try(self, step: Callable[[], object]) -> None:
        if self._gone:
            return
        try:
            step()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self._gone = True
            self._failed(error)

    def isatty(self) -> bool:
        """Whether a person may be looking."""
        return not self._gone and self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor, which Rich asks for the size of the terminal."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override] # a read-only attribute here
        """The stream's encoding, which Rich asks whether box characters can be drawn."""
        return self._stream.encoding or "utf-8"

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a text stream has
        """What libraries ask of a stream besides: its buffer, for one."""
        return getattr(self._stream, name)


class Undisturbed(_Wrapped):
    """A stream that falls silent when it can no longer be written to: closed pipe, terminal gone, disk full."""

    def _failed(self, error: OSError | ValueError) -> None:
        del error


class Results(_Wrapped):
    """Standard output: what it does not take is an error in words, once; a reader that went away a BrokenPipeError."""

    def _failed(self, error: OSError | ValueError) -> None:
        if isinstance(error, BrokenPipeError):
            raise BrokenPipeError from error  # without its errno, by which Typer would make it exit code 1
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DpoError(f"standard output: could not be written ({reason})") from error


def prepare_streams() -> None:
    """Make the standard streams usable whatever they are; the process's own, called once as it begins.

    A closed descriptor is opened on the null device: the next file to be opened would take its number, and get what a
    library prints. Nothing that is written to standard error can raise.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="backslashreplace")
    sys.stdout = cast("TextIO", Results(sys.stdout))
    sys.stderr = cast("TextIO", Undisturbed(sys.stderr))


def finish_streams() -> None:
    """Keep Python from failing over what is left in the streams as it exits."""
    for number, stream in ((1, sys.__stdout__), (2, sys.__stderr__)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
