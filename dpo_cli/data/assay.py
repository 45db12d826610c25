"""Preference pairs from a table of measured values: `--format assay`, columns `sequence`, `value`, `group`.

Values are compared within a group only (a batch, a plate, a condition), because a group shifts all its
values alike. A pair is made where two values are at least a margin apart: the higher one is chosen.
`prompt` is what both are completions of; `cluster` names sequences that must not be torn apart by a split.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.accounting import Accounting
from dpo_cli.data.pairs import UNREADABLE, RowProblem, fingerprint
from dpo_cli.data.split import split_by_prompt
from dpo_cli.errors import DataError, listed, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from datasets import Dataset

    from dpo_cli.config import DataConfig
    from dpo_cli.data.sources.containers import Source
    from dpo_cli.data.sources.rows import RawRow

ASSAY: Final = "assay"
"""What `--format` calls this layout."""

ASSAY_TITLE: Final = "a table of assay values"

COLUMNS: Final = ("sequence", "value", "group")


@dataclass(slots=True)
class Measurement:
    """A sequence in a group, its replicates together.

    Attributes:
        prompt: What the sequence is a completion of.
        sequence: The sequence.
        values: One value for each replicate, in the unit of the table.
        rows: Numbers of their rows, from 1.
        family: Fingerprint of what must stay on one side of a split: the cluster, or the sequence.
    """

    prompt: str
    sequence: str
    values: list[float]
    rows: list[int]
    family: int

    @property
    def value(self) -> float:
        """Mean of the replicates."""
        return math.fsum(self.values) / len(self.values)


@dataclass
class AssayAccounting:
    """Where every row of the table went: read = in a pair + in no pair + dropped.

    Attributes:
        rows: Rows read and dropped, as for any data set; `kept` counts the rows with a value.
        margin: Least difference of a pair, in the unit of the table.
        groups: Rows with a value in each group.
        replicates: Rows that repeat a sequence in its group.
        replicate_sd: Pooled standard deviation of replicates; None without any.
        unpaired: Numbers of the rows that are in no pair: no value of their group is a margin away.
        pairs: Pairs made, held-out ones included.
    """

    rows: Accounting
    margin: float
    groups: dict[str, int] = field(default_factory=dict)
    replicates: int = 0
    replicate_sd: float | None = None
    unpaired: array[int] = field(default_factory=lambda: array("Q"))
    pairs: int = 0

    def summary(self) -> str:
        """One line: "4 rows read as assay: 3 measured, 1 dropped (unreadable row 1); 2 pairs made"."""
        rows = self.rows
        return f"{rows.read} rows read as {ASSAY}: {rows.kept} measured, {rows.dropped_words()}; {self.pairs} pairs made"

    def to_json(self) -> dict[str, Any]:
        """The key `assay` of `data.json`."""
        return {
            **self.rows.to_json(),
            "margin": self.margin,
            "groups": self.groups,
            "replicates": self.replicates,
            "replicate_sd": self.replicate_sd,
            "in_no_pair": list(self.unpaired),
            "pairs": self.pairs,
        }


@dataclass(frozen=True)
class AssayPairs:
    """Pairs of a table.

    Attributes:
        train: Columns `prompt`, `chosen`, `rejected`, all text.
        eval: Held-out pairs in the same layout; None when nothing is held out. No sequence, and no cluster,
            is on both sides.
        accounting: Where every row went.
    """

    train: Dataset
    eval: Dataset | None
    accounting: AssayAccounting


def read_assay(data: DataConfig, source: Source) -> AssayPairs:
    """Make preference pairs from a table of values.

    Args:
        data: How to read it: `assay_margin` and `assay_partners`, `eval_fraction` (of the sequences), `prompt_column`,
            `max_samples`.
        source: Rows with the columns `sequence` and `value`, perhaps `group`, `prompt` and `cluster`.

    Raises:
        DataError: A column is missing, no row has a value, or no two values are far enough apart.
    """
    groups, accounting = _read(data, source)
    measured = [one for group in groups.values() for one in group]
    sides = {False: groups}
    if data.eval_fraction:
        split = split_by_prompt([one.family for one in measured], data.eval_fraction)
        sides = {
            held: {
                name: [one for one in group if split.side(one.family) is held]
                for name, group in groups.items()
            }
            for held in (False, True)
        }
    found = {
        side: list(_pairs(table.values(), data.assay_margin, data.assay_partners))
        for side, table in sides.items()
    }
    used = {row for pairs in found.values() for pair in pairs for one in pair for row in one.rows}
    accounting.unpaired.extend(sorted(row for one in measured for row in one.rows if row not in used))
    accounting.pairs = sum(map(len, found.values()))
    for side, pairs in found.items():
        if not pairs:
            verdict = accounting.rows.verdict(strict=data.strict, allow_drops=data.allow_drops)
            raise verdict or _no_pairs(accounting, measured, held_out=side)
    from datasets import Dataset

    made = {side: Dataset.from_list([_row(*pair) for pair in pairs]) for side, pairs in found.items()}
    return AssayPairs(made[False], made.get(True), accounting)


def _row(better: Measurement, worse: Measurement) -> dict[str, str]:
    return {"prompt": better.prompt, "chosen": better.sequence, "rejected": worse.sequence}


def _read(data: DataConfig, source: Source) -> tuple[dict[str, list[Measurement]], AssayAccounting]:
    """The measurements of each group, replicates together."""
    rows = Accounting(source.name, ASSAY)
    accounting = AssayAccounting(rows, data.assay_margin)
    found: dict[tuple[str, str, str], Measurement] = {}
    for number, raw in enumerate(
        itertools.islice(source.rows(), min(data.max_samples or sys.maxsize, sys.maxsize)), start=1
    ):
        rows.read += 1
        rows.rows_by_file[raw.source] = rows.rows_by_file.get(raw.source, 0) + 1
        if number == 1:
            _check_columns(raw, data.prompt_column)
        try:
            key, value, family = _measurement(raw, data.prompt_column or "prompt")
        except RowProblem as problem:
            rows.drop(number, raw, problem)
            continue
        rows.kept += 1
        accounting.groups[key[0]] = accounting.groups.get(key[0], 0) + 1
        one = found.setdefault(key, Measurement(key[1], key[2], [], [], family))
        one.values.append(value)
        one.rows.append(number)
    if not rows.kept and (error := rows.verdict(strict=data.strict, allow_drops=data.allow_drops)):
        raise error
    accounting.replicates = rows.kept - len(found)
    accounting.replicate_sd = _pooled_sd(found.values())
    groups: dict[str, list[Measurement]] = {}
    for (group, prompt, _), one in found.items():
        groups.setdefault(f"{group}\0{prompt}", []).append(one)
    return groups, accounting


def _check_columns(raw: RawRow, prompt_column: str | None) -> None:
    if raw.data is None:
        return
    needed = ["sequence", "value", *([prompt_column] if prompt_column else [])]
    missing = [name for name in needed if name not in raw.data]
    if missing:
        raise DataError(
            f"{raw.place}: has no column {' and no column '.join(map(repr, missing))}."
            f" The columns are: {listed(raw.data)}.",
            hint=f"--format assay reads {', '.join(COLUMNS)}, and optionally prompt and cluster.",
        )


def _measurement(raw: RawRow, prompt_column: str) -> tuple[tuple[str, str, str], float, int]:
    """(group, prompt, sequence), the value, and the family of a row."""
    if raw.data is None:
        raise raw.problem or RowProblem(UNREADABLE, "empty row")
    row = raw.data
    sequence = row.get("sequence")
    if not isinstance(sequence, str) or not sequence.strip():
        raise RowProblem(UNREADABLE, f"sequence is {quoted(sequence)}, not text", "sequence")
    sequence = sequence.strip()
    group, prompt, cluster = (
        str(row.get(name) if row.get(name) is not None else "").strip()
        for name in ("group", prompt_column, "cluster")
    )
    return (group, prompt, sequence), _number(row.get("value")), fingerprint(cluster or sequence)


def _number(value: object) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError  # noqa: TRY301 - true is 1 to float(), and no measured value
        number = float(value)  # type: ignore[arg-type] # what float() refuses is refused here
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RowProblem(UNREADABLE, f"value is {quoted(value)}, not a number", "value")
    return number


def _pooled_sd(measured: Iterable[Measurement]) -> float | None:
    """Square root of the squared deviations from each mean over the degrees of freedom; in the table's unit."""
    squares, freedom = 0.0, 0
    for one in measured:
        if len(one.values) > 1:
            squares += math.fsum((value - one.value) ** 2 for value in one.values)
            freedom += len(one.values) - 1
    return math.sqrt(squares / freedom) if freedom else None


def _pairs(
    groups: Iterable[list[Measurement]], margin: float, partners: int
) -> Iterable[tuple[Measurement, Measurement]]:
    """(chosen, rejected), each chosen one against at most `partners` drawn among those far enough below it."""
    drawn = random.Random(0)  # noqa: S311 - the same table gives the same pairs
    for group in groups:
        ordered = sorted(group, key=lambda one: one.value)
        below = 0
        for better in ordered:
            while ordered[below].value < better.value and better.value - ordered[below].value >= margin:
                below += 1
            for at in sorted(drawn.sample(range(below), min(partners, below))):
                yield better, ordered[at]


def _no_pairs(accounting: AssayAccounting, measured: list[Measurement], *, held_out: bool) -> DataError:
    values = [one.value for one in measured]
    side = "held-out " if held_out else ""
    return DataError(
        f"{accounting.rows.source}: no two {side}values in a group differ by {accounting.margin:g} or more,"
        f" so no pairs can be made. {len(accounting.groups):,} groups, values from {min(values):g} to {max(values):g}.",
        hint="Lower --assay-margin, or check the group column: values are compared only within a group.",
    )
