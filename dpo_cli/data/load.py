"""From what the user names to pairs: rows read, recognised, checked, counted.

`load_pairs` is the one path; `dpo check`, `dpo train` and `load_dpo_dataset` all take it.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack, cast

from dpo_cli.data.arrow import PairTable
from dpo_cli.data.assay import ASSAY, AssayAccounting, from_table
from dpo_cli.data.audit.inspection import Inspector
from dpo_cli.data.check import CheckResult, conclude
from dpo_cli.data.heldout import heldout_options
from dpo_cli.data.options import LayoutOptions, Options, open_reader
from dpo_cli.data.pairs import fingerprint
from dpo_cli.data.scan import Walk
from dpo_cli.data.split import PromptSplit, split_by_prompt
from dpo_cli.data.tokens.tokenizer import PairTokenizer, TruncationMode
from dpo_cli.errors import ConfigError
from dpo_cli.events import OnEvent, ignore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.accounting import Accounting
    from dpo_cli.data.reader import PairReader


@dataclass(frozen=True)
class LoadedPairs:
    """Pairs to train on, and where every row went.

    Attributes:
        train: Columns `prompt`, `chosen`, `rejected` (strings, or lists of `{"role", "content"}`), and `tools`
            (JSON text) where the data has some. Exactly the kept rows, in their order, less those held out.
        eval: Held-out pairs in the same layout; None when none were asked for.
        accounting: The rows of the data set.
        eval_accounting: The rows of `eval_dataset`; None unless one was given.
        format: The layout's name, a key of `FORMATS`.
        train_pairs: How many pairs `train` has (a stream does not know it).
        eval_pairs: How many pairs `eval` has; 0 when there is none.
        check: Findings about the data; None unless they were asked for.
        assays: For tables of assay values, where their rows went: the training table, then the held-out one.
    """

    train: Dataset | IterableDataset
    eval: Dataset | IterableDataset | None
    accounting: Accounting
    eval_accounting: Accounting | None
    format: str
    train_pairs: int
    eval_pairs: int
    check: CheckResult | None = None
    assays: tuple[AssayAccounting, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The content of `data.json`."""
        content = self.accounting.to_json() | {"train_pairs": self.train_pairs, "eval_pairs": self.eval_pairs}
        if self.eval_accounting is not None:
            content["eval"] = self.eval_accounting.to_json()
        if self.check is not None:
            content |= {
                "findings": [one.to_json() for one in self.check.findings],
                "lengths": self.check.lengths,
            }
        if self.assays:
            content["assay"] = [table.to_json() for table in self.assays]
        return content


def load_dpo_dataset(
    dataset_name: str, split: str = "train", max_samples: int | None = None, **options: Unpack[LayoutOptions]
) -> Dataset:
    """Load preference pairs in TRL's layout.

    Args:
        dataset_name: A file (`.json`, `.jsonl`, `.parquet`, `.csv`, `.arrow`, also gzipped), a folder of such
            files or written by `Dataset.save_to_disk`, or a hub id.
        split: Which split, where there are several.
        max_samples: Read at most this many rows.
        **options: As the fields of `DataConfig`: `format`, `prompt_column`, `dataset_revision`, ....

    Returns:
        A data set with the columns `prompt`, `chosen` and `rejected`: strings for standard pairs, lists of
        `{"role": str, "content": str}` for conversational ones; `tools` (JSON text) where the data has some.

    Raises:
        DataError: The data set is not there, has no known layout, or more than a tenth of its rows are no pairs
            (`allow_drops=True` takes the rest nonetheless).
        ConfigError: There is no such format.
    """
    return load_pairs(dataset_name, **Options(split=split, max_samples=max_samples, **options)).train


