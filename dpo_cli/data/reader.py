"""From raw rows to pairs: columns renamed, layout found, every row either a pair or a named problem."""

from __future__ import annotations

import difflib
import itertools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.formats import FORMATS, detect, nearest, recognise
from dpo_cli.data.judged import is_single_answers
from dpo_cli.data.messages import kind
from dpo_cli.data.pairs import NON_TEXT, ROLE_ORDER, UNREADABLE, Pair, RowProblem, check_pair
from dpo_cli.data.sources.rows import FileDamage, RawRow, weight
from dpo_cli.data.unwrapping import unwrapped
from dpo_cli.errors import ConfigError, DataError, listed, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dpo_cli.data.shapes import Format
    from dpo_cli.data.sources.containers import Source

_PEEKED: Final = 100
_PEEKED_CHARACTERS: Final = 1 << 24
"""Rows looked at to find the layout, and their characters."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what, where their names are not those of a known layout; None leaves a name as it is."""

    prompt: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    system: str | None = None

    def renames(self) -> dict[str, str]:
        """From the file's name to ours, only where one was given."""
        named = {
            "prompt": self.prompt,
            "chosen": self.chosen,
            "rejected": self.rejected,
            "system": self.system,
        }
        return {theirs: ours for ours, theirs in named.items() if theirs is not None}


@dataclass(frozen=True, slots=True)
class ReadRow:
    """One row, read: either a pair or a problem.

    Attributes:
        number: Its place in the data set, from 1.
        raw: Where it came from.
        pair: The pair; None when there is a problem.
        problem: Why it is none.
    """

    number: int
    raw: RawRow
    pair: Pair | None
    problem: RowProblem | None


