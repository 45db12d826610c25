"""The verdict: figures held against thresholds, one row a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dpo_cli.config import DPOTrainingConfig, IdentityShiftConfig
from dpo_cli.errors import VerdictFailed
from dpo_cli.evaluation.json_values import interval_json, number_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dpo_cli.evaluation.intervals import Interval
    from dpo_cli.evaluation.scores import Score, ScoreRow, Unit

_ROUNDING = 1e-9  # 0.90 - 0.88 is not above 0.02


@dataclass(frozen=True)
class Check:
    """One thing that must hold, as a row of `CHECKS`.

    Attributes:
        name: As in `--json`.
        label: In words.
        setting: The setting that holds its threshold.
        score: Row of the scorecard that is looked at.
        side: The score of the model after, or by how much it fell or rose from before.
        limit: Whether the threshold is the least or the most allowed.
        or_else: Another row that is looked at if its score is the worse one.
    """

    name: str
    label: str
    setting: str
    score: str
    side: Literal["after", "drop", "rise"]
    limit: Literal["least", "most"]
    or_else: str = ""


CHECKS: tuple[Check, ...] = (
    Check("new_name", "Says the new name", "min_new_name", "new_name", "after", "least", "new_name_none"),
    Check("old_name", "Leaks the old name", "max_old_name", "old_name", "after", "most"),
    Check("doubled_name", "Doubles the new name", "max_doubled_name", "doubled_name", "after", "most"),
    Check("claims", "Claims the name on other questions", "max_claims", "claims", "after", "most"),
    Check("ordinary_drop", "Fall of expected answers right", "max_ordinary_drop", "right", "drop", "most"),
    Check(
        "unlikely", "Rise of answers unlikely to the model before", "max_unlikely", "unlikely", "rise", "most"
    ),
    Check(
        "forgotten",
        "Rise of former answers unlikely to the model",
        "max_forgotten",
        "forgotten",
        "rise",
        "most",
    ),
    Check(
        "repetition", "Rise of repeated phrases", "max_repetition_rise", "repetition_other", "rise", "most"
    ),
    Check("cut_off", "Rise of cut-off answers", "max_cut_off_rise", "cut_off_other", "rise", "most"),
    Check(
        "same_answer",
        "Rise of one answer to several questions",
        "max_same_answer_rise",
        "same_answer",
        "rise",
        "most",
    ),
    Check("longer", "Length, as a multiple of before", "max_longer", "longer", "after", "most"),
    Check(
        "reward_accuracy",
        "Reward accuracy on held-out pairs",
        "min_reward_accuracy",
        "reward_accuracy",
        "after",
        "least",
    ),
)
"""Everything a verdict can check. A new check is a new row and a setting for its threshold."""

_SETTINGS = IdentityShiftConfig.model_fields | DPOTrainingConfig.model_fields
DEFAULT_THRESHOLDS: Mapping[str, float] = {
    check.setting: _SETTINGS[check.setting].default for check in CHECKS
}
"""Thresholds where none are given."""


@dataclass(frozen=True)
class CheckOutcome:
    """A check and how it came out."""

    check: Check
    value: float
    interval: Interval | None
    threshold: float
    passed: bool
    unit: Unit = "rate"

    def to_json(self) -> dict[str, Any]:
        """As in `--json`."""
        return {
            "name": self.check.name,
            "value": number_json(self.value),
            "interval": interval_json(self.interval),
            "threshold": self.threshold,
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Verdict:
    """All checks that apply; at least one."""

    checks: tuple[CheckOutcome, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def require(self) -> None:
        """Go on only if every check passed.

        Raises:
            VerdictFailed: A check failed; the message names each with its figure.
        """
        failed = [check for check in self.checks if not check.passed]
        if failed:
            told = "; ".join(
                f"{one.check.label} {one.value:.3g}, must be at {one.check.limit} {one.threshold:.3g}"
                for one in failed
            )
            raise VerdictFailed(f"the verdict is FAIL: {told}")

    def to_json(self) -> dict[str, Any]:
        """As in `--json`."""
        return {"passed": self.passed, "checks": [check.to_json() for check in self.checks]}


def judge(rows: Sequence[ScoreRow], thresholds: Mapping[str, float] = DEFAULT_THRESHOLDS) -> Verdict | None:
    """Hold a scorecard against thresholds.

    A check applies when its score was measured and its setting is in `thresholds`. The figure itself is
    compared, not an end of its interval: the interval is shown for the reader to judge.

    Args:
        rows: The scorecard.
        thresholds: Values of the settings named in `CHECKS`.

    Returns:
        The verdict; None where no check applies, since nothing was tested then.
    """
    scores = {row.name: row for row in rows}
    results = [
        result
        for check in CHECKS
        if check.setting in thresholds and check.score in scores
        if (result := _result(check, _worse(check, scores), thresholds[check.setting])) is not None
    ]
    return Verdict(tuple(results)) if results else None


def _worse(check: Check, scores: Mapping[str, ScoreRow]) -> ScoreRow:
    rows = [scores[name] for name in (check.score, check.or_else) if name in scores]
    return (min if check.limit == "least" else max)(rows, key=lambda row: row.after.value)


def _result(check: Check, row: ScoreRow, threshold: float) -> CheckOutcome | None:
    score: Score | None = row.after if check.side == "after" else row.difference
    if score is None:
        return None
    value, interval = score.value, score.interval
    if check.side == "drop":
        value, interval = 0.0 - value, (0.0 - interval[1], 0.0 - interval[0]) if interval else None
    # Written so that a value that is no number fails.
    passed = value >= threshold - _ROUNDING if check.limit == "least" else value <= threshold + _ROUNDING
    return CheckOutcome(check, value, interval, threshold, passed, score.unit)
