"""How sure a share is: the one interval that data and scores both use."""

from __future__ import annotations

CONFIDENCE = 0.95


def rate_interval(hits: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927; `scipy.stats.binomtest`), at 95 %.

    Args:
        hits: How many of them.
        n: How many were looked at, at least 1.
    """
    from scipy.stats import binomtest  # a second to import: not before it is needed

    found = binomtest(hits, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)
