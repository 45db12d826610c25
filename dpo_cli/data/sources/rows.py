"""A raw row and the place it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dpo_cli.data.pairs import UNREADABLE, RowProblem
from dpo_cli.errors import DataError

LARGEST_ROW: Final = 8 * 2**20
"""Bytes of one row: a longer one is no pair of answers (8 MiB are about two million tokens)."""

WITHOUT_A_ROW: Final = 64 * 2**20
"""Bytes read without finding the end of a row: what holds no row in so many is no file of rows."""

_UNPACKED: Final = 256 * 2**20
_RATIO: Final = 500


def refuse_bomb(source: str, unpacked: int, packed: int) -> None:
    """Stop reading what unpacks to far more than text ever does.

    Args:
        source: The file, for messages.
        unpacked: Bytes or characters read so far.
        packed: Bytes of the file.

    Raises:
        DataError: More than 256 MiB, and more than 500 times the file.
    """
    if unpacked > _UNPACKED and unpacked > _RATIO * packed:
        raise DataError(
            f"{source}: unpacks to more than {_RATIO} times its size ({packed:,} bytes), which no file of distinct pairs does.",
            hint="Is it the right file? If it is, write its rows as plain JSON lines.",
        )


def weight(value: object) -> int:
    """Characters and bytes in a value, at any depth."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return sum(len(name) + weight(item) for name, item in value.items())
    return sum(map(weight, value)) if isinstance(value, list) else 0


def too_large(size: int) -> RowProblem:
    """The problem of a row that is too long to be a pair."""
    return RowProblem(
        UNREADABLE, f"{size / 2**20:.1f} MiB in one row, the limit is {LARGEST_ROW // 2**20} MiB"
    )


def no_row_in_sight(source: str, line: int) -> DataError:
    """The error of a file that goes on and on without a row."""
    return DataError(
        f"{source} line {line}: no row ends within {WITHOUT_A_ROW // 2**20} MiB; the limit is {LARGEST_ROW // 2**20} MiB per row.",
        hint="Is it the right file? Write one pair per line.",
    )


class FileDamage(RowProblem):
    """A row cannot be read because the file itself is damaged: cut off, or in another encoding.

    One bad row in a thousand is dropped and counted. A damaged file is not what its owner thinks it
    is, so this stops, unless drops are allowed in so many words.

    Args:
        detail: What is wrong, a sentence part.
        advice: What to do about it.
    """

    def __init__(
        self, detail: str, *, advice: str = "The file was not completely written or copied: create it again."
    ) -> None:
        super().__init__(UNREADABLE, detail)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as its file has it.

    Attributes:
        number: The row's place in its file, from 1.
        source: The file or data set, for messages.
        line: The line in the file, from 1; None where the file has no lines.
        data: The columns; None when the row cannot be read.
        problem: Why it cannot be read; None when it can.
    """

    number: int
    source: str
    line: int | None
    data: dict[str, Any] | None
    problem: RowProblem | None

    @property
    def place(self) -> str:
        """Where the row stands, for a message."""
        return (
            f"{self.source} line {self.line}" if self.line is not None else f"{self.source} row {self.number}"
        )
