"""Data sets on the hub: which files belong to a configuration and split, fetched and read as local files.

One question to the hub gives the commit, the list of files and the card's `configs`; the files of that commit are
fetched by `huggingface_hub`, whose cache is by commit and never stale. `HF_ENDPOINT` is honoured. The files
are read by our own readers, so that a value on the hub is the same value as in a file at hand.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.sources.containers import FILES, SPLITS, Files, Source, split_of, suffix_of
from dpo_cli.errors import DataError
from dpo_cli.hub import HubRepository

if TYPE_CHECKING:
    from collections.abc import Iterable

    from huggingface_hub import DatasetInfo


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
    chosen = choose_files(name, files, _configs(info), split=split, config=config)
    unknown = [file for file in chosen if suffix_of(Path(file)) not in FILES]
    if unknown:
        return _through_datasets(name, str(info.sha), split=split, config=config)
    paths = [commit.fetch(file) for file in chosen]
    return Files(
        name, paths, split, {path: f"{name}/{file}" for path, file in zip(paths, chosen, strict=True)}
    )


def choose_files(
    name: str, files: list[str], configs: list[dict[str, Any]], *, split: str, config: str | None
) -> list[str]:
    """The files of one split, as the data set's card says, or else as the files' names do.

    Args:
        name: The data set, for messages.
        files: All files of the repository.
        configs: The card's `configs`, may be empty.
        split: Which split.
        config: Which configuration.

    Raises:
        DataError: No such configuration or split.
    """
    card = _one_config(name, configs, config)
    by_split: dict[str, list[str]] = {}
    if card is not None and card.get("data_files"):
        root = str(card.get("data_dir") or "")
        for part, pattern in _patterns(card["data_files"]):
            found = [file for file in sorted(files) if _matches(file, str(PurePosixPath(root, pattern)))]
            by_split.setdefault(part, []).extend(found)
    else:
        root = str((card or {}).get("data_dir") or "")
        data = [file for file in sorted(files) if _is_data(file) and PurePosixPath(file).is_relative_to(root)]
        named = {file: split_of(PurePosixPath(file)) for file in data}
        some = any(named.values())
        for file, part in named.items():
            if part or not some:
                by_split.setdefault(part or "train", []).append(file)
    wanted = (
        split
        if split in by_split
        else next((known for known, names in SPLITS.items() if split in names), split)
    )
    if not by_split.get(wanted):
        if not by_split:
            raise DataError(
                f"{name}: the hub data set has no data files.", hint=HubRepository(name, "dataset").local_way
            )
        raise DataError(f"{name}: there is no split {split!r}; there are: {', '.join(sorted(by_split))}.")
    return by_split[wanted]


def _one_config(name: str, configs: list[dict[str, Any]], wanted: str | None) -> dict[str, Any] | None:
    names = [str(one.get("config_name", "default")) for one in configs]
    if wanted is not None:
        if wanted in names:
            return configs[names.index(wanted)]
        if wanted == "default" and not configs:
            return None
        there = f"; there are: {', '.join(names)}" if names else ""
        raise DataError(f"{name}: there is no configuration {wanted!r}{there}.")
    if len(configs) <= 1:
        return configs[0] if configs else None
    default = next((one for one in configs if one.get("default")), None)
    if default is None and "default" in names:
        default = configs[names.index("default")]
    if default is None:
        raise DataError(
            f"{name}: has several configurations: {', '.join(names)}.", hint="Name one with --dataset-config."
        )
    return default


def _patterns(data_files: Any) -> Iterable[tuple[str, str]]:  # noqa: ANN401 - whatever the card's YAML holds
    """Split and pattern, of the three ways in which a card may write them."""
    if isinstance(data_files, str):
        yield "train", data_files
        return
    for item in data_files:
        if isinstance(item, str):
            yield "train", item
            continue
        paths = item.get("path", [])
        for path in [paths] if isinstance(paths, str) else paths:
            yield str(item.get("split", "train")), path


def _matches(file: str, pattern: str) -> bool:
    """Whether a path fits a glob, in which `*` stops at a slash and `**` does not."""
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.fullmatch("".join(wild.get(piece, re.escape(piece)) for piece in pieces), file) is not None


def _is_data(file: str) -> bool:
    path = PurePosixPath(file)
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return suffix_of(Path(file)) in FILES and not hidden and path.name not in _NO_DATA


_NO_DATA: Final = frozenset(
    {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json"}
)


def _configs(info: DatasetInfo) -> list[dict[str, Any]]:
    card = info.card_data
    configs = card.get("configs") if card is not None else None
    return [one for one in configs or [] if isinstance(one, dict)]


def _through_datasets(name: str, revision: str, *, split: str, config: str | None) -> Source:
    """Kinds of files that we do not read ourselves (`.zip`, `.zst`, ...) are left to `datasets`."""
    from datasets import load_dataset

    from dpo_cli.data.sources.saved import Held

    try:
        return Held(name, load_dataset(name, config, split=split, revision=revision))
    except (OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{name}: cannot be read by `datasets`: {error}") from error
