"""Rows of CSV, Parquet and Arrow files, one batch at a time."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from dpo_cli.data.pairs import UNREADABLE, RowProblem
from dpo_cli.data.sources.json_rows import LARGEST_ROW, not_utf8, too_large
from dpo_cli.data.sources.rows import RawRow
from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BATCH: Final = 1024
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
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        reader = csv.reader(text, delimiter=_delimiter(text, suffix), strict=True)
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
        raise DataError(f"{source} line {reader.line_num}: no CSV: {error}.") from error
    finally:
        text.detach()  # the stream is closed by whoever opened it


def _delimiter(text: io.TextIOWrapper, suffix: str) -> str:
    if suffix in _DELIMITERS:
        return _DELIMITERS[suffix]
    first = text.readline()
    text.seek(0)
    return next((mark for mark in (",", ";", "\t") if mark in first), ",")


def _check_header(header: list[str], source: str) -> None:
    if not any(name.strip() for name in header):
        raise DataError(f"{source} has no header line with the names of its columns.")
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{source} line 1: the column {twice!r} stands twice.", hint="Rename one of them.")


def _csv_row(cells: list[str], header: list[str], row: RawRow) -> RawRow:
    problem: RowProblem | None = None
    size = sum(map(len, cells))
    if size > LARGEST_ROW:
        problem = too_large(size)
    elif len(cells) != len(header):
        problem = RowProblem(UNREADABLE, f"{len(cells)} cells, and the header has {len(header)}")
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

    try:
        batches = pq.ParquetFile(stream).iter_batches(batch_size=_BATCH)
        yield from _table_rows(batches, source)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source} is no Parquet file that can be read: {error}") from error


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
        yield from _table_rows(batches, source)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source} is no Arrow file that can be read: {error}") from error


def _table_rows(batches: Iterable[Any], source: str) -> Iterator[RawRow]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            for data in batch.slice(start, _BATCH).to_pylist():
                number += 1
                yield RawRow(number, source, None, without_nulls(data), None)


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
