"""Where every row went: rows read = pairs kept + rows dropped, each under a name."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.pairs import REASONS, ROLE_ORDER
from dpo_cli.data.sources.rows import FileDamage
from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from dpo_cli.data.pairs import RowProblem
    from dpo_cli.data.sources.rows import RawRow

MOST_DROPPED: Final = 0.1
"""The share of rows that may be dropped without being asked: more means that something else is wrong."""

_EXAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class Drop:
    """One dropped row, to be shown.

    Attributes:
        row: Its number in the data set, from 1.
        place: File and line.
        key: The column or the path inside the row; empty for the whole row.
        detail: What is wrong.
    """

    row: int
    place: str
    key: str
    detail: str

    def __str__(self) -> str:
        """For a message: place, key, what is wrong."""
        return (
            f"{self.place}: {self.detail}"
            if self.key in self.detail
            else f"{self.place}, {self.key}: {self.detail}"
        )


@dataclass
class Accounting:
    """The count of rows, filled while they are read.

    Attributes:
        source: The data set, as the user named it.
        format: The layout's name.
        read: Rows read.
        kept: Pairs kept.
        rows: For each reason, the numbers of all rows dropped for it, from 1 (unsigned 64-bit integers).
        examples: For each reason, the first drops in full.
        damage: Drops that come from a damaged file, with what to do about it.
        rows_by_file: Rows read from each file.
        odd: The numbers of kept rows whose roles are in an unusual order, from 1 (unsigned 64-bit integers).
        odd_example: The first of these.
    """

    source: str
    format: str = ""
    read: int = 0
    kept: int = 0
    rows: dict[str, array[int]] = field(default_factory=dict)
    examples: dict[str, list[Drop]] = field(default_factory=dict)
    damage: list[tuple[Drop, str]] = field(default_factory=list)
    rows_by_file: dict[str, int] = field(default_factory=dict)
    odd: array[int] = field(default_factory=lambda: array("Q"))
    odd_example: Drop | None = None

    @property
    def dropped(self) -> dict[str, int]:
        """Rows dropped for each reason that occurred, in the order of `REASONS`."""
        return {reason: len(self.rows[reason]) for reason in REASONS if reason in self.rows}

    @property
    def dropped_rows(self) -> int:
        """Rows dropped, all reasons together."""
        return sum(map(len, self.rows.values()))

    def drop(self, number: int, row: RawRow, problem: RowProblem) -> None:
        """Count a row as dropped.

        Args:
            number: The row's number in the data set, from 1.
            row: Where it came from.
            problem: Why it is dropped.
        """
        self.drop_at(number, row.place, problem)

    def drop_at(self, number: int, place: str, problem: RowProblem) -> None:
        """Count a row as dropped, by the place it came from."""
        self.rows.setdefault(problem.reason, array("Q")).append(number)
        drop = Drop(number, place, problem.key, problem.detail)
        examples = self.examples.setdefault(problem.reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(drop)
        if isinstance(problem, FileDamage) and len(self.damage) < _EXAMPLES:
            self.damage.append((drop, problem.advice))

    def mark_odd(self, number: int, row: RawRow, problem: RowProblem) -> None:
        """Remember a kept row whose roles are in an unusual order."""
        self.odd.append(number)
        if self.odd_example is None:
            self.odd_example = Drop(number, row.place, problem.key, problem.detail)

    def verdict(self, *, strict: bool, allow_drops: bool) -> DataError | None:
        """Whether too much was lost to train on the rest.

        Args:
            strict: Any drop is too much, and so is an unusual order of roles.
            allow_drops: No drop is too much, as long as a pair is left.

        Returns:
            The error to raise, or None.
        """
        if self.kept == 0:
            return DataError(
                f"{self.source}: no usable pairs in {self.read:,} rows ({self._first()}).",
                hint=self._advice() or "Is it the right file?",
            )
        if strict and self.rows:
            return DataError(
                f"{self.source}: {self.dropped_rows:,} of {self.read:,} rows would be dropped ({self._first()}).",
                hint=f"{self._advice()} Or remove --strict.",
            )
        if strict and self.odd:
            return DataError(
                f"{self.source}: {len(self.odd):,} of {self.read:,} rows have roles in an unusual order"
                f" (the first: {self.odd_example}).",
                hint=f"{REASONS[ROLE_ORDER]} Or remove --strict.",
            )
        if self.damage and not allow_drops:
            drop, advice = self.damage[0]
            return DataError(
                f"{drop}.", hint=f"{advice} Or pass --allow-drops to continue without these rows."
            )
        if self.dropped_rows > MOST_DROPPED * self.read and not allow_drops:
            return DataError(
                f"{self.source}: {self.dropped_rows:,} of {self.read:,} rows would be dropped, more than a tenth"
                f" ({self._first()}).",
                hint=f"{self._advice()} Or pass --allow-drops to train on the rest.",
            )
        return None

    def _advice(self) -> str:
        """What to do about the commonest reason."""
        most = max(self.dropped, key=lambda reason: len(self.rows[reason]), default=None)
        return REASONS[most] if most else ""

    def _first(self) -> str:
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in self.dropped.items())
        first = min((drops[0] for drops in self.examples.values()), key=lambda drop: drop.row, default=None)
        return f"{counts}; the first: {first}" if first else "no rows"

    def summary(self) -> str:
        """One line: "300 rows read as sharegpt: 298 pairs kept, 2 dropped (identical completions 2)"."""
        return f"{self.read} rows read as {self.format}: {self.kept} pairs kept, {self.dropped_words()}"

    def dropped_words(self) -> str:
        """How many were dropped and why: "2 dropped (identical completions 2)", or "none dropped"."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.dropped.items())
        return f"{self.dropped_rows} dropped ({reasons})" if reasons else "none dropped"

    def to_json(self) -> dict[str, Any]:
        """The content of `data.json`: counts, and the numbers of all dropped rows with examples in full."""
        return {
            "dataset": self.source,
            "format": self.format,
            "rows": {"read": self.read, "kept": self.kept, "dropped": self.dropped},
            "files": self.rows_by_file,
            "dropped_rows": {
                reason: {
                    "rows": list(self.rows[reason]),
                    "examples": [
                        {"row": drop.row, "place": drop.place, "key": drop.key, "detail": drop.detail}
                        for drop in self.examples[reason]
                    ],
                }
                for reason in self.dropped
            },
        }
