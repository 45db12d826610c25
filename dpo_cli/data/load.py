"""From what the user names to pairs: rows read, recognised, checked, counted.

`open_pairs` finds the data and its layout, before anything else of a run is loaded; what it opened is then read once,
to be trained on (`OpenPairs.load`) or to be looked at (`OpenPairs.check`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.config import DataConfig, Truncation, settings_from
from dpo_cli.data.assay import ASSAY, AssayAccounting, read_assay
from dpo_cli.data.audit.inspection import Inspector
from dpo_cli.data.check import DataReport, build_report
from dpo_cli.data.kept import ReadPairs, read_pairs
from dpo_cli.data.reader import Columns, PairReader
from dpo_cli.data.sources.locate import locate
from dpo_cli.data.sources.saved import DatasetSource
from dpo_cli.data.split import split_by_prompt
from dpo_cli.data.tokens.tokenizer import PairTokenizer, missing_template
from dpo_cli.errors import ConfigError
from dpo_cli.events import OnEvent, ignore

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.accounting import Accounting
    from dpo_cli.errors import DpoError

_UNCUT: Final = Truncation()


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
    check: DataReport | None = None
    assays: tuple[AssayAccounting, ...] = ()

    def summary(self) -> list[str]:
        """Where every row went, one line for each table of assay values and one for the pairs."""
        if not self.assays:
            return [self.accounting.summary()]
        made = f"{self.accounting.read} pairs made: {self.accounting.kept} kept, {self.accounting.dropped_words()}"
        return [*(table.summary() for table in self.assays), made]

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
    dataset_name: str,
    split: str = "train",
    max_samples: int | None = None,
    **options: Any,  # noqa: ANN401 - each field of DataConfig has its type
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
        ConfigError: There is no such format, or an option is wrong.
    """
    named = {"dataset": str(dataset_name), "split": split, "max_samples": max_samples}
    return load_pairs(settings_from(DataConfig, named | options)).train


def load_pairs(
    data: DataConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
    truncation: Truncation = _UNCUT,
    *,
    rows: Dataset | IterableDataset | None = None,
    inspect: bool = False,
    keep_ids: bool = False,
    on_event: OnEvent = ignore,
) -> LoadedPairs:
    """Load preference pairs and account for every row: `open_pairs(...).load(...)`."""
    opened = open_pairs(data, rows=rows)
    return opened.load(tokenizer, truncation, inspect=inspect, keep_ids=keep_ids, on_event=on_event)


def check_pairs(
    data: DataConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
    truncation: Truncation = _UNCUT,
    *,
    on_event: OnEvent = ignore,
) -> DataReport:
    """Read a data set as training would, and say what is wrong with it: `open_pairs(...).check(...)`."""
    return open_pairs(data).check(tokenizer, truncation, on_event=on_event)


def open_pairs(data: DataConfig, *, rows: Dataset | IterableDataset | None = None) -> OpenPairs:
    """Find a data set and its layout; a table of assay values is read whole and paired.

    Args:
        data: Which data set, and how it is read.
        rows: A data set in memory, instead of `data.dataset`.

    Raises:
        DataError: There is no such data set, no known layout, or no pair in a table of assay values.
        ConfigError: There is no such format, or `eval_dataset` is given with `eval_fraction`.
    """
    if data.eval_dataset and data.eval_fraction:
        raise ConfigError(
            "--eval-dataset and --eval-fraction are both given: held-out pairs come from one of them."
        )
    heldout = data.heldout if data.eval_dataset else None
    if data.format == ASSAY:
        return _open_tables(data, heldout, rows)
    reader = _open(data, rows)
    return OpenPairs(data, reader, _open(heldout) if heldout else None, data.eval_fraction)


def _open(data: DataConfig, rows: Dataset | IterableDataset | None = None) -> PairReader:
    return PairReader(
        locate(data, rows),
        layout=data.format,
        columns=Columns(data.prompt_column, data.chosen_column, data.rejected_column, data.system_column),
        max_samples=data.max_samples,
    )


def _open_tables(
    data: DataConfig, heldout: DataConfig | None, rows: Dataset | IterableDataset | None
) -> OpenPairs:
    """The pairs of a table, and those held out: of a table of their own, or of sequences of the same one."""
    made = read_assay(data, locate(data, rows))
    tables = [made.accounting]
    held = made.eval
    if heldout is not None:
        other = read_assay(heldout, locate(heldout))
        tables.append(other.accounting)
        held = other.train
    readers = [
        PairReader(
            DatasetSource(table.rows.source, pairs, f"the pairs of {table.rows.source}"),
            layout="trl-standard",
        )
        for table, pairs in ((tables[0], made.train), (tables[-1], held))
        if pairs is not None
    ]
    return OpenPairs(data, readers[0], readers[1] if held is not None else None, 0.0, tuple(tables))


