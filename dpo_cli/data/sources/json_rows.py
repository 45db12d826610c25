"""Rows of JSON files, read strictly and one at a time.

Strict, because a lenient reader trains on something else than the file says: of two equal keys it
keeps the last, of half a surrogate pair it makes a question mark, and half a file is a shorter file.
One at a time, because a file may be larger than memory: a JSON array is never held whole.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from dpo_cli.data.pairs import UNREADABLE, RowProblem
from dpo_cli.data.sources.rows import (
    LARGEST_ROW,
    WITHOUT_A_ROW,
    FileDamage,
    RawRow,
    no_row_in_sight,
    too_large,
)
from dpo_cli.errors import DataError, quoted
from dpo_cli.text.strict import SURROGATE, first_repeated

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK: Final = 1 << 16
_LONGEST_TOKEN: Final = 16  # characters of `-Infinity` or of two escapes, and some
_ESCAPED_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_BOMS: Final = frozenset({b"\xff\xfe", b"\xfe\xff"})


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(items)
    if len(made) != len(items):
        twice = first_repeated(name for name, _ in items) or ""
        raise RowProblem(UNREADABLE, f"duplicate key {quoted(twice)} in one object", twice)
    return made


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique)


def read_json(stream: BinaryIO, source: str, *, by_line: bool, split: str) -> Iterator[RawRow]:
    """Every row of a JSON file, be it an array, one object a line, or objects one after the other.

    Args:
        stream: The file, decompressed, at its beginning.
        source: Its name, for messages.
        by_line: The suffix says one object a line (`.jsonl`).
        split: Which list to read where the file is one object of lists, as in `{"train": [...]}`.

    Yields:
        Rows, or the problem of a row that is there and cannot be read.

    Raises:
        FileDamage: The file is cut off or not UTF-8, at the row where that shows.
        DataError: The file as a whole is no JSON.
    """
    head = _first_bytes(stream, source)
    if head.lstrip()[:1] == b"[":
        yield from _read_array(_Text(stream, source, head))
    elif by_line or _is_one_line_object(head):
        yield from _read_lines(stream, source, head)
    else:
        yield from _read_objects(_Text(stream, source, head), split)


def _first_bytes(stream: BinaryIO, source: str) -> bytes:
    head = stream.read(_CHUNK)
    refuse_utf16(head, source)
    return head.removeprefix(b"\xef\xbb\xbf")


def refuse_utf16(head: bytes, source: str) -> None:
    """Stop at a file that begins as UTF-16 does."""
    if head[:2] in _BOMS:
        raise DataError(
            f"{source} is UTF-16, not UTF-8.",
            hint=f"Convert it: iconv -f UTF-16 -t UTF-8 {source} > utf8{PurePath(source).suffix}",
        )


def _is_one_line_object(head: bytes) -> bool:
    """Whether the first line is an object by itself, or fails for a reason other than ending too early."""
    first, newline, _ = head.lstrip().partition(b"\n")
    if not newline:
        return False
    try:
        json.loads(first)
    except ValueError:
        return first.rstrip().endswith(b"}")
    return True


def _read_lines(stream: BinaryIO, source: str, head: bytes) -> Iterator[RawRow]:
    number = blank = 0
    for line_number, (line, whole) in enumerate(_lines(stream, source, head), start=1):
        if not line.strip():
            blank += len(line) + 1
            if blank > WITHOUT_A_ROW:
                raise no_row_in_sight(source, line_number)
            continue
        number += 1
        blank = 0
        try:
            data = _parse_line(line)
        except RowProblem as problem:
            yield RawRow(number, source, line_number, None, problem)
        except UnicodeDecodeError as error:
            yield RawRow(number, source, line_number, None, not_utf8(error))
        except RecursionError:
            yield RawRow(
                number, source, line_number, None, RowProblem(UNREADABLE, "objects are nested too deeply")
            )
        except ValueError as error:
            yield RawRow(number, source, line_number, None, _no_json(error, line, whole=whole))
        else:
            yield RawRow(number, source, line_number, data, None)


def _lines(stream: BinaryIO, source: str, head: bytes) -> Iterator[tuple[bytes, bool]]:
    """Lines without their end, and whether they had one."""
    rest = head
    number = 0
    while True:
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield line, True
        number += len(lines)
        pieces, size = [rest], len(rest)
        while chunk := stream.read(_CHUNK):
            pieces.append(chunk)
            size += len(chunk)
            if b"\n" in chunk:
                break
            if size > WITHOUT_A_ROW:
                raise no_row_in_sight(source, number + 1)
        else:
            break
        rest = b"".join(pieces)
    last = b"".join(pieces)
    if last:
        yield last, False


def _parse_line(line: bytes) -> dict[str, Any]:
    if len(line) > LARGEST_ROW:
        raise too_large(len(line))
    text = line.decode("utf-8").strip()
    data, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise RowProblem(UNREADABLE, f"more than one JSON value in the line (after character {end})")
    return checked(data, suspicious=_ESCAPED_SURROGATE.search(line) is not None)


def not_utf8(error: UnicodeDecodeError) -> FileDamage:
    """The problem of bytes that are no UTF-8."""
    return FileDamage(
        f"byte {error.start + 1} of the line is 0x{error.object[error.start]:02x}, which is not UTF-8",
        advice="Convert the file, for example: iconv -f LATIN1 -t UTF-8",
    )


def _no_json(error: ValueError, line: bytes, *, whole: bool) -> RowProblem:
    """The problem of a line that is no JSON; a last line without an end that stops too early was cut off."""
    if not whole and isinstance(error, json.JSONDecodeError):
        text = line.decode("utf-8").strip()
        if error.msg.startswith("Unterminated string") or error.pos > len(text) - _LONGEST_TOKEN:
            return FileDamage(f"the last line is cut off ({_why(error)})")
    return RowProblem(UNREADABLE, f"not JSON: {_why(error)}")


def _why(error: ValueError) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def checked(data: object, *, suspicious: bool) -> dict[str, Any]:
    """A parsed row, after making sure that it is an object of real characters.

    Args:
        data: What the JSON text holds.
        suspicious: It has escapes of surrogates, which are characters only in pairs.

    Raises:
        RowProblem: `unreadable row`.
    """
    if not isinstance(data, dict):
        raise RowProblem(UNREADABLE, f"the row is {type(data).__name__}, not an object with columns")
    if suspicious:
        for key, text in _texts(data, ""):
            if SURROGATE.search(text):
                raise RowProblem(UNREADABLE, f"{key} has a lone surrogate, which is not a character", key)
    return data


def _texts(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield f"{key}.{name}".lstrip("."), name
            yield from _texts(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{key}[{index}]")


class _Text:
    """The text of a file, as a window that moves forward: `text[at:]` is what is read and not yet used."""

    def __init__(self, stream: BinaryIO, source: str, head: bytes) -> None:
        self._stream = stream
        self._rest = b""
        self.source = source
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False
        self._take(head)

    def _take(self, chunk: bytes) -> None:
        data = self._rest + chunk
        try:
            fresh, self._rest = data.decode("utf-8"), b""
        except UnicodeDecodeError as error:
            if chunk and len(data) - error.start < 4:  # noqa: PLR2004 - a character that the next chunk completes
                fresh, self._rest = data[: error.start].decode("utf-8"), data[error.start :]
            else:
                line = self.line + self.text.count("\n", self.at) + data.count(b"\n", 0, error.start)
                byte = data[error.start]
                raise DataError(
                    f"{self.source} line {line}: byte 0x{byte:02x} is not UTF-8.",
                    hint="Convert the file, for example: iconv -f LATIN1 -t UTF-8",
                ) from error
        self.text = self.text[self.at :] + fresh
        self.at = 0

    def more(self) -> bool:
        """Read on, by as much again as is waiting; False at the end of the file."""
        if self.ended:
            return False
        waiting = len(self.text) - self.at
        if waiting > WITHOUT_A_ROW:
            raise no_row_in_sight(self.source, self.line)
        chunk = self._stream.read(max(_CHUNK, waiting))
        self.ended = not chunk
        self._take(chunk)
        return not self.ended

    def move(self, to: int) -> None:
        """Use the text up to an index."""
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def next_character(self) -> str:
        """The next character that is no space, not yet used; empty at the end of the file."""
        spaces = 0
        while True:
            found = _SPACE.match(self.text, self.at)
            spaces += (found.end() if found else self.at) - self.at
            if spaces > WITHOUT_A_ROW:
                raise no_row_in_sight(self.source, self.line)
            self.move(found.end() if found else self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self) -> tuple[Any, int, int, bool]:
        """The JSON value that starts here: itself, its line, its length, whether surrogates are escaped in it.

        Raises:
            RowProblem: A key that stands twice; the value is used up nonetheless.
            DataError: No JSON, or cut off.
        """
        while True:
            problem: RowProblem | None = None
            data: Any = None
            try:
                try:
                    data, end = _DECODER.raw_decode(self.text, self.at)
                except RowProblem as found:
                    # The hook stops at the inner object, so the end is found by a reader that does not mind.
                    problem = found
                    _, end = json.JSONDecoder().raw_decode(self.text, self.at)
            except RecursionError as error:
                raise DataError(f"{self.source} line {self.line}: objects are nested too deeply.") from error
            except ValueError as error:
                if self._may_go_on(error) and self.more():
                    continue
                raise self._broken(error) from error
            if end == len(self.text) and self.more():
                continue
            line, size = self.line, end - self.at
            escaped = "\\u" in self.text[self.at : end] and "\\ud" in self.text[self.at : end].casefold()
            self.move(end)
            if problem is not None:
                raise problem
            return data, line, size, escaped

    def _may_go_on(self, error: ValueError) -> bool:
        """Whether text that is no JSON may become JSON when more of the file is read: the fault is at its end."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos > len(self.text) - _LONGEST_TOKEN

    def _broken(self, error: ValueError) -> DataError:
        line, column = self.line, 0
        if isinstance(error, json.JSONDecodeError):
            line += self.text.count("\n", self.at, error.pos)
            column = error.colno
        at_end = isinstance(error, json.JSONDecodeError) and not self.text[error.pos :].strip()
        if at_end or "Unterminated string" in str(error):
            return cut_off(self.source, line)
        return DataError(
            f"{self.source} line {line} column {column}: not JSON: {getattr(error, 'msg', error)}."
        )


