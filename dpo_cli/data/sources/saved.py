"""Data sets that `datasets` itself wrote or holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.sources.rows import LARGEST_ROW, RawRow, too_large, weight
from dpo_cli.data.sources.table_rows import without_nulls
from dpo_cli.errors import DataError, first_line, listed, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BATCH: Final = 1024


@dataclass
class DatasetSource:
    """Rows of a `datasets.Dataset` or `IterableDataset`.

    Attributes:
        name: What the user called it.
        dataset: The data set itself.
        label: What messages about a row call it; `name` unless given.
    """

    name: str
    dataset: Any
    label: str = ""

    def __post_init__(self) -> None:
        """Start with nothing read."""
        self._read = 0

    def done(self) -> float:
        """The share of rows read; 0 when the number of rows is unknown."""
        total = getattr(self.dataset, "num_rows", 0)
        return self._read / total if total else 0.0

    def rows(self) -> Iterator[RawRow]:
        """All rows, in order."""
        self._read = 0
        label = self.label or self.name
        try:
            for batch in self.dataset.iter(batch_size=_BATCH):
                names = list(batch)
                for values in zip(*(batch[name] for name in names), strict=True):
                    self._read += 1
                    data = without_nulls(dict(zip(names, values, strict=True)))
                    size = weight(data)
                    problem = too_large(size) if size > LARGEST_ROW else None
                    yield RawRow(self._read, label, None, None if problem else data, problem)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{label}: between row {self._read + 1:,} and {self._read + _BATCH:,} a text contains the byte"
                f" 0x{error.object[error.start]:02x}, which is not UTF-8.",
                hint="Write the data set again, with the text decoded.",
            ) from error


def saved_source(path: Path, name: str, split: str) -> DatasetSource:
    """A folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    Raises:
        DataError: The folder is damaged, or has no such split.
    """
    from datasets import load_from_disk

    if (path / "dataset_dict.json").is_file():
        splits = _names(path / "dataset_dict.json", name, lambda document: document["splits"])
        if split not in splits:
            raise DataError(f"the folder {name} has no split {split!r}; it has: {listed(splits)}.")
        path /= split
    _names(path / "state.json", name, lambda document: [file["filename"] for file in document["_data_files"]])
    try:
        return DatasetSource(name, load_from_disk(str(path)))
    except Exception as error:  # whatever `datasets` stumbles over in a folder that was changed
        raise DataError(
            f"the folder {name} cannot be read as a saved data set: {first_line(error)}.", hint=_AGAIN
        ) from error


def _names(file: Path, name: str, names_in: Callable[[Any], Any]) -> list[str]:
    """The names of what lies beside a JSON file, each that of a file or folder which is really there."""
    try:
        if file.stat().st_size > LARGEST_ROW:
            raise ValueError("it is too large")  # noqa: TRY301 - said like all else that is wrong with it
        names = names_in(json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"the folder {name} cannot be read as a saved data set: {file.name}: {first_line(error)}.",
            hint=_AGAIN,
        ) from error
    wrong = (
        next((each for each in names if not _is_beside(file, each)), None)
        if isinstance(names, list)
        else names
    )
    if wrong is not None:
        raise DataError(
            f"the folder {name} cannot be read as a saved data set: {file.name} names {quoted(wrong)},"
            " which does not exist.",
            hint=_AGAIN,
        )
    return list(names)


def _is_beside(file: Path, name: object) -> bool:
    if not isinstance(name, str) or PurePath(name).name != name:
        return False
    found = file.parent / name
    return found.is_file() or found.is_dir()


_AGAIN: Final = "Save it again with save_to_disk."
