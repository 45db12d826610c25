"""How a data set is read: the settings, and a reader made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, cast

from dpo_cli.config import DataConfig
from dpo_cli.data.assay import ASSAY, from_table
from dpo_cli.data.reader import Columns, PairReader
from dpo_cli.data.sources.locate import locate

if TYPE_CHECKING:
    from datasets import Dataset


class LayoutOptions(TypedDict, total=False):
    """How a data set is read: fields of `DataConfig`, with its meanings and defaults."""

    dataset_config: str | None
    dataset_revision: str | None
    format: str | None
    prompt_column: str | None
    chosen_column: str | None
    rejected_column: str | None
    system_column: str | None
    eval_dataset: str | None
    eval_split: str
    eval_fraction: float
    streaming: bool
    strict: bool
    allow_drops: bool
    assay_margin: float
    assay_partners: int


class Options(LayoutOptions, total=False):
    """All fields of `DataConfig` but `dataset`."""

    split: str
    max_samples: int | None


def options_of(config: DataConfig) -> Options:
    """How the settings of a command say that its data sets are read."""
    return cast(
        "Options", {name: getattr(config, name) for name in DataConfig.model_fields if name != "dataset"}
    )


def open_reader(dataset: str | Dataset, options: Options) -> PairReader:
    """The rows of a data set as pairs.

    Args:
        dataset: A file, a folder, a hub id, or a data set in memory.
        options: How to read it.

    Raises:
        DataError: There is no such data set, or no known layout.
        ConfigError: There is no such format.
    """
    if options.get("format") == ASSAY:
        table = from_table(dataset, {**options, "eval_dataset": None, "eval_fraction": 0.0})
        dataset, options = table.pairs, cast("Options", table.options)
    source = locate(
        dataset,
        split=options.get("split", "train"),
        config=options.get("dataset_config"),
        revision=options.get("dataset_revision"),
    )
    columns = Columns(
        prompt=options.get("prompt_column"),
        chosen=options.get("chosen_column"),
        rejected=options.get("rejected_column"),
        system=options.get("system_column"),
    )
    return PairReader(
        source, layout=options.get("format"), columns=columns, max_samples=options.get("max_samples")
    )
