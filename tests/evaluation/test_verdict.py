"""Thresholds: on the line passes, beyond it fails, what was not measured is not judged."""

import math

import pytest

from dpo_cli.evaluation.scores import Score, ScoreRow
from dpo_cli.evaluation.verdict import CHECKS, DEFAULT_THRESHOLDS, judge


def row(name, after, before=None):
    def figure(value):
        return Score(name, name, value, 50, (value - 0.1, value + 0.1), "none")

    difference = None if before is None else figure(after - before)
    return ScoreRow(
        name, name, "none", "rate", None if before is None else figure(before), figure(after), difference
    )


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (row("new_name", 0.95), True),
        (row("new_name", 0.94), False),
        (row("new_name", math.nan), False),
        (row("old_name", 0.05), True),
        (row("old_name", 0.06), False),
        (row("doubled_name", 0.0), True),
        (row("doubled_name", 0.01), False),
        (row("right", 0.88, before=0.90), True),
        (row("right", 0.87, before=0.90), False),
        (row("right", 0.99, before=0.90), True),
        (row("reward_accuracy", 0.5), True),
        (row("reward_accuracy", 0.49), False),
    ],
)
def test_each_check_at_its_threshold(given, passed):
    verdict = judge([given])
    assert verdict.passed is passed
    assert [check.passed for check in verdict.checks] == [passed]


def test_a_fall_is_told_as_a_fall_with_its_interval_turned_round():
    [check] = judge([row("right", 0.80, before=0.90)]).checks
    assert check.value == pytest.approx(0.1)
    assert check.interval == pytest.approx((0.0, 0.2))


def test_one_failed_check_fails_the_verdict():
    verdict = judge([row("new_name", 1.0), row("old_name", 0.5)])
    assert [check.passed for check in verdict.checks] == [True, False]
    assert not verdict.passed


def test_what_was_not_measured_or_has_no_threshold_is_not_judged():
    assert judge([]) is None
    assert judge([row("right", 0.5)]) is None  # no model before
    assert judge([row("new_name", 0.0)], {"min_reward_accuracy": 0.5}) is None


def test_the_json_shape():
    document = judge([row("new_name", 0.96)], {"min_new_name": 0.9}).to_json()
    assert document == {
        "passed": True,
        "checks": [
            {"name": "new_name", "value": 0.96, "interval": [0.86, 1.06], "threshold": 0.9, "passed": True}
        ],
    }
    assert {check.setting for check in CHECKS} == set(DEFAULT_THRESHOLDS)


@pytest.mark.parametrize(("usual", "without", "value"), [(1.0, 0.9, 0.9), (0.9, 1.0, 0.9), (1.0, 1.0, 1.0)])
def test_the_new_name_is_judged_under_the_worse_of_two_system_prompts(usual, without, value):
    [outcome] = judge([row("new_name", usual), row("new_name_none", without)], {"min_new_name": 0.95}).checks
    assert (outcome.value, outcome.passed) == (value, value >= 0.95)
