"""The same question on a table of your own: read it, refuse what cannot be right, split, train, measure."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import language_model
import numpy as np
from experiment import BETA, dpo_train, say
from measures import auroc, both_right, pair_accuracy
from sites import DONOR, Sites, bits

from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COLUMNS = ("pair accuracy", "both tags right", "detection AUROC", "switch AUROC")
ALPHABET = "ACGT"
HELD_OUT = 0.2
"""Share of the sequences that is held out, with all their conditions."""
PAIRS = 6_000
MISSING = {"", "NA", "NaN", "nan"}
TOP = 0.1
"""A site counts as used when its value is among the highest tenth of its condition."""


@dataclass(frozen=True)
class Measured:
    """One value of one site in one condition, and where it stands."""

    sequence: str
    condition: str
    value: float
    place: str


def read_tables(files: list[Path]) -> list[Measured]:
    """Read tables in any of the three layouts and check them against each other.

    Raises:
        DataError: With row and column, for a letter outside of the alphabet, sites of unequal length, a value that
            is no number, or one condition only in a table that has a column for it.
    """
    rows: list[Measured] = []
    for file in files:
        rows += read_table(file)
    first = rows[0]
    for row in rows:
        if len(row.sequence) != len(first.sequence):
            raise DataError(
                f"{row.place}: {len(row.sequence)} letters, and {first.place} has {len(first.sequence)}.",
                hint="All sites must have the same length, the exon-intron border in the same place.",
            )
    return rows


def read_table(file: Path) -> list[Measured]:
    """Read one table; its layout is found from its columns.

    - `ss,elp1_dmso,elp1_rg,elp1_nvs`: RNA, a slash at the border, PSI in per cent in three conditions.
    - `x` and `y` among others (mavenn's MPSA): RNA or DNA, log10 PSI in one condition, named after the file.
    - `sequence,condition,value`.

    Raises:
        DataError: As `read_tables`.
    """
    with _open(file) as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or []
        if "ss" in columns and any(name.startswith("elp1_") for name in columns):
            conditions = [name for name in columns if name.startswith("elp1_")]
            rows = list(_wide(file, reader, conditions))
        elif {"x", "y"} <= set(columns):
            name = file.name.split(".")[0].replace("_data", "").upper()
            rows = [_measured(file, number, row, "x", name, "y") for number, row in _numbered(reader)]
        elif {"sequence", "condition", "value"} <= set(columns):
            rows = [_measured(file, number, row, "sequence", _condition(file, number, row), "value") for number, row in _numbered(reader)]
            _need_two_conditions(file, rows)
        else:
            raise DataError(
                f"{file} row 1: the columns {', '.join(columns) or '(none)'} are no layout that is known.",
                hint="Known are sequence,condition,value; ss,elp1_...; and set,tot_ct,ex_ct,y,x.",
            )
    if not rows:
        raise DataError(f"{file} row 2: there are no rows below the header.")
    return rows


def _open(file: Path) -> object:
    if not file.is_file():
        raise DataError(f"{file}: there is no such file.")
    opened = gzip.open(file, "rt", encoding="utf-8-sig", newline="") if file.suffix == ".gz" else file.open(encoding="utf-8-sig", newline="")
    return opened  # noqa: RET504 - the conditional is long enough


def _numbered(reader: csv.DictReader) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their number as a spreadsheet counts: the header is row 1."""
    yield from enumerate(reader, start=2)


def _wide(file: Path, reader: csv.DictReader, conditions: list[str]) -> Iterator[Measured]:
    missing = 0
    for number, row in _numbered(reader):
        for name in conditions:
            if (row[name] or "").strip() in MISSING:
                missing += 1
                continue
            yield _measured(file, number, row, "ss", name.removeprefix("elp1_").upper(), name)
    if missing:
        say(f"{file}: {missing:,} values are missing and left out")


def _condition(file: Path, number: int, row: dict[str, str]) -> str:
    name = (row["condition"] or "").strip()
    if not name or any(mark in name for mark in "<> \t"):
        raise DataError(f"{file} row {number}, column condition: {name!r} is no name (letters, digits, no spaces).")
    return name


def _measured(file: Path, number: int, row: dict[str, str], sequence: str, condition: str, value: str) -> Measured:
    place = f"{file} row {number}, column {sequence}"
    letters = (row[sequence] or "").strip().upper().replace("U", "T")
    if letters.count("/") == 1 and letters.index("/") != 3:  # noqa: PLR2004 - a donor has three letters of exon
        raise DataError(f"{place}: the border is after letter {letters.index('/')}, in a donor it is after letter 3.")
    letters = letters.replace("/", "", 1)
    if not letters:
        raise DataError(f"{place}: there is no sequence.")
    strange = next((at for at, letter in enumerate(letters) if letter not in ALPHABET), None)
    if strange is not None:
        raise DataError(f"{place}: letter {strange + 1} is {letters[strange]!r}; known are A, C, G, T and U.")
    return Measured(letters, f"<{condition}>", _number(file, number, row, value), place)


def _number(file: Path, number: int, row: dict[str, str], column: str) -> float:
    text = row[column]
    try:
        found = float(text)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{file} row {number}, column {column}: {text!r} is not a number.")
    return found


def _need_two_conditions(file: Path, rows: list[Measured]) -> None:
    conditions = {row.condition for row in rows}
    if len(conditions) == 1:
        raise DataError(
            f"{file} rows 2 to {len(rows) + 1}, column condition: all are {conditions.pop()[1:-1]!r}.",
            hint="The question is which site is used in which condition: there must be two at least.",
        )