class PairReader:
    """Reads a source as pairs, from the start each time it is iterated.

    The source is opened when the reader is made, to find the layout, and the first iteration goes on from there:
    reading once opens each file once.

    Args:
        source: Raw rows.
        layout: Name of a format, or an unambiguous beginning of one; None detects it.
        columns: Names of columns that differ from the layout's.
        max_samples: Read at most this many rows.

    Raises:
        ConfigError: No such format.
        DataError: No row, no known layout, or a column that is not there; while iterating, a row of
            another layout.
    """

    def __init__(
        self,
        source: Source,
        *,
        layout: str | None = None,
        columns: Columns | None = None,
        max_samples: int | None = None,
    ) -> None:
        self.source = source
        self._renames = (columns or Columns()).renames()
        self._max = min(max_samples or sys.maxsize, sys.maxsize)
        forced = resolve_format(layout) if layout is not None else None
        rows = source.rows()
        self._peeked = list(_first_rows(itertools.islice(rows, min(_PEEKED, self._max))))
        self._opened: Iterator[RawRow] | None = itertools.chain(self._peeked, rows)
        self.format = self._find_format(forced)

    def __iter__(self) -> Iterator[ReadRow]:
        """Every row, as a pair or as a problem."""
        rows, self._opened = self._opened or self.source.rows(), None
        for number, raw in enumerate(itertools.islice(rows, self._max), start=1):
            yield self._read(number, raw)

    def first_pair(self) -> Pair | None:
        """The first pair among the rows that the layout was found from; None when none of them is one."""
        rows = (self._read(number, raw) for number, raw in enumerate(self._peeked, start=1))
        return next((row.pair for row in rows if row.pair is not None), None)

    def _read(self, number: int, raw: RawRow) -> ReadRow:
        if raw.data is None:
            return ReadRow(number, raw, None, raw.problem)
        try:
            row = unwrapped(self._renamed(raw.data))
        except RowProblem as problem:
            return ReadRow(number, raw, None, problem)
        try:
            pair = self.format.read(row, system_named="system" in self._renames.values())
            return ReadRow(number, raw, check_pair(pair), None)
        except RowProblem as problem:
            self._refuse_other_layout(row, raw, problem)
            return ReadRow(number, raw, None, problem)

    def _renamed(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self._renames:
            return row
        kept = {name: value for name, value in row.items() if name not in self._renames}
        return kept | {ours: row[theirs] for theirs, ours in self._renames.items() if theirs in row}

    def _find_format(self, forced: Format | None) -> Format:
        readable = [raw for raw in self._peeked if raw.data is not None]
        if not readable:
            raise _nothing_readable(self.source.name, self._peeked)
        first = readable[0]
        self._check_columns(first)
        rows = [self._unwrapped(self._renamed(raw.data or {})) for raw in readable]
        found = forced or detect(rows, system_named="system" in self._renames.values())
        if found is None:
            raise _no_format(first, rows[0])
        self._first_shape = _shape(next((row for row in rows if found.recognises(row)), rows[0]))
        if forced is not None and not any(forced.has_columns(row) for row in rows):
            raise _forced_format(first, rows[0], forced)
        return found

    def _unwrapped(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as layouts know it; one whose text cannot be read stays as it is, and is refused when it is its turn."""
        try:
            return unwrapped(row)
        except RowProblem:
            return row

    def _check_columns(self, first: RawRow) -> None:
        there = list(first.data or {})
        for theirs, ours in self._renames.items():
            if theirs not in there:
                close = difflib.get_close_matches(theirs, there, 1)
                raise DataError(
                    f"{first.place}: has no column {quoted(theirs)} (for --{ours}-column)."
                    f" The columns are: {listed(there)}.",
                    hint=f"Did you mean {quoted(close[0])}?" if close else "",
                )

    def _refuse_other_layout(self, row: dict[str, Any], raw: RawRow, problem: RowProblem) -> None:
        if (
            problem.reason not in _MAY_BE_LAYOUT
            or self.format.recognises(row)
            or _shape(row) == self._first_shape
        ):
            return
        other = recognise(row)
        if other is not None and other is not self.format:
            raise DataError(
                f"{raw.place}: this row is in the layout {other.name} ({other.title}), the rows before it in"
                f" {self.format.name} ({self.format.title}). It has the columns: {listed(row)}.",
                hint="Split the file by layout, and name the layout of each part with --format if needed.",
            ) from problem


def _first_rows(rows: Iterator[RawRow]) -> Iterator[RawRow]:
    """Rows until they are long enough together."""
    read = 0
    for raw in rows:
        yield raw
        read += weight(raw.data)
        if read > _PEEKED_CHARACTERS:
            return


_MAY_BE_LAYOUT: Final = frozenset({NON_TEXT, ROLE_ORDER, UNREADABLE})


_KNOWN: Final = frozenset(name for layout in FORMATS.values() for names in layout.columns for name in names)


def _shape(row: dict[str, Any]) -> frozenset[tuple[str, str]]:
    """The columns of a row that formats know, and what kind of value each holds."""
    return frozenset((name, kind(value)) for name, value in row.items() if name in _KNOWN)


def resolve_format(name: str) -> Format:
    """The format of a name, or of an unambiguous beginning of one.

    Raises:
        ConfigError: None or several.
    """
    wanted = name.strip().casefold().replace("_", "-").replace(" ", "-")
    if wanted in FORMATS:
        return FORMATS[wanted]
    found = [layout for key, layout in FORMATS.items() if key.startswith(wanted)]
    if wanted and len(found) == 1:
        return found[0]
    raise ConfigError(
        f"--format {name}: is not a known format.", hint=f"Known formats: {', '.join(FORMATS)}, assay."
    )


def _nothing_readable(name: str, peeked: list[RawRow]) -> DataError:
    if not peeked:
        return DataError(f"{name} has no rows.")
    first = peeked[0]
    problem = first.problem
    hint = problem.advice if isinstance(problem, FileDamage) else "Each row must be an object with columns."
    return DataError(f"{first.place}: {problem}.", hint=hint)


def _no_format(raw: RawRow, row: dict[str, Any]) -> DataError:
    if is_single_answers(row):
        return DataError(
            f"{raw.place}: these are single answers with a label (KTO), but dpo trains on pairs of answers.",
            hint="Give each row a prompt, a good answer as `chosen` and a bad one as `rejected`.",
        )
    layout, lacks = nearest(row)
    return DataError(
        f"{raw.place}: this row fits no known format. It has the columns: {listed(row) or 'none'}."
        f" The nearest format is {layout.name} ({layout.title}); missing: {', and '.join(lacks)}.",
        hint="Name the columns with --prompt-column, --chosen-column, --rejected-column, --system-column.",
    )


def _forced_format(raw: RawRow, row: dict[str, Any], layout: Format) -> DataError:
    return DataError(
        f"{raw.place}: this row is not in the format {layout.name}. It has the columns: {listed(row) or 'none'};"
        f" missing: {', and '.join(layout.missing(row))}.",
        hint="Remove --format to have it detected, or name the columns with --prompt-column and similar flags.",
    )
