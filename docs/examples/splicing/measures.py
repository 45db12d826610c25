"""How scorers of sites are measured: pairs, both tags, and donors against decoys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from collections.abc import Sequence


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Chance that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    ranks = rankdata(np.concatenate([positives, negatives]))
    n, m = len(positives), len(negatives)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def pair_accuracy(better: Sequence[float], worse: Sequence[float]) -> float:
    """Share of pairs whose better member scores higher, ties counting half."""
    difference = np.subtract(better, worse)
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def both_right(better: Sequence[float], worse: Sequence[float]) -> float:
    """Share of events ranked rightly under both tags; scores come as tag 1, tag 2, tag 1, ... of one event after the other."""
    right = (np.subtract(better, worse) > 0).reshape(-1, 2)
    return float(right.all(axis=1).mean())
