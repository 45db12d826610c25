"""Figures as JSON has them: rounded beyond what they mean, and null where they are no numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpo_cli.evaluation.intervals import Interval
    from dpo_cli.evaluation.scores import Score, ScoreRow

_DIGITS = 6


def number_json(value: float) -> float | None:
    """A finite number to six places; None for the infinities and NaN of a ruined model."""
    return round(value, _DIGITS) + 0.0 if math.isfinite(value) else None


def interval_json(interval: Interval | None) -> list[float | None] | None:
    """An interval as a list of two numbers."""
    return None if interval is None else [number_json(end) for end in interval]


def score_json(score: Score | None) -> dict[str, Any] | None:
    """A score without what its row says already."""
    if score is None:
        return None
    return {"value": number_json(score.value), "n": score.n, "interval": interval_json(score.interval)}


def scores_json(rows: tuple[ScoreRow, ...]) -> dict[str, Any]:
    """The scorecard, by the short names of its rows."""
    return {
        row.name: {
            "label": row.label,
            "unit": row.unit,
            "better": row.better,
            "before": score_json(row.before),
            "after": score_json(row.after),
            "difference": score_json(row.difference),
        }
        for row in rows
    }
