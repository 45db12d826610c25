"""One pass over a data set: every row read, turned into a pair, tokenised, judged and counted.

`dpo check` looks at what passes by, `load_pairs` keeps it; both see the same rows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dpo_cli.data.accounting import Accounting
from dpo_cli.data.pairs import Pair, RowProblem
from dpo_cli.events import OnEvent, Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dpo_cli.data.reading import PairReader, ReadRow
    from dpo_cli.data.tokenized import PairTokenizer, TokenizedPair

_BATCH: Final = 1024
"""Rows tokenised together."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that is a pair to train on.

    Attributes:
        number: Its place in the data set, from 1.
        pair: The pair.
        tokens: Its token ids; None without a tokenizer.
    """

    number: int
    pair: Pair
    tokens: TokenizedPair | None


class Walk:
    """Iterate once to get the kept pairs; `accounting` is complete when the iteration is.

    Args:
        reader: The rows.
        tokenizer: Applies the chat template and truncation; None leaves them out of the judgement.
        on_event: Called with `Progress`, in rows; the total is estimated from the bytes read (0 when unknown).
        stage: What the progress calls this.
    """

    def __init__(
        self,
        reader: PairReader,
        tokenizer: PairTokenizer | None = None,
        *,
        on_event: OnEvent = ignore,
        stage: str = "reading pairs",
    ) -> None:
        self._reader = reader
        self._tokenizer = tokenizer
        self._on_event = on_event
        self._stage = stage
        self.format = reader.format
        self.accounting = Accounting(reader.source.name, reader.format.name)

    def __iter__(self) -> Iterator[Kept]:
        """The kept pairs, in order."""
        rows = iter(self._reader)
        while batch := list(itertools.islice(rows, _BATCH)):
            yield from self._judge(batch)
            self._report()
        self._on_event(Progress(self._stage, self.accounting.read, self.accounting.read))

    def _judge(self, batch: list[ReadRow]) -> Iterator[Kept]:
        count = self.accounting
        pairs = [row.pair for row in batch if row.pair is not None]
        tokenized = iter(self._tokenizer.tokenize(pairs)) if self._tokenizer is not None else None
        for row in batch:
            count.read += 1
            count.rows_by_file[row.raw.source] = count.rows_by_file.get(row.raw.source, 0) + 1
            problem, tokens = row.problem, None
            if row.pair is not None and tokenized is not None and self._tokenizer is not None:
                found = next(tokenized)
                if isinstance(found, RowProblem):
                    problem = found
                else:
                    tokens, problem = found, self._tokenizer.problem(found)
            if problem is not None or row.pair is None:
                count.drop(row.number, row.raw, problem or RowProblem("unreadable row", "there is nothing"))
                continue
            count.kept += 1
            yield Kept(row.number, row.pair, tokens)

    def _report(self) -> None:
        read, share = self.accounting.read, self._reader.source.done()
        self._on_event(Progress(self._stage, read, max(round(read / share), read) if share > 0 else 0))
