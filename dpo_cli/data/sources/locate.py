"""From what the user calls a data set to rows: a path, a hub id, or a data set in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.config import user_path
from dpo_cli.data.sources.containers import Source, local_source
from dpo_cli.errors import DataError, first_line
from dpo_cli.models.locate import HUB_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset, IterableDataset


def locate(
    dataset: str | Path | Dataset | IterableDataset,
    *,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
) -> Source:
    """The rows of a data set.

    Args:
        dataset: A file, a folder, a hub id, or a `datasets.Dataset` or `IterableDataset`.
        split: Which split, where there are several.
        config: Which configuration of a hub data set.
        revision: Which branch, tag or commit of a hub data set.

    Raises:
        DataError: There is no such data set, or it cannot be reached.
    """
    if hasattr(dataset, "iter") and hasattr(dataset, "features"):
        from dpo_cli.data.sources.saved import Held

        return Held("the data set in memory", dataset)
    name = str(dataset)
    path = user_path(name, DataError)
    try:
        if path.exists():
            return local_source(path, name, split)
        if _looks_like_path(name):
            raise DataError(f"{name}: there is no such file or folder{_similar(path)}.")
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or first_line(error)}).") from error
    from dpo_cli.data.sources.hub import hub_source

    return hub_source(name, split=split, config=config, revision=revision)


def _looks_like_path(name: str) -> bool:
    from dpo_cli.data.sources.containers import FILES, suffix_of

    return not HUB_ID.fullmatch(name) or suffix_of(Path(name)) in FILES


def _similar(path: Path) -> str:
    """What else there is, when the folder is right and the file's name is not."""
    import difflib

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
    for count, row in enumerate(locate(dataset, split=split).rows()):
        if max_rows is not None and count >= max_rows:
            return
        if row.data is None:
            raise DataError(f"{row.place}: {row.problem}.")
        yield row.data
