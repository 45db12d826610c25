"""From what the user calls a data set to rows: a path, a hub id, or a data set in memory."""

from __future__ import annotations

import difflib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.config import DataConfig, user_path
from dpo_cli.data.sources.containers import FILES, Files, Source, suffix_of, unknown_kind
from dpo_cli.data.sources.folder import folder_source
from dpo_cli.data.sources.hub import hub_source
from dpo_cli.data.sources.saved import DatasetSource, saved_source
from dpo_cli.errors import DataError, first_line
from dpo_cli.hub import HUB_ID
from dpo_cli.redaction import find_secret

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
        return DatasetSource("the data set in memory", rows)
    name = data.dataset or ""
    if secret := find_secret(name):  # settings that were checked hold none; model_copy checks nothing
        raise DataError(f"the name of a data set {secret.sentence()}")
    path = user_path(name, DataError)
    try:
        if path.exists():
            return _local(path, data)
        if _looks_like_path(name):
            raise DataError(f"{name}: no such file or folder{_similar(path)}.")
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or first_line(error)}).") from error
    return hub_source(name, split=data.split, config=data.dataset_config, revision=data.dataset_revision)


def _local(path: Path, data: DataConfig) -> Source:
    """The rows of a file or of a folder."""
    what = "folder" if path.is_dir() else "file"
    if data.dataset_revision is not None:
        raise DataError(
            f"{data.dataset}: is a {what} and has no revisions.", hint="Remove --dataset-revision."
        )
    saved = path.is_dir() and ((path / "dataset_dict.json").is_file() or (path / "state.json").is_file())
    if path.is_dir() and not saved:
        return folder_source(path, data)
    if data.dataset_config is not None:
        raise DataError(
            f"{data.dataset}: is a {'saved data set' if saved else what} and has no configurations.",
            hint="Remove --dataset-config.",
        )
    if saved:
        return saved_source(path, str(data.dataset), data.split)
    if not path.is_file():
        raise DataError(f"{data.dataset}: is not a regular file.")
    if suffix_of(path) not in FILES:
        raise unknown_kind(path)
    return Files(str(data.dataset), [path], data.split, {path: str(data.dataset)})


def _looks_like_path(name: str) -> bool:
    return not HUB_ID.fullmatch(name) or suffix_of(Path(name)) in FILES


def _similar(path: Path) -> str:
    """What else there is, when the folder is right and the file's name is not."""
    if not path.parent.is_dir():
        return f" (the folder {path.parent} does not exist either)" if str(path.parent) != "." else ""
    close = difflib.get_close_matches(path.name, [item.name for item in path.parent.iterdir()], 1)
    return f" (did you mean {path.parent / close[0]}?)" if close else ""


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
