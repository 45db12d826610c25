"""Data sets on the hub: which files belong to a configuration and split, fetched and read as local files.

One question to the hub gives the commit, the list of files and the card's `configs`; the files of that commit are
fetched by `huggingface_hub`, whose cache is by commit and never stale. `HF_ENDPOINT` is honoured. The files
are read by our own readers, so that a value on the hub is the same value as in a file at hand.
"""

from __future__ import annotations

from pathlib import Path

from dpo_cli.data.sources.containers import FILES, Files, Source, suffix_of
from dpo_cli.data.sources.saved import DatasetSource
from dpo_cli.data.sources.splits import card_configs, choose_files
from dpo_cli.errors import DataError
from dpo_cli.hub import HubRepository


def hub_source(name: str, *, split: str, config: str | None, revision: str | None) -> Source:
    """The rows of a hub data set.

    Args:
        name: `owner/name`.
        split: Which split.
        config: Which configuration; needed when there are several and none is the default.
        revision: Branch, tag or commit; None for the main branch.

    Raises:
        DataError: No network, no such data set, revision, configuration or split, or nothing that can be read.
    """
    info = HubRepository(name, "dataset", revision).dataset_info()
    commit = HubRepository(name, "dataset", str(info.sha))
    files = [file.rfilename for file in info.siblings or []] or commit.files()
    chosen = choose_files(
        name, files, card_configs(info.card_data), split=split, config=config, hint=commit.local_way
    )
    unknown = [file for file in chosen if suffix_of(Path(file)) not in FILES]
    if unknown:
        return _through_datasets(name, str(info.sha), split=split, config=config)
    paths = [commit.fetch(file) for file in chosen]
    return Files(
        name, paths, split, {path: f"{name}/{file}" for path, file in zip(paths, chosen, strict=True)}
    )


def _through_datasets(name: str, revision: str, *, split: str, config: str | None) -> Source:
    """Kinds of files that we do not read ourselves (`.zip`, `.zst`, ...) are left to `datasets`."""
    from datasets import load_dataset

    try:
        return DatasetSource(name, load_dataset(name, config, split=split, revision=revision))
    except (OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{name}: cannot be read by `datasets`: {error}") from error
