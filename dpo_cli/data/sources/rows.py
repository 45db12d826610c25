"""A raw row and the place it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dpo_cli.data.pairs import UNREADABLE, RowProblem


class FileDamage(RowProblem):
    """A row cannot be read because the file itself is damaged: cut off, or in another encoding.

    One bad row in a thousand is dropped and counted. A damaged file is not what its owner thinks it
    is, so this stops, unless drops are allowed in so many words.

    Args:
        detail: What is wrong, a sentence part.
        advice: What to do about it.
    """

    def __init__(
        self, detail: str, *, advice: str = "The file was not written or copied to its end: make it again."
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
