"""Looks at kept pairs as they pass by, and says in the end what is to be known about the set."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dpo_cli.data.audit.findings import (
    ADVICE,
    CONTRADICTIONS,
    DUPLICATES,
    LEAKED,
    LENGTH,
    NEAR_DUPLICATES,
    ODD_ROLES,
    ROW_FINDINGS,
    SHOWN_ROWS,
    Finding,
    InspectedPair,
    RowFinding,
    TokenizerRules,
)
from dpo_cli.data.audit.lengths import Lengths
from dpo_cli.data.audit.near_duplicates import SEARCHED, NearDuplicates
from dpo_cli.data.pairs import fingerprint, written
from dpo_cli.data.tokens.view import TokenView, token_view

if TYPE_CHECKING:
    from collections.abc import Collection

    from dpo_cli.data.accounting import Accounting
    from dpo_cli.data.tokens.tokenizer import PairTokenizer, UsablePair


_64_BITS: Final = 2**64 - 1
_SHOWN_KINDS: Final = 5


@dataclass
class _Rows:
    """Rows that have a finding: how many, and the first of them."""

    count: int = 0
    first: list[int] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)

    def add(self, row: int, kind: bool | str = "") -> None:
        self.count += 1
        if len(self.first) < SHOWN_ROWS:
            self.first.append(row)
        if isinstance(kind, str) and (kind in self.kinds or len(self.kinds) < _SHOWN_KINDS):
            self.kinds[kind] = self.kinds.get(kind, 0) + 1

    @property
    def detail(self) -> str:
        """In which ways they have it, the commonest first."""
        kinds = sorted((kind for kind in self.kinds if kind), key=lambda kind: -self.kinds[kind])
        return f"{'; '.join(kinds)}." if kinds else ""


class Inspector:
    """Sees every kept pair once; `findings()` afterwards.

    Args:
        tokenizer: What tokenised the pairs; None without a model.
        eval_prompts: Fingerprints of prompts held out for evaluation.
    """

    def __init__(
        self, tokenizer: PairTokenizer | None = None, eval_prompts: Collection[int] = frozenset()
    ) -> None:
        self._tokenizer = tokenizer
        self._rules = TokenizerRules(tokenizer.tokenizer if tokenizer is not None else None)
        self._eval_prompts = eval_prompts
        self._found = {test: _Rows() for test in ROW_FINDINGS}
        self._leaked, self._near, self._longer = _Rows(), _Rows(), _Rows()
        self._numbers, self._pairs, self._swapped = array("Q"), array("Q"), array("Q")
        self._alike = NearDuplicates()
        self._known: set[int] = set()
        self.lengths = Lengths(tokenizer.truncation.max_length if tokenizer is not None else None)
        self.view: TokenView | None = None

    def see(self, kept: UsablePair) -> None:
        """Look at one pair."""
        seen = InspectedPair.of(kept, self._rules)
        for finding, rows in self._found.items():
            if has := finding.test(seen):
                rows.add(kept.number, has)
        prompt = fingerprint(kept.pair.prompt) if self._eval_prompts else 0
        if prompt in self._eval_prompts:
            self._leaked.add(kept.number)
        self._compare(seen)
        if self.lengths.add(seen) > 0:
            self._longer.add(kept.number)
        if self.view is None and kept.tokens is not None and self._tokenizer is not None:
            self.view = token_view(kept.number, kept.tokens, self._tokenizer)

    def _compare(self, seen: InspectedPair) -> None:
        """Remember the pair, to find others like it."""
        pair, number = seen.kept.pair, seen.kept.number
        # Python's own string hash is fast, and these are only compared within this run.
        prompt, chosen, rejected = written(pair.prompt), written(pair.chosen), written(pair.rejected)
        if pair.tools or pair.template_kwargs:
            prompt += json.dumps([pair.tools, pair.template_kwargs], sort_keys=True)
        same = hash((pair.conversational, prompt, chosen, rejected)) & _64_BITS
        self._numbers.append(number)
        self._pairs.append(same)
        self._swapped.append(hash((pair.conversational, prompt, rejected, chosen)) & _64_BITS)
        if self._alike.searched < SEARCHED and same not in self._known:
            self._known.add(same)
            if self._alike.repeats(number, (seen.prompt, seen.chosen, seen.rejected)):
                self._near.add(number)

    def findings(self, accounting: Accounting) -> list[Finding]:
        """All findings: drops first, then those about single pairs, then those about the set."""
        found = drop_findings(accounting)
        if accounting.odd:
            rows = list(accounting.odd[:SHOWN_ROWS])
            found.append(
                Finding(ODD_ROLES, len(accounting.odd), rows, ADVICE[ODD_ROLES], str(accounting.odd_example))
            )
        found += self._row_findings(len(self._numbers))
        searched = ""
        if len(self._numbers) > SEARCHED:
            searched = f"Searched the first {SEARCHED:,} pairs only."
        found += self._repeated()
        found += [
            Finding(name, rows.count, rows.first, ADVICE[name], detail)
            for name, rows, detail in ((NEAR_DUPLICATES, self._near, searched), (LEAKED, self._leaked, ""))
            if rows.count
        ]
        if self.lengths.length_alone_wins():
            share = self.lengths.longer_share() or 0.0
            detail = (
                f"The longer completion is the chosen one in {share:.0%} of the pairs that differ in length."
            )
            found.append(Finding(LENGTH, self.lengths.longer, self._longer.first, ADVICE[LENGTH], detail))
        return found

    def _row_findings(self, pairs: int) -> list[Finding]:
        return [
            Finding(test.name, rows.count, rows.first, ADVICE[test.name], rows.detail)
            for test, rows in self._found.items()
            if rows.count and not _customary(test, rows.count, pairs)
        ]

    def _repeated(self) -> list[Finding]:
        """Duplicates and contradictions, found by sorting fingerprints: a set of them all would be large."""
        import numpy as np

        numbers = (
            np.frombuffer(self._numbers, dtype=np.uint64) if self._numbers else np.empty(0, dtype=np.uint64)
        )
        pairs = np.frombuffer(self._pairs, dtype=np.uint64) if self._pairs else numbers
        swapped = np.frombuffer(self._swapped, dtype=np.uint64) if self._swapped else numbers
        first = np.zeros(len(pairs), dtype=bool)
        first[np.unique(pairs, return_index=True)[1]] = True
        again = numbers[~first]
        against = numbers[np.isin(pairs, swapped)]
        return [
            Finding(name, len(rows), rows[:SHOWN_ROWS].tolist(), ADVICE[name])
            for name, rows in ((DUPLICATES, again), (CONTRADICTIONS, against))
            if len(rows)
        ]


def drop_findings(accounting: Accounting) -> list[Finding]:
    """A finding for each reason why rows were dropped."""
    return [
        Finding(
            reason,
            count,
            list(accounting.rows[reason][:SHOWN_ROWS]),
            ADVICE[reason],
            str(accounting.examples[reason][0]),
        )
        for reason, count in accounting.dropped.items()
    ]


def _customary(finding: RowFinding, count: int, pairs: int) -> bool:
    """Whether so many pairs have it that it is how the data is meant."""
    return count > finding.custom_above * pairs
