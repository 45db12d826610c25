"""A folder of data files: a download of a hub data set, or what somebody put together."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dpo_cli.data.sources.containers import FILES, Files
from dpo_cli.data.sources.splits import card_configs, choose_files, is_hidden
from dpo_cli.errors import DataError, first_line

if TYPE_CHECKING:
    from dpo_cli.config import DataConfig

_LARGEST_CARD = 4 * 2**20
"""Bytes of a README whose header is read."""


def folder_source(path: Path, data: DataConfig) -> Files:
    """The rows of one split of a folder.

    Args:
        path: The folder.
        data: Its name, and which configuration and split.

    Raises:
        DataError: No data files, or no such configuration or split.
    """
    name = str(data.dataset)
    relative = (
        PurePosixPath(item.relative_to(path).as_posix()) for item in path.rglob("*") if item.is_file()
    )
    files = [str(item) for item in relative if not is_hidden(item)]
    chosen = choose_files(
        f"the folder {name}",
        files,
        card_configs(_card(path / "README.md", name)),
        split=data.split,
        config=data.dataset_config,
        missing="{name} has no files for the split {split!r}; it has: {there}.",
        hint=f"Supported: {', '.join(FILES)}, each also with .gz added.",
    )
    paths = [path / file for file in chosen]
    return Files(name, paths, data.split, {item: str(item) for item in paths})


def _card(file: Path, name: str) -> Any:  # noqa: ANN401 - whatever YAML the card holds
    """The metadata in the head of a README; None without any."""
    if not file.is_file() or file.stat().st_size > _LARGEST_CARD:
        return None
    import yaml
    from huggingface_hub import metadata_load

    try:
        return metadata_load(file)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(
            f"the folder {name}: the YAML at the top of README.md cannot be read ({first_line(error)}).",
            hint="It says which files belong to which split: fix it, or remove the README.",
        ) from error
