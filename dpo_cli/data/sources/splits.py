"""Which files belong to a configuration and a split, as the card says or the files' names do.

The rules are those of `datasets`, for folders and for the hub alike: the card's `configs`, else shards
(`data/train_prefs-00000-of-00002.parquet` is of the split `train_prefs`), else names of splits in folders, else in
file names, else all is `train`; and of several kinds of files the commonest is read. A test holds them against
`datasets` itself.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.sources.containers import FILES, suffix_of
from dpo_cli.errors import DataError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SPLIT_NAME: Final = re.compile(r"\w+(\.\w+)*")
_SHARD: Final = re.compile(r"data/(?P<split>[^/]+)-[0-9]{5}-of-[0-9]{5}[^/]*\.[^/]*")
_NOT_DATA: Final = frozenset(
    {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json"}
)
_KINDS: Final = {
    kind: group
    for group in ((".parquet",), (".arrow",), (".jsonl", ".json", ".ndjson"), (".csv", ".tsv"))
    for kind in group
}
"""The suffixes that are read together with each suffix; the first group wins a draw."""


def choose_files(
    name: str,
    files: Sequence[str],
    configs: Sequence[Mapping[str, Any]],
    *,
    split: str,
    config: str | None,
    missing: str = "{name}: has no split {split!r}; it has: {there}.",
    hint: str = "",
) -> list[str]:
    """The files of one split.

    Args:
        name: What messages call the data set.
        files: All of its files, relative to its root, with `/`.
        configs: The card's `configs`, may be empty.
        split: Which split.
        config: Which configuration.
        missing: The message when there is no such split.
        hint: What to do where there are no data files.

    Raises:
        DataError: No such configuration or split, or a card that cannot be followed.
    """
    card = _one_config(name, configs, config) or {}
    root = PurePosixPath(str(card.get("data_dir") or ""))
    below = {
        str(PurePosixPath(file).relative_to(root)): file for file in sorted(files) if _is_below(file, root)
    }
    if card.get("data_files"):
        by_split = _of_card(name, card["data_files"], list(below))
    else:
        by_split = _of_names([file for file in below if _is_data(file)])
    by_split = _one_kind({part: found for part, found in by_split.items() if found})
    if not by_split:
        raise DataError(f"{name} has no data files.", hint=hint)
    wanted = split if split in by_split else _usual_name(split)
    if wanted not in by_split:
        raise DataError(missing.format(name=name, split=split, there=", ".join(sorted(by_split))))
    return [below[file] for file in by_split[wanted]]


def card_configs(card: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - whatever YAML the card holds
    """The `configs` of a card's metadata; empty without any."""
    configs = card.get("configs") if hasattr(card, "get") else None
    return [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []


def is_hidden(path: PurePosixPath) -> bool:
    """Whether a path is none that anybody means when naming its folder."""
    return any(part.startswith((".", "__")) for part in path.parts)


def _one_config(
    name: str, configs: Sequence[Mapping[str, Any]], wanted: str | None
) -> Mapping[str, Any] | None:
    names = [str(one.get("config_name", "default")) for one in configs]
    if wanted is not None:
        if wanted in names:
            return configs[names.index(wanted)]
        if wanted == "default" and not configs:
            return None
        there = f"; it has: {', '.join(names)}" if names else ""
        raise DataError(f"{name}: has no configuration {quoted(wanted)}{there}.")
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


def _of_card(name: str, data_files: Any, files: list[str]) -> dict[str, list[str]]:  # noqa: ANN401 - YAML
    by_split: dict[str, list[str]] = {}
    for split, pattern in _patterns(name, data_files):
        by_split.setdefault(split, []).extend(file for file in files if matches(file, pattern))
    return by_split


def _patterns(name: str, data_files: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - YAML
    """Split and pattern, of the ways in which a card may write them."""
    if isinstance(data_files, dict):
        data_files = [{"split": split, "path": paths} for split, paths in data_files.items()]
    for item in data_files if isinstance(data_files, list) else [data_files]:
        split, paths = (
            (item.get("split", "train"), item.get("path")) if isinstance(item, dict) else ("train", item)
        )
        for path in paths if isinstance(paths, list) else [paths]:
            if not isinstance(path, str):
                raise DataError(f"{name}: its card's data_files contain {quoted(path)}, which is not a path.")
            yield str(split), path


def _of_names(files: list[str]) -> dict[str, list[str]]:
    shards: dict[str, list[str]] = {}
    for file in files:
        shard = _SHARD.fullmatch(file)
        if shard is not None and _SPLIT_NAME.fullmatch(shard["split"]):
            shards.setdefault(shard["split"], []).append(file)
    if shards:
        return shards
    from datasets.data_files import ALL_DEFAULT_PATTERNS

    for patterns in ALL_DEFAULT_PATTERNS:
        found = {
            str(split): [file for file in files if any(matches(file, pattern) for pattern in of_split)]
            for split, of_split in patterns.items()
        }
        if any(found.values()):
            return found
    return {}


def matches(file: str, pattern: str) -> bool:
    """Whether a path fits a glob, in which `*` stops at a slash and `**` does not."""
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern.removeprefix("./"))
    regex = "".join(piece if piece[:1] == "[" else wild.get(piece, re.escape(piece)) for piece in pieces)
    try:
        return re.fullmatch(regex, file) is not None
    except re.error:
        return file == pattern


def _one_kind(by_split: dict[str, list[str]]) -> dict[str, list[str]]:
    """Only the commonest kind of files: the same rows are often there as Parquet and as JSON."""
    kinds = Counter(
        _KINDS[kind] for files in by_split.values() for file in files if (kind := _kind(file)) in _KINDS
    )
    if not kinds:
        return by_split
    order = list(dict.fromkeys(_KINDS.values()))
    most = max(kinds, key=lambda kind: (kinds[kind], -order.index(kind)))
    found = {split: [file for file in files if _kind(file) in most] for split, files in by_split.items()}
    return {split: files for split, files in found.items() if files}


def _kind(file: str) -> str:
    return suffix_of(Path(file))


def _usual_name(split: str) -> str:
    """The name that `datasets` gives a split which the user called otherwise: `dev` is `validation`."""
    from datasets.data_files import SPLIT_KEYWORDS

    return next((str(known) for known, names in SPLIT_KEYWORDS.items() if split in names), split)


def _is_below(file: str, root: PurePosixPath) -> bool:
    return PurePosixPath(file).is_relative_to(root)


def _is_data(file: str) -> bool:
    path = PurePosixPath(file)
    return _kind(file) in FILES and not is_hidden(path) and path.name not in _NOT_DATA