def cut_off(source: str, line: int) -> DataError:
    """The error of a file that stops in the middle."""
    return DataError(
        f"{source} line {line}: the file ends in the middle of a row.",
        hint="It was not completely written or copied: create it again, or delete the part after the last complete row.",
    )


def _row(text: _Text, number: int) -> RawRow:
    start = text.line
    try:
        data, start, size, escaped = text.value()
        if size > LARGEST_ROW:
            raise too_large(size)
        return RawRow(number, text.source, start, checked(data, suspicious=escaped), None)
    except RowProblem as problem:
        return RawRow(number, text.source, start, None, problem)


def _read_array(text: _Text) -> Iterator[RawRow]:
    text.next_character()
    yield from _elements(text)
    if text.next_character():
        raise DataError(f"{text.source} line {text.line}: there is more text after the end of the array.")


def _elements(text: _Text) -> Iterator[RawRow]:
    """The elements of the array whose bracket is the next character."""
    text.move(text.at + 1)
    if text.next_character() == "]":
        text.move(text.at + 1)
        return
    number = 0
    while True:
        number += 1
        if not text.next_character():
            raise cut_off(text.source, text.line)
        yield _row(text, number)
        follows = text.next_character()
        if follows not in {",", "]"}:
            if not follows:
                raise cut_off(text.source, text.line)
            raise DataError(
                f"{text.source} line {text.line}: not JSON: {follows!r} after row {number}, where ',' or ']' is expected."
            )
        text.move(text.at + 1)
        if follows == "]":
            return


def _read_objects(text: _Text, split: str) -> Iterator[RawRow]:
    """Objects one after the other; a single one may hold the rows as a list."""
    number = 0
    first: RawRow | None = None
    while text.next_character():
        number += 1
        row = _row(text, number)
        if number == 1:
            first = row
            continue
        if first is not None:
            yield first
            first = None
        yield row
    if first is not None:
        yield from _unwrapped(first, split)


def _unwrapped(row: RawRow, split: str) -> Iterator[RawRow]:
    """The rows of `{"train": [...]}` or `{"data": [...]}`; an object that is a row stays one."""
    data = row.data or {}
    for name in (split, "data", "rows", "examples"):
        rows = data.get(name)
        if isinstance(rows, list) and all(isinstance(item, dict) for item in rows):
            for number, item in enumerate(rows, start=1):
                yield RawRow(number, f"{row.source} ({name})", None, item, None)
            return
    yield row
