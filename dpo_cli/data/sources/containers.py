"""Files and folders of rows: what there is, and how each kind is read.

What the file says is what is trained on: values keep their types, nothing is cached, and every row
knows its file and line. `FILES` is the table of file kinds.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from dpo_cli.data.sources.json_rows import read_json
from dpo_cli.data.sources.rows import refuse_bomb
from dpo_cli.data.sources.table_rows import read_arrow, read_csv, read_parquet
from dpo_cli.errors import DataError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dpo_cli.data.sources.rows import RawRow


FILES: Final[dict[str, Callable[[BinaryIO, str, str], Iterator[RawRow]]]] = {
    ".json": lambda stream, source, split: read_json(stream, source, by_line=False, split=split),
    ".jsonl": lambda stream, source, split: read_json(stream, source, by_line=True, split=split),
    ".ndjson": lambda stream, source, split: read_json(stream, source, by_line=True, split=split),
    ".csv": lambda stream, source, _split: read_csv(stream, source, suffix=".csv"),
    ".tsv": lambda stream, source, _split: read_csv(stream, source, suffix=".tsv"),
    ".parquet": lambda stream, source, _split: read_parquet(stream, source),
    ".arrow": lambda stream, source, _split: read_arrow(stream, source),
}
"""For each suffix, the reader: stream, name, split -> rows. Each may be gzipped (`.gz` after it)."""


_LFS: Final = b"version https://git-lfs.github.com/spec/"


class Source(Protocol):
    """Raw rows that can be read again from the start."""

    name: str

    def rows(self) -> Iterator[RawRow]:
        """All rows, in order."""
        ...

    def done(self) -> float:
        """The share of the data that the current reading has used, from 0 to 1; 0 when unknown."""
        ...


def suffix_of(path: Path) -> str:
    """The suffix that says how to read a file, without `.gz`."""
    name = path.name.casefold().removesuffix(".gz")
    return Path(name).suffix


@dataclass
class Files:
    """Rows of one or more files, one after the other.

    Attributes:
        name: What the user called it.
        paths: The files, in reading order.
        split: Which list to read in a JSON file that holds several.
        labels: How messages call each file; its own name where absent.
    """

    name: str
    paths: list[Path]
    split: str = "train"
    labels: dict[Path, str] | None = None

    def __post_init__(self) -> None:
        """Start with nothing read, and remember what the files are."""
        self._states = {path: _state(path) for path in self.paths}
        self._bytes = sum(size for size, _, _ in self._states.values())
        self._before = 0
        self._open: BinaryIO | None = None

    def done(self) -> float:
        """The share of all bytes that the current reading has passed."""
        if not self._bytes:
            return 0.0
        at = self._open.tell() if self._open is not None and not self._open.closed else 0
        return (self._before + at) / self._bytes

    def rows(self) -> Iterator[RawRow]:
        """All rows of all files.

        Raises:
            DataError: A file is missing, empty, of an unknown kind, or damaged as a whole.
        """
        self._before = 0
        for path in self.paths:
            yield from self._rows_of(path)
            self._before += path.stat().st_size

    def _rows_of(self, path: Path) -> Iterator[RawRow]:
        label = (self.labels or {}).get(path, path.name if len(self.paths) == 1 else str(path))
        reader = FILES.get(suffix_of(path))
        if reader is None:
            raise unknown_kind(path)
        some = False
        try:
            with path.open("rb") as raw:
                self._open = raw
                packed = self._unchanged(path, label)
                _refuse_pointer(raw, label)
                zipped = path.name.casefold().endswith(".gz")
                stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if zipped else raw
                for row in reader(stream, label, self.split):
                    some = True
                    if zipped:
                        refuse_bomb(label, stream.tell(), packed)
                    yield row
                self._unchanged(path, label)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{label}: the compressed file is truncated or damaged ({error}).",
                hint="Create or download it again.",
            ) from error
        except OSError as error:
            raise DataError(f"{label}: cannot be read ({error.strerror or first_line(error)}).") from error
        if not some:
            raise DataError(
                f"{label} has no rows.", hint="An earlier step probably failed and left an empty file."
            )

    def _unchanged(self, path: Path, label: str) -> int:
        """The size of a file, which must still be what it was.

        Raises:
            DataError: It was changed: rows were counted that are no longer there, or others are.
        """
        if _state(path) != self._states[path]:
            raise DataError(
                f"{label}: was changed while it was being read.",
                hint="Wait until it is completely written, then start again.",
            )
        return self._states[path][0]


def _state(path: Path) -> tuple[int, int, int]:
    """Size, time of change and identity of a file."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _refuse_pointer(raw: BinaryIO, label: str) -> None:
    if raw.read(len(_LFS)) == _LFS:
        raise DataError(
            f"{label}: is a Git LFS pointer, not the data itself.",
            hint="Run `git lfs pull` in its repository, or download the file again.",
        )
    raw.seek(0)


def unknown_kind(path: Path) -> DataError:
    """The error of a file whose suffix says nothing."""
    known = ", ".join(FILES)
    return DataError(
        f"{path}: is not a supported kind of file.",
        hint=f"Supported: {known}, each also with .gz added. Rename the file if it is one of these.",
    )
