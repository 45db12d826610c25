"""Every error a user can meet, and the exit code each one ends with.

DpoError                    1  the run failed
├── UserError               2  something given to us is wrong: nothing was written or lost
│   ├── ConfigError         2  flags, TOML, Python keywords (all problems at once)
│   ├── DataError           2  a file, a row, a hub data set
│   ├── ModelError          2  a model folder, a hub id, a tokenizer, a template
│   └── OutputError         2  the place where results should go
├── TrainingError           1  the run started and could not finish
├── RunFinishedAlready      0  nothing is left to go on with
└── VerdictFailed           3  the run finished and its own checks say no

A message says what is wrong and where; `hint` says what to do next. Anything else that
escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

from dpo_cli.redaction import redact


class DpoError(Exception):
    """A failure that is explained to the user in words.

    Args:
        message: What is wrong, and where. Secrets in it are hidden.
        hint: What to do next, a sentence; empty when the message says it already.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message, self.hint = redact(message), redact(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        """The message, then the hint on its own line."""
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UserError(DpoError):
    """Something the user gave is wrong; nothing was written."""

    exit_code: ClassVar[int] = 2


class ConfigError(UserError):
    """One or more settings are wrong; the message has one line for each."""


class DataError(UserError):
    """A data file, row or hub data set cannot be used."""


class ModelError(UserError):
    """A model, tokenizer or chat template cannot be used."""


class OutputError(UserError):
    """Results cannot be written where they should go."""


class TrainingError(DpoError):
    """The run started and could not finish."""


class RunFinishedAlready(DpoError):  # noqa: N818 - nothing is wrong
    """A run was to be gone on with, and is finished."""

    exit_code: ClassVar[int] = 0


class VerdictFailed(DpoError):  # noqa: N818 - a verdict is no error of anybody's
    """The run finished, and its own checks say that it did not do what was asked."""

    exit_code: ClassVar[int] = 3


def first_line(error: BaseException) -> str:
    """The first line of what an exception of another package says, for a message of ours; its class if it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def listed(names: Iterable[object], most: int = 20) -> str:
    """Names for a message, comma between them; of a hundred thousand only the first, and of a long one its beginning."""
    given = list(names)
    shown = ", ".join(_short(str(name)) for name in given[:most])
    return f"{shown}, and {len(given) - most:,} more" if len(given) > most else shown


def quoted(value: object) -> str:
    """A value as Python writes it, for a message; of a long one its beginning."""
    return (
        repr(value[:_LONGEST] + "...")
        if isinstance(value, str) and len(value) > _LONGEST
        else _short(repr(value))
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST: Final = 80
