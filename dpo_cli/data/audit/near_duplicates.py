"""Pairs that say nearly the same as an earlier one: MinHash finds candidates, a comparison of words decides.

Candidates come from `datasketch` (MinHash over word pairs, locality-sensitive hashing; Broder 1997). A
candidate counts when prompt, chosen and rejected each agree in most words, in order, and no number
differs: two sums with other figures are two tasks, however alike they read.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

SEARCHED: Final = 20_000
"""Pairs that are compared: each costs about 0.16 ms and at most some 10 kB."""

THRESHOLD: Final = 0.8
"""Share of word pairs in common (Jaccard) above which two pairs are looked at closely."""

_PERMUTATIONS: Final = 64
_AGREE: Final = 0.75
_CANDIDATES: Final = 8
_WORD: Final = re.compile(r"\w+")
_MOST_WORDS: Final = 512


class NearDuplicates:
    """Takes pairs one after the other and says of each whether an earlier one says nearly the same."""

    def __init__(self) -> None:
        from datasketch import MinHash, MinHashLSH

        self._index = MinHashLSH(threshold=THRESHOLD, num_perm=_PERMUTATIONS)
        self._empty = MinHash(num_perm=_PERMUTATIONS)
        self._words: dict[int, list[bytes]] = {}

    @property
    def searched(self) -> int:
        """Pairs taken so far; at `SEARCHED` no more are."""
        return len(self._words)

    def repeats(self, number: int, texts: Sequence[str]) -> bool:
        """Whether a pair repeats an earlier one nearly word for word; it is remembered in any case.

        Args:
            number: Its row.
            texts: Prompt, chosen, rejected.
        """
        if self.searched >= SEARCHED:
            return False
        words = [_WORD.findall(text.casefold())[:_MOST_WORDS] for text in texts]
        sketch = self._sketch(words)
        candidates = self._index.query(sketch)[:_CANDIDATES]
        found = any(
            _alike(words, [text.decode().split() for text in self._words[other]]) for other in candidates
        )
        self._index.insert(number, sketch, check_duplication=False)
        self._words[number] = [" ".join(text).encode() for text in words]
        return found

    def _sketch(self, words: list[list[str]]) -> Any:  # noqa: ANN401 - datasketch has no types
        flat = [word for text in words for word in text]
        sketch = self._empty.copy()
        sketch.update_batch(
            {f"{one} {other}".encode() for one, other in zip(flat, flat[1:] or [""], strict=False)}
        )
        return sketch


def _alike(one: list[list[str]], other: list[list[str]]) -> bool:
    return _numbers(one) == _numbers(other) and all(
        a == b or SequenceMatcher(None, a, b, autojunk=False).ratio() >= _AGREE
        for a, b in zip(one, other, strict=True)
    )


def _numbers(words: list[list[str]]) -> list[str]:
    return [word for text in words for word in text if any(map(str.isdigit, word))]
