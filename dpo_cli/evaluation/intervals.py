"""Intervals for figures measured on a sample of questions; all from scipy, all at 95 %.

Questions are the sampling units: an interval says how far the figure would move with other questions of the
same kind, not with another seed of training.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Literal

from dpo_cli.rates import CONFIDENCE, rate_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]

RESAMPLES = 4000
_BATCH = 500  # resamples drawn at once: bounds the memory for thousands of questions


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Bootstrap interval of a mean (BCa, Efron 1987; `scipy.stats.bootstrap`, fixed seed).

    One value, or the same value everywhere, carries no information on its spread: None for one value,
    a point for several.
    """
    if len(values) == 1:
        return None
    if min(values) == max(values):
        return values[0], values[0]
    return _bootstrap((values,), _mean)


def ratio_interval(totals: Sequence[float], counts: Sequence[float]) -> Interval | None:
    """Bootstrap interval of sum(totals) / sum(counts), resampling questions.

    For means over tokens: the tokens of one answer are not independent of each other, answers are.

    Args:
        totals: Sum of the figure over the tokens of each question.
        counts: Tokens of each question, positive.
    """
    if len(totals) == 1:
        return None
    ratios = [total / count for total, count in zip(totals, counts, strict=True)]
    if min(ratios) == max(ratios):
        return ratios[0], ratios[0]
    return _bootstrap((totals, counts), _ratio)


def difference_interval(before: Sequence[float], after: Sequence[float]) -> Interval | None:
    """Interval of mean(after - before) over the same questions.

    Bootstrap over the questions' differences, which keeps the pairs together. Where nothing
    changed, the difference is 0 for certain as far as these questions go. Where every question changed by
    the same amount (0 of 60 before, 60 of 60 after) the bootstrap knows no spread either, so the share of
    questions that change gets Wilson's interval.
    """
    changes = [new - old for old, new in zip(before, after, strict=True)]
    if all(change == 0 for change in changes):
        return 0.0, 0.0
    if min(changes) < max(changes):
        return mean_interval(changes)
    if abs(changes[0]) != 1:
        return None if len(changes) == 1 else (changes[0], changes[0])
    low, high = rate_interval(len(changes), len(changes))
    return (low, high) if changes[0] > 0 else (-high, -low)


def _mean(values: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = values.mean(axis=axis)
    return mean


def _ratio(totals: NDArray[np.float64], counts: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = totals.sum(axis=axis) / counts.sum(axis=axis)
    return ratio


def _bootstrap(samples: tuple[ArrayLike, ...], statistic: Callable[..., NDArray[np.float64]]) -> Interval:
    # A second to import: not before they are needed, so that a mistake is told at once.
    import numpy as np
    from scipy import stats

    def interval(method: Literal["BCa", "percentile"]) -> Interval:
        found = stats.bootstrap(
            tuple(map(np.asarray, samples)),
            statistic,
            paired=len(samples) > 1,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=_BATCH,
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(0),
        ).confidence_interval
        return float(found.low), float(found.high)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = interval("BCa")
    # BCa covers best (tests/evaluation/test_intervals.py) and is undefined for a few lopsided samples.
    return found if all(map(math.isfinite, found)) else interval("percentile")
