"""Data sets that `datasets` itself wrote or holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.sources.rows import RawRow
from dpo_cli.data.sources.table_rows import without_nulls
from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BATCH: Final = 1024


@dataclass
class Held:
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
        for batch in self.dataset.iter(batch_size=_BATCH):
            names = list(batch)
            for values in zip(*(batch[name] for name in names), strict=True):
                self._read += 1
                data = without_nulls(dict(zip(names, values, strict=True)))
                yield RawRow(self._read, self.label or self.name, None, data, None)


def saved_source(path: Path, name: str, split: str) -> Held:
    """A folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    Raises:
        DataError: The folder is damaged, or has no such split.
    """
    from datasets import DatasetDict, load_from_disk

    try:
        held = load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"the folder {name} cannot be read as a saved data set: {error}") from error
    if isinstance(held, DatasetDict):
        if split not in held:
            raise DataError(f"the folder {name} has no split {split!r}; it has: {', '.join(held)}.")
        held = held[split]
    return Held(name, held)
