"""A table of the user's own: read it, and refuse what cannot be right by row and column."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiment import say

from dpo_cli.errors import DataError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALPHABET = "ACGT"
MISSING = {"", "NA", "NaN", "nan"}


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
            is no number, or one condition only in a table that has a column for it; by line, for what is no text.
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
    reader = csv.DictReader(io.StringIO(_text(file), newline=""))
    try:
        rows = _rows(file, reader)
    except csv.Error as error:
        raise DataError(
            f"{file} line {reader.reader.line_num}: {error}.",
            hint="Is a quotation mark missing on this line or before it?",
        ) from None
    if not rows:
        raise DataError(f"{file} row 2: no rows below the header.")
    return rows


def _rows(file: Path, reader: csv.DictReader) -> list[Measured]:
    columns = reader.fieldnames or []
    if "ss" in columns and any(name.startswith("elp1_") for name in columns):
        conditions = [name for name in columns if name.startswith("elp1_")]
        return list(_wide(file, reader, conditions))
    if {"x", "y"} <= set(columns):
        name = file.name.split(".")[0].replace("_data", "").upper()
        return [
            _measured(file, number, row, sequence="x", condition=name, value="y")
            for number, row in _numbered(reader)
        ]
    if {"sequence", "condition", "value"} <= set(columns):
        rows = [
            _measured(
                file,
                number,
                row,
                sequence="sequence",
                condition=_condition(file, number, row),
                value="value",
            )
            for number, row in _numbered(reader)
        ]
        _need_two_conditions(file, rows)
        return rows
    raise DataError(
        f"{file} row 1: the columns {', '.join(columns) or '(none)'} are no layout that is known.",
        hint="Known are sequence,condition,value; ss,elp1_...; and set,tot_ct,ex_ct,y,x.",
    )


def _text(file: Path) -> str:
    try:
        if not file.is_file():
            raise DataError(f"{file}: no such file.")
        data = file.read_bytes()
        if file.suffix == ".gz":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file} line {line}: is not UTF-8 text.", hint="Save the table as CSV in UTF-8."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read ({first_line(error)}).") from None
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise DataError(
            f"{file} line {line}: has a NUL byte, which no table of text has.",
            hint="Save the table as CSV in UTF-8.",
        )
    return text


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
            yield _measured(
                file, number, row, sequence="ss", condition=name.removeprefix("elp1_").upper(), value=name
            )
    if missing:
        say(f"{file}: {missing:,} values are missing and left out")


def _condition(file: Path, number: int, row: dict[str, str]) -> str:
    name = (row["condition"] or "").strip()
    if not name or any(mark in name for mark in "<> \t"):
        raise DataError(
            f"{file} row {number}, column condition: {name!r} is no name (letters, digits, no spaces)."
        )
    return name


def _measured(
    file: Path, number: int, row: dict[str, str], *, sequence: str, condition: str, value: str
) -> Measured:
    place = f"{file} row {number}, column {sequence}"
    letters = (row[sequence] or "").strip().upper().replace("U", "T")
    if letters.count("/") == 1 and letters.index("/") != 3:  # noqa: PLR2004 - a donor has three letters of exon
        raise DataError(
            f"{place}: the border is after letter {letters.index('/')}, in a donor it is after letter 3."
        )
    letters = letters.replace("/", "", 1)
    if not letters:
        raise DataError(f"{place}: no sequence.")
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
