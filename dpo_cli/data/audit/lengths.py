"""How long prompts and completions are."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.rates import rate_interval

if TYPE_CHECKING:
    from dpo_cli.data.audit.findings import InspectedPair

_PARTS: Final = ("prompt", "chosen", "rejected")
_BINS: Final = 20

LENGTH_ALONE: Final = 0.6
"""Length is a finding when "the longer one is preferred" is right in more than this share of pairs, surely."""


class Lengths:
    """Collects lengths, in tokens where there is a tokenizer and in characters where there is none.

    Args:
        max_length: Where sequences are cut; None when they are not.
    """

    def __init__(self, max_length: int | None = None) -> None:
        self._max = max_length
        self._of = {part: array("I") for part in _PARTS}
        self._unit = "characters"
        self._cut = 0
        self.longer = 0
        self.shorter = 0

    def add(self, seen: InspectedPair) -> int:
        """Take a pair in.

        Returns:
            How much longer chosen is than rejected.
        """
        tokens = seen.kept.tokens
        if tokens is None:
            sizes = len(seen.prompt), len(seen.chosen), len(seen.rejected)
        else:
            self._unit = "tokens"
            sizes = len(tokens.prompt), len(tokens.chosen), len(tokens.rejected)
            self._cut += self._max is not None and sizes[0] + max(sizes[1:]) > self._max
        for part, size in zip(_PARTS, sizes, strict=True):
            self._of[part].append(size)
        self.longer += sizes[1] > sizes[2]
        self.shorter += sizes[1] < sizes[2]
        return sizes[1] - sizes[2]

    def longer_share(self) -> float | None:
        """Share of pairs whose chosen is the longer one, of those that differ in length; None when none does."""
        differ = self.longer + self.shorter
        return self.longer / differ if differ else None

    def length_alone_wins(self) -> bool:
        """Whether the lower end of the share's 95 % interval (Wilson 1927) is above `LENGTH_ALONE`."""
        differ = self.longer + self.shorter
        if not differ:
            return False
        return rate_interval(self.longer, differ)[0] > LENGTH_ALONE

    def to_json(self) -> dict[str, Any]:
        """Unit, figures of each part, and a histogram whose bins all parts share.

        Returns:
            `unit`, `max_length`, `cut` (pairs that lose an end), `chosen_longer` (share or None), for `prompt`,
            `chosen`, `rejected` each `min`, `median`, `mean`, `p95`, `max` and `total`, and `histogram` with `edges`
            (one more than there are counts) and counts for each part.
        """
        import numpy as np

        values = {
            part: np.frombuffer(lengths, dtype=np.uint32) for part, lengths in self._of.items() if lengths
        }
        share = self.longer_share()
        result: dict[str, Any] = {
            "unit": self._unit,
            "max_length": self._max,
            "cut": self._cut,
            "chosen_longer": None if share is None else round(share, 4),
        }
        if not values:
            return result
        top = max(int(one.max()) for one in values.values())
        edges = np.unique(np.linspace(0, top + 1, _BINS + 1).round().astype(int))
        for part, one in values.items():
            result[part] = {
                "min": int(one.min()),
                "median": float(np.median(one)),
                "mean": round(float(one.mean()), 2),
                "p95": float(np.percentile(one, 95)),
                "max": int(one.max()),
                "total": int(one.sum(dtype=np.uint64)),
            }
        counts = {part: np.histogram(one, edges)[0].tolist() for part, one in values.items()}
        result["histogram"] = {"edges": edges.tolist(), **counts}
        return result
