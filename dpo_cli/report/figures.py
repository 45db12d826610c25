"""Figures as people read them, the same in terminal, HTML and model card."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpo_cli.evaluation.intervals import Interval
    from dpo_cli.evaluation.scores import Score, Unit
    from dpo_cli.evaluation.verdict import CheckOutcome

_MINUTE, _HOUR = 60, 3600
_SMALL = 10  # seconds below this are told with a decimal


def figure(value: float, unit: Unit, *, signed: bool = False) -> str:
    """A value with its unit: `98.6 %`, `0.034 nats/token`, `12.5 words`."""
    if not math.isfinite(value):
        return "not finite"
    sign = "+" if signed and _rounded(value, unit) != 0 else ""
    if unit == "rate":
        return f"{_plain(100 * value, 1, sign)} {'points' if signed else '%'}"
    return f"{_plain(value, _DECIMALS[unit], sign)} {unit}"


def interval_figure(interval: Interval | None, unit: Unit) -> str:
    """An interval without its unit: `[92.7, 99.8]`; empty where there is none."""
    if interval is None:
        return ""
    scale = 100 if unit == "rate" else 1
    low, high = (_plain(scale * end, _DECIMALS[unit], "") for end in interval)
    return f"[{low}, {high}]"


def score_figure(score: Score | None, *, signed: bool = False) -> str:
    """A score with its interval; a dash where there is none."""
    if score is None:
        return "-"
    return f"{figure(score.value, score.unit, signed=signed)} {interval_figure(score.interval, score.unit)}".rstrip()


def threshold_figure(result: CheckOutcome) -> str:
    """What a check asks for: `at least 95.0 %`."""
    return f"at {result.check.limit} {_checked(result.threshold, result)}"


def check_figure(result: CheckOutcome) -> str:
    """The figure of a check with its interval."""
    return f"{_checked(result.value, result)} {interval_figure(result.interval, result.unit)}".rstrip()


def _checked(value: float, result: CheckOutcome) -> str:
    """A figure as a check compares it: a change of a rate is told in points."""
    if result.unit != "rate":
        return f"{_plain(value, _DECIMALS[result.unit], '')} {result.unit}"
    return f"{_plain(100 * value, 1, '')} {'%' if result.check.side == 'after' else 'points'}"


def duration(seconds: float) -> str:
    """Seconds as `3.2 s`, `45 s`, `2:05` or `1:02:05`."""
    if seconds < _SMALL:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    hours, rest = divmod(whole, _HOUR)
    minutes, rest = divmod(rest, _MINUTE)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Bytes as `312 MB` or `1.4 GB` (powers of ten)."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"  # noqa: PLR2004 - the units themselves


_DECIMALS: dict[Unit, int] = {"rate": 1, "words": 1, "nats/token": 4, "nats": 3, "times": 2}


def _rounded(value: float, unit: Unit) -> float:
    return round(100 * value if unit == "rate" else value, _DECIMALS[unit])


def _plain(value: float, decimals: int, sign: str) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"