def load_pairs(
    dataset: str | Dataset,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    truncation_mode: TruncationMode = "keep_start",
    inspect: bool = False,
    on_event: OnEvent = ignore,
    **options: Unpack[Options],
) -> LoadedPairs:
    """Load preference pairs and account for every row.

    Args:
        dataset: A file, a folder, a hub id, or a data set in memory.
        tokenizer: The policy's, to drop also what its chat template and `max_length` make useless.
        max_length: Longest prompt plus completion in tokens; None cuts nothing.
        truncation_mode: Which end of a longer pair is kept.
        inspect: Say also what `dpo check` says, in `LoadedPairs.check`.
        on_event: Called with `Progress`.
        **options: As the fields of `DataConfig`.

    Returns:
        The pairs, and the accounting.

    Raises:
        DataError: As `load_dpo_dataset`; also with `strict=True` when any row is dropped.
        ConfigError: There is no such format, or `eval_dataset` is given with `eval_fraction`.
        ModelError: The pairs are conversations and the tokenizer has no chat template.
    """
    if options.get("eval_dataset") and options.get("eval_fraction"):
        raise ConfigError(
            "--eval-dataset and --eval-fraction are both given: held-out pairs come from one of them."
        )
    if options.get("format") == ASSAY:
        table = from_table(dataset, options)
        loaded = load_pairs(
            table.pairs,
            tokenizer=tokenizer,
            max_length=max_length,
            truncation_mode=truncation_mode,
            inspect=inspect,
            on_event=on_event,
            **table.options,
        )
        loaded.accounting.source = table.accountings[0].rows.source
        return replace(loaded, format=ASSAY, assays=table.accountings)
    tokens = None
    if tokenizer is not None:
        tokens = PairTokenizer(tokenizer, max_length=max_length, truncation_mode=truncation_mode)
    fraction = options.get("eval_fraction", 0.0)
    evaluation = None
    if held := options.get("eval_dataset"):
        part = cast("Options", heldout_options(dataset, options))
        evaluation = _read(held, part, tokens, on_event, stage="reading held-out pairs", hash_prompts=inspect)
    inspector = (
        Inspector(tokens, frozenset(evaluation.prompts) if evaluation else frozenset()) if inspect else None
    )
    train = _read(dataset, options, tokens, on_event, hash_prompts=bool(fraction), inspector=inspector)
    split = split_by_prompt(train.prompts, fraction) if fraction else None
    eval_set, eval_pairs = None, 0
    if evaluation is not None:
        eval_set, eval_pairs = evaluation.dataset()
    elif split is not None:
        eval_set, eval_pairs = train.dataset(split, held_out=True)
    train_set, train_pairs = train.dataset(split)
    return LoadedPairs(
        train=train_set,
        eval=eval_set,
        accounting=train.walk.accounting,
        eval_accounting=evaluation.walk.accounting if evaluation else None,
        format=train.walk.format.name,
        train_pairs=train_pairs,
        eval_pairs=eval_pairs,
        check=conclude(inspector, train.walk, evaluation.walk if evaluation else None, None, options)
        if inspector
        else None,
    )


@dataclass(frozen=True)
class _Pairs:
    """A data set that was read once.

    Attributes:
        reader: To read it again, for a stream.
        walk: Has read it.
        held: Its kept pairs; None when they are streamed.
        prompts: Fingerprints of the kept pairs' prompts, where a split needs them.
    """

    reader: PairReader
    walk: Walk
    held: Dataset | None
    prompts: array[int]

    def dataset(
        self, split: PromptSplit | None = None, *, held_out: bool = False
    ) -> tuple[Dataset | IterableDataset, int]:
        """The pairs of one side of a split, and how many they are."""
        sides = [split.side(prompt) for prompt in self.prompts] if split is not None else None
        count = self.walk.accounting.kept if sides is None else sum(side is held_out for side in sides)
        if self.held is None:
            return _stream(self.reader, self.walk.accounting, split, held_out=held_out), count
        if sides is None:
            return self.held, count
        return self.held.select([row for row, side in enumerate(sides) if side is held_out]), count


def _read(
    dataset: str | Dataset,
    options: Options,
    tokenizer: PairTokenizer | None,
    on_event: OnEvent,
    *,
    stage: str = "reading pairs",
    hash_prompts: bool,
    inspector: Inspector | None = None,
) -> _Pairs:
    reader = open_reader(dataset, options)
    walk = Walk(reader, tokenizer, on_event=on_event, stage=stage)
    streaming = options.get("streaming", False)
    table = PairTable()
    prompts = array("Q")
    for kept in walk:
        if not streaming:
            table.add(kept.pair)
        if hash_prompts:
            prompts.append(fingerprint(kept.pair.prompt))
        if inspector is not None:
            inspector.see(kept)
    strict, allow_drops = options.get("strict", False), options.get("allow_drops", False)
    if error := walk.accounting.verdict(strict=strict, allow_drops=allow_drops):
        raise error
    return _Pairs(reader, walk, None if streaming else table.dataset(), prompts)


def _stream(
    reader: PairReader, accounting: Accounting, split: PromptSplit | None, *, held_out: bool
) -> IterableDataset:
    """The kept pairs, read again from the source each time they are iterated."""
    from datasets import IterableDataset

    dropped = frozenset(number for numbers in accounting.rows.values() for number in numbers)

    def rows() -> Iterator[dict[str, Any]]:
        for row in reader:
            if row.pair is None or row.number in dropped:
                continue
            if split is None or split.held_out(row.pair.prompt) is held_out:
                yield row.pair.to_row()

    return IterableDataset.from_generator(rows)
