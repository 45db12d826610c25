"""Intervals: the library's own, and right as often as they say."""

import numpy as np
import pytest
from scipy import stats

from dpo_cli.evaluation.intervals import difference_interval, mean_interval, ratio_interval
from dpo_cli.rates import rate_interval


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (9, 10, 0.59585, 0.98212)]
)
def test_rates_have_wilsons_interval(hits, n, low, high):
    # Figures from Wilson's formula by hand: (p + z2/2n +- z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n), z = 1.95996.
    assert rate_interval(hits, n) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.8, 0.95])
def test_the_rate_interval_covers_the_truth_as_often_as_it_says(p):
    n = 74
    hits = np.arange(n + 1)
    covered = np.array([low <= p <= high for low, high in (rate_interval(int(k), n) for k in hits)])
    assert 0.93 <= float((stats.binom.pmf(hits, n, p) * covered).sum()) <= 0.97


@pytest.fixture
def _fewer_resamples(monkeypatch):
    """Time for many intervals; with the 4000 of the code they are steadier, not wider."""
    monkeypatch.setattr("dpo_cli.evaluation.intervals.RESAMPLES", 1000)


def coverage(draw, truth, interval, runs=600):
    rng = np.random.default_rng(7)
    found = [interval(draw(rng)) for _ in range(runs)]
    return sum(low <= truth <= high for low, high in found) / runs


@pytest.mark.usefixtures("_fewer_resamples")
def test_the_mean_interval_covers_the_truth_as_often_as_it_says():
    covered = coverage(lambda rng: rng.gamma(4, 2, size=74).tolist(), 8.0, mean_interval)
    assert 0.93 <= covered <= 0.97


@pytest.mark.usefixtures("_fewer_resamples")
def test_the_ratio_interval_covers_the_truth_as_often_as_it_says():
    def draw(rng):
        counts = rng.integers(5, 30, size=74).astype(float)
        return (counts * rng.gamma(4, 0.25, size=74)).tolist(), counts.tolist()

    assert 0.93 <= coverage(draw, 1.0, lambda both: ratio_interval(*both)) <= 0.97


@pytest.mark.usefixtures("_fewer_resamples")
@pytest.mark.parametrize(("up", "down"), [(0.15, 0.15), (0.3, 0.05), (0.9, 0.02)])
def test_the_paired_interval_covers_the_truth_as_often_as_it_says(up, down):
    def draw(rng):
        change = rng.choice([1.0, -1.0, 0.0], p=[up, down, 1 - up - down], size=74)
        return [0.0 if c > 0 else float(c < 0) for c in change], [float(c > 0) for c in change]

    assert 0.93 <= coverage(draw, up - down, lambda both: difference_interval(*both)) <= 0.97


def test_no_change_anywhere_is_a_difference_of_nothing():
    assert difference_interval([0, 1, 1, 0], [0, 1, 1, 0]) == (0.0, 0.0)
    assert difference_interval([0.0], [0.0]) == (0.0, 0.0)


def test_a_change_everywhere_is_not_certain():
    assert difference_interval([0.0] * 60, [1.0] * 60) == rate_interval(60, 60)
    low, high = rate_interval(60, 60)
    assert difference_interval([1.0] * 60, [0.0] * 60) == (-high, -low)
    assert difference_interval([2.0, 2.0], [5.0, 5.0]) == (3.0, 3.0)
    assert difference_interval([2.0], [5.0]) is None


def test_one_value_has_no_interval_and_equal_values_a_point():
    assert mean_interval([3.0]) is None
    assert mean_interval([3.0, 3.0]) == (3.0, 3.0)
    assert ratio_interval([3.0], [2.0]) is None
    assert ratio_interval([3.0, 6.0], [1.0, 2.0]) == (3.0, 3.0)


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(1).normal(size=30).tolist()
    assert mean_interval(values) == mean_interval(values)
