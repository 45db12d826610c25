"""Rows of CSV, Parquet and Arrow files, one batch at a time."""

from __future__ import annotations

import csv
import io
import itertools
import os
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from dpo_cli.data.pairs import UNREADABLE, RowProblem
from dpo_cli.data.sources.json_rows import not_utf8, refuse_utf16
from dpo_cli.data.sources.rows import (
    LARGEST_ROW,
    WITHOUT_A_ROW,
    FileDamage,
    RawRow,
    no_row_in_sight,
    refuse_bomb,
    too_large,
    weight,
)
from dpo_cli.errors import DataError, quoted
from dpo_cli.text.strict import first_repeated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BATCH: Final = 1024
_FIRST: Final = 4
_WIDE: Final = 128
_AT_ONCE: Final = 32 * 2**20
"""Rows read at once: the most, those looked at first, the most where rows may be long; and their characters."""

_ROWS: Final = 1_000_000
_DELIMITERS: Final = {".tsv": "\t"}


def read_csv(stream: BinaryIO, source: str, *, suffix: str) -> Iterator[RawRow]:
    """Every row of a CSV file with a header; all values are text, exactly as they stand.

    Args:
        stream: The file, decompressed.
        source: Its name, for messages.
        suffix: `.csv`, or `.tsv` for tabs.

    Raises:
        DataError: No header, not UTF-8, or a quote that is never closed.
    """
    csv.field_size_limit(2 * LARGEST_ROW)
    refuse_utf16(stream.read(2), source)
    stream.seek(0)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        reader = csv.reader(_lines(text, source), delimiter=_delimiter(text, suffix), strict=True)
        header = next(reader, [])
        _check_header(header, source)
        number = 0
        while True:
            line = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if not cells:
                continue
            number += 1
            yield _csv_row(cells, header, RawRow(number, source, line, None, None))
    except UnicodeDecodeError as error:
        problem = not_utf8(error)
        raise DataError(f"{source}: {problem.detail}.", hint=problem.advice) from error
    except csv.Error as error:
        raise DataError(f"{source} line {reader.line_num}: not CSV: {error}.") from error
    finally:
        text.detach()  # the stream is closed by whoever opened it


def _lines(text: io.TextIOWrapper, source: str) -> Iterator[str]:
    """Lines with their end, each of which fits in memory."""
    blank = 0
    for number in itertools.count(1):
        line = text.readline(WITHOUT_A_ROW)
        blank = blank + len(line) if not line.strip() else 0
        if len(line) >= WITHOUT_A_ROW or blank >= WITHOUT_A_ROW:
            raise no_row_in_sight(source, number)
        if not line:
            return
        yield line


def _delimiter(text: io.TextIOWrapper, suffix: str) -> str:
    if suffix in _DELIMITERS:
        return _DELIMITERS[suffix]
    first = text.readline(LARGEST_ROW)
    text.seek(0)
    return next((mark for mark in (",", ";", "\t") if mark in first), ",")


def _check_header(header: list[str], source: str) -> None:
    if not any(name.strip() for name in header):
        raise DataError(f"{source} has no header line with column names.")
    if twice := first_repeated(name for name in header if name):
        raise DataError(f"{source} line 1: duplicate column {quoted(twice)}.", hint="Rename one of them.")


def _csv_row(cells: list[str], header: list[str], row: RawRow) -> RawRow:
    problem: RowProblem | None = None
    size = sum(map(len, cells))
    if size > LARGEST_ROW:
        problem = too_large(size)
    elif len(cells) != len(header):
        problem = RowProblem(UNREADABLE, f"{len(cells)} cells, but the header has {len(header)}")
    if problem is not None:
        return RawRow(row.number, row.source, row.line, None, problem)
    data = dict(zip(header, cells, strict=True))
    return RawRow(row.number, row.source, row.line, data, None)


def read_parquet(stream: BinaryIO, source: str) -> Iterator[RawRow]:
    """Every row of a Parquet file.

    Raises:
        DataError: No Parquet, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    packed = os.fstat(stream.fileno()).st_size
    try:
        yield from _table_rows(_parquet_batches(pq.ParquetFile(stream), source, packed), source, packed)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source} is not a readable Parquet file: {error}") from error


def _parquet_batches(file: Any, source: str, packed: int) -> Iterator[Any]:  # noqa: ANN401 - pyarrow has no types
    """Batches that fit in memory: as many rows as the first ones of their row group say."""
    rows = file.metadata.num_rows
    if rows > max(_ROWS, packed):
        raise DataError(f"{source}: claims {rows:,} rows in {packed:,} bytes: they cannot all differ.")
    for group in range(file.num_row_groups):
        size = _BATCH
        if file.metadata.row_group(group).total_byte_size > LARGEST_ROW:
            first = next(file.iter_batches(batch_size=_FIRST, row_groups=[group]), None)
            size = _step(sum(map(weight, first.to_pylist())) if first is not None else 0, _FIRST, most=_WIDE)
        yield from file.iter_batches(batch_size=size, row_groups=[group])


def _step(read: int, rows: int, most: int = _BATCH) -> int:
    """How many rows to read at once, after `rows` of them had `read` characters."""
    return max(1, min(most, _AT_ONCE * rows // max(read, 1)))


def read_arrow(stream: BinaryIO, source: str) -> Iterator[RawRow]:
    """Every row of an Arrow file, in the streaming format (what `datasets` writes) or the file format.

    Raises:
        DataError: No Arrow data, or damaged.
    """
    import pyarrow as pa

    try:
        magic = stream.read(6)
        stream.seek(0)
        if magic == b"ARROW1":
            reader = pa.ipc.open_file(stream)
            batches: Iterable[Any] = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            batches = pa.ipc.open_stream(stream)
        yield from _table_rows(batches, source, os.fstat(stream.fileno()).st_size)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source} is not a readable Arrow file: {error}") from error


def _table_rows(batches: Iterable[Any], source: str, packed: int) -> Iterator[RawRow]:
    number = unpacked = 0
    step = _FIRST
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            part = batch.slice(start, step)
            start += step
            size = 0
            for data in _python_rows(part):
                number += 1
                problem = data if isinstance(data, RowProblem) else None
                row = 0 if isinstance(data, RowProblem) else weight(data)
                size += row
                if row > LARGEST_ROW:
                    problem = too_large(row)
                if isinstance(data, RowProblem) or problem is not None:
                    yield RawRow(number, source, None, None, problem)
                else:
                    yield RawRow(number, source, None, without_nulls(data), None)
            unpacked += size
            refuse_bomb(source, unpacked, packed)
            step = _step(size, part.num_rows)


def _python_rows(part: Any) -> list[dict[str, Any] | RowProblem]:  # noqa: ANN401 - pyarrow has no types
    """The rows of a batch; a problem in place of one whose text is not UTF-8."""
    try:
        rows: list[dict[str, Any] | RowProblem] = part.to_pylist()
    except UnicodeDecodeError as error:
        if part.num_rows > 1:
            return [row for at in range(part.num_rows) for row in _python_rows(part.slice(at, 1))]
        detail = f"contains a text with the byte 0x{error.object[error.start]:02x}, which is not UTF-8"
        return [FileDamage(detail, advice="Write the file again, with the text decoded.")]
    return rows


def without_nulls(data: dict[str, Any]) -> dict[str, Any]:
    """A row without the nulls that a table puts into objects for keys which other rows have.

    A column that is null stays: that is what the row says. Inside objects a table cannot tell a missing
    key from a null one, and a template must not find the arguments of other rows' tool calls.
    """
    return {name: _without_nulls(value) for name, value in data.items()}


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - whatever a table holds
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
