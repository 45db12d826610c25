"""One pass over a data set: every row read, turned into a pair, tokenised, judged and counted.

`dpo check` looks at what passes by, `load_pairs` keeps it; both see the same rows.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from dpo_cli.data.accounting import Accounting
from dpo_cli.data.pairs import UNREADABLE, RowProblem, odd_roles, plain
from dpo_cli.data.tokens.tokenizer import UsablePair
from dpo_cli.events import OnEvent, Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dpo_cli.data.reader import PairReader, ReadRow
    from dpo_cli.data.tokens.tokenizer import PairTokenizer, TokenizedPair

_Batch = list["ReadRow"]
_ROWS: Final = 1024
_CHARACTERS: Final = 1 << 22
"""Rows and characters that are tokenised together, at most."""


class Scan:
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
        self._expected = 0
        self.format = reader.format
        self.accounting = Accounting(reader.source.name, reader.format.name)

    def __iter__(self) -> Iterator[UsablePair]:
        """The kept pairs, in order."""
        for batch, tokenized in self._tokenized(self._batches()):
            yield from self._judge(batch, tokenized)
            self._report()
        self._on_event(Progress(self._stage, self.accounting.read, self.accounting.read))

    def _tokenized(
        self, batches: Iterator[_Batch]
    ) -> Iterator[tuple[_Batch, list[TokenizedPair | RowProblem] | None]]:
        """Each batch with its token ids, one batch ahead: the tokenizer works while rows are read and judged."""
        if self._tokenizer is None:
            yield from ((batch, None) for batch in batches)
            return
        tokenize = self._tokenizer.tokenize
        with ThreadPoolExecutor(1) as ahead:
            waiting: tuple[_Batch, Future[list[TokenizedPair | RowProblem]]] | None = None
            for batch in batches:
                following = batch, ahead.submit(tokenize, [row.pair for row in batch if row.pair is not None])
                if waiting is not None:
                    yield waiting[0], waiting[1].result()
                waiting = following
            if waiting is not None:
                yield waiting[0], waiting[1].result()

    def _judge(self, batch: _Batch, found: list[TokenizedPair | RowProblem] | None) -> Iterator[UsablePair]:
        count = self.accounting
        tokenized = iter(found or ())
        for row in batch:
            count.read += 1
            count.rows_by_file[row.raw.source] = count.rows_by_file.get(row.raw.source, 0) + 1
            problem, tokens = row.problem, None
            if row.pair is not None and self._tokenizer is not None:
                tokens, problem = self._tokens(next(tokenized), self._tokenizer)
            if row.pair is None or problem is not None:
                count.drop(row.number, row.raw, problem or RowProblem(UNREADABLE, "empty row"))
                continue
            count.kept += 1
            if isinstance(row.pair.prompt, list):
                odd = odd_roles(row.pair.prompt, row.pair.chosen, row.pair.rejected)
                if odd is not None:
                    count.mark_odd(row.number, row.raw, odd)
            yield UsablePair(row.number, row.pair, tokens)

    def _tokens(
        self, found: TokenizedPair | RowProblem, tokenizer: PairTokenizer
    ) -> tuple[TokenizedPair | None, RowProblem | None]:
        return (None, found) if isinstance(found, RowProblem) else (found, tokenizer.problem(found))

    def _report(self) -> None:
        self._on_event(Progress(self._stage, self.accounting.read, max(self._expected, self.accounting.read)))

    def _batches(self) -> Iterator[_Batch]:
        """Rows in lists, bounded in number and in characters: a few long documents are a batch too."""
        batch: _Batch = []
        read = size = 0
        for row in self._reader:
            batch.append(row)
            if row.pair is not None:
                size += sum(
                    len(plain(text)) for text in (row.pair.prompt, row.pair.chosen, row.pair.rejected)
                )
            if len(batch) >= _ROWS or size >= _CHARACTERS:
                read += len(batch)
                share = self._reader.source.done()
                self._expected = round(read / share) if share > 0 else 0
                yield batch
                batch, size = [], 0
        if batch:
            yield batch
