"""From what the user calls a data set to rows: a path, a hub id, or a data set in memory."""

from __future__ import annotations

import difflib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.config import DataConfig, user_path
from dpo_cli.data.sources.containers import FILES, Source, local_source, suffix_of
from dpo_cli.data.sources.hub import hub_source
from dpo_cli.data.sources.saved import Held
from dpo_cli.errors import DataError, first_line
from dpo_cli.hub import HUB_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset, IterableDataset


def locate(data: DataConfig, rows: Dataset | IterableDataset | None = None) -> Source:
    """The rows of a data set.

    Args:
        data: `dataset` (a file, a folder or a hub id), and its split, configuration and revision.
        rows: A data set in memory, instead of `data.dataset`.

    Raises:
        DataError: There is no such data set, or it cannot be reached.
    """
    if rows is not None:
        return Held("the data set in memory", rows)
    name = data.dataset or ""
    path = user_path(name, DataError)
    try:
        if path.exists():
            return local_source(path, name, data.split)
        if _looks_like_path(name):
            raise DataError(f"{name}: there is no such file or folder{_similar(path)}.")
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or first_line(error)}).") from error
    return hub_source(name, split=data.split, config=data.dataset_config, revision=data.dataset_revision)


def _looks_like_path(name: str) -> bool:
    return not HUB_ID.fullmatch(name) or suffix_of(Path(name)) in FILES


def _similar(path: Path) -> str:
    """What else there is, when the folder is right and the file's name is not."""
    if not path.parent.is_dir():
        return f" (the folder {path.parent} does not exist either)" if str(path.parent) != "." else ""
    close = difflib.get_close_matches(path.name, [item.name for item in path.parent.iterdir()], 1)
    return f"; there is {path.parent / close[0]}" if close else ""


def read_rows(dataset: str, *, split: str = "train", max_rows: int | None = None) -> Iterator[dict[str, Any]]:
    """Raw rows of any data set, whatever their columns.

    Args:
        dataset: As for `locate`.
        split: Which split.
        max_rows: Stop after this many.

    Yields:
        Each row as the file has it.

    Raises:
        DataError: The data set or a row cannot be read.
    """
    data = DataConfig(dataset=dataset, split=split)
    for row in itertools.islice(locate(data).rows(), max_rows):
        if row.data is None:
            raise DataError(f"{row.place}: {row.problem}.")
        yield row.data
