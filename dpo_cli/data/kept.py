"""A data set that was read once: which pairs were kept, held in memory or streamed again from their source."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.data.arrow import PairTable
from dpo_cli.data.pairs import fingerprint
from dpo_cli.data.scan import Scan
from dpo_cli.errors import DataError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset, IterableDataset

    from dpo_cli.data.accounting import Accounting
    from dpo_cli.data.audit.inspection import Inspector
    from dpo_cli.data.reader import PairReader
    from dpo_cli.data.split import PromptSplit
    from dpo_cli.data.tokens.tokenizer import PairTokenizer
    from dpo_cli.events import OnEvent


@dataclass(frozen=True)
class ReadPairs:
    """A data set that was read once.

    Attributes:
        reader: To read it again, for a stream.
        scan: Has read it.
        held: Its kept pairs; None when they are streamed, or only looked at.
        prompts: Fingerprints of the kept pairs' prompts, where a split needs them.
    """

    reader: PairReader
    scan: Scan
    held: Dataset | None
    prompts: array[int]

    def dataset(
        self, split: PromptSplit | None = None, *, held_out: bool = False
    ) -> tuple[Dataset | IterableDataset, int]:
        """The pairs of one side of a split, and how many they are."""
        sides = [split.side(prompt) for prompt in self.prompts] if split is not None else None
        count = self.scan.accounting.kept if sides is None else sum(side is held_out for side in sides)
        if self.held is None:
            return _stream(self.reader, self.scan.accounting, split, held_out=held_out), count
        if sides is None:
            return self.held, count
        return self.held.select([row for row, side in enumerate(sides) if side is held_out]), count


def read_pairs(
    reader: PairReader,
    tokenizer: PairTokenizer | None,
    on_event: OnEvent,
    *,
    stage: str = "reading pairs",
    keep: bool = False,
    keep_ids: bool = False,
    hash_prompts: bool = False,
    inspector: Inspector | None = None,
) -> ReadPairs:
    """Read a data set once.

    Args:
        reader: Its rows.
        tokenizer: To drop also what its chat template and truncation make useless.
        on_event: Called with `Progress`.
        stage: What the progress calls this.
        keep: Hold the kept pairs.
        keep_ids: Hold their token ids as well.
        hash_prompts: Keep the fingerprints of their prompts.
        inspector: Sees every kept pair.
    """
    scan = Scan(reader, tokenizer, on_event=on_event, stage=stage)
    table = PairTable()
    prompts = array("Q")
    for kept in scan:
        if keep:
            table.add(kept.pair, kept.tokens if keep_ids else None)
        if hash_prompts:
            prompts.append(fingerprint(kept.pair.prompt))
        if inspector is not None:
            inspector.see(kept)
    # Without a pair there is no table: what the accounting has to say about it comes first.
    held = table.dataset() if keep and scan.accounting.kept else None
    return ReadPairs(reader, scan, held, prompts)


def _stream(
    reader: PairReader, accounting: Accounting, split: PromptSplit | None, *, held_out: bool
) -> IterableDataset:
    """The kept pairs, read again from the source each time they are iterated."""
    from datasets import IterableDataset

    dropped = frozenset(number for numbers in accounting.rows.values() for number in numbers)

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for row in reader:
                if row.pair is None or row.number in dropped:
                    continue
                if split is None or split.held_out(row.pair.prompt) is held_out:
                    yield row.pair.to_row()
        except DataError as error:  # what was read once is another file now, or gone: the run has started
            raise TrainingError(error.message, hint=error.hint) from error

    return IterableDataset.from_generator(rows)