@dataclass(frozen=True)
class OpenPairs:
    """A data set that was found and whose layout is known, to be read once.

    Attributes:
        data: Which data set, and how it is read.
        train: Its rows as pairs.
        heldout: The rows of held-out pairs that are read apart; None without any.
        fraction: Share of the pairs in `train` to hold out.
        assays: Where the rows of tables of assay values went.
    """

    data: DataConfig
    train: PairReader
    heldout: PairReader | None
    fraction: float
    assays: tuple[AssayAccounting, ...] = ()

    def load(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        truncation: Truncation = _UNCUT,
        *,
        inspect: bool = False,
        keep_ids: bool = False,
        on_event: OnEvent = ignore,
    ) -> LoadedPairs:
        """Read the pairs to train on, and account for every row.

        Args:
            tokenizer: The policy's, to drop also what its chat template and truncation make useless.
            truncation: How a pair that is too long is cut.
            inspect: Say also what `dpo check` says, in `LoadedPairs.check`.
            keep_ids: Give the pairs their token ids, in TRL's columns, unless they are streamed.
            on_event: Called with `Progress`.

        Raises:
            DataError: More than a tenth of the rows would be dropped, a file is damaged, or no pair is left; with
                `strict` when any row is dropped.
            ModelError: The pairs are conversations and the tokenizer has no chat template.
        """
        self._refuse(*(table.rows for table in self.assays))
        tokens = PairTokenizer(tokenizer, truncation) if tokenizer is not None else None
        keep = not self.data.streaming
        heldout = self._read_heldout(tokens, on_event, keep=keep, keep_ids=keep_ids, hash_prompts=inspect)
        if heldout is not None:
            self._refuse(heldout.scan.accounting)
        inspector = Inspector(tokens, _prompts_of(heldout)) if inspect else None
        train = read_pairs(
            self.train,
            tokens,
            on_event,
            keep=keep,
            keep_ids=keep_ids,
            hash_prompts=bool(self.fraction),
            inspector=inspector,
        )
        self._refuse(train.scan.accounting)
        split = split_by_prompt(train.prompts, self.fraction) if self.fraction else None
        eval_set, eval_pairs = None, 0
        if heldout is not None:
            eval_set, eval_pairs = heldout.dataset()
        elif split is not None:
            eval_set, eval_pairs = train.dataset(split, held_out=True)
        train_set, train_pairs = train.dataset(split)
        return LoadedPairs(
            train=train_set,
            eval=eval_set,
            accounting=train.scan.accounting,
            eval_accounting=heldout.scan.accounting if heldout is not None else None,
            format=self.format,
            train_pairs=train_pairs,
            eval_pairs=eval_pairs,
            check=self._report(inspector, train, heldout, None) if inspector is not None else None,
            assays=self.assays,
        )

    def check(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        truncation: Truncation = _UNCUT,
        *,
        on_event: OnEvent = ignore,
    ) -> DataReport:
        """Read the pairs as training would, and say what is wrong with them.

        Memory does not grow with the size of the data, but for some 40 bytes a row.

        Args:
            tokenizer: The policy's; None leaves out what depends on it.
            truncation: How a pair that is too long is cut.
            on_event: Called with `Progress`.

        Raises:
            DataError: The data set cannot be read.
        """
        problem: DpoError | None = None
        first = self.train.first_pair()
        if (
            tokenizer is not None
            and first is not None
            and first.conversational
            and not tokenizer.chat_template
        ):
            problem, tokenizer = missing_template(), None
        tokens = PairTokenizer(tokenizer, truncation) if tokenizer is not None else None
        heldout = self._read_heldout(tokens, on_event, hash_prompts=True)
        inspector = Inspector(tokens, _prompts_of(heldout))
        train = read_pairs(self.train, tokens, on_event, inspector=inspector)
        return self._report(inspector, train, heldout, problem)

    @property
    def format(self) -> str:
        """The layout's name, a key of `FORMATS`, or `assay`."""
        return ASSAY if self.assays else self.train.format.name

    def _read_heldout(
        self,
        tokens: PairTokenizer | None,
        on_event: OnEvent,
        *,
        keep: bool = False,
        keep_ids: bool = False,
        hash_prompts: bool,
    ) -> ReadPairs | None:
        if self.heldout is None:
            return None
        return read_pairs(
            self.heldout,
            tokens,
            on_event,
            stage="reading held-out pairs",
            keep=keep,
            keep_ids=keep_ids,
            hash_prompts=hash_prompts,
        )

    def _refuse(self, *accountings: Accounting) -> None:
        """Stop where too many rows were lost to train on the rest."""
        for accounting in accountings:
            if error := accounting.verdict(strict=self.data.strict, allow_drops=self.data.allow_drops):
                raise error

    def _report(
        self, inspector: Inspector, train: ReadPairs, heldout: ReadPairs | None, problem: DpoError | None
    ) -> DataReport:
        parts = (train, heldout) if heldout is not None else (train,)
        accountings = [part.scan.accounting for part in parts]
        return build_report(
            inspector,
            layout=train.scan.format,
            accountings=accountings,
            tables=self.assays,
            problem=problem,
            data=self.data,
        )


def _prompts_of(heldout: ReadPairs | None) -> frozenset[int]:
    return frozenset(heldout.prompts) if heldout is not None else frozenset()
