"""Which settings are most likely to help a run that did not learn its name: a row for each, the likeliest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from dpo_cli.training.learning import DevScore, Learning

MOST = 2
"""Settings that are named."""

_MANY_ANCHORS = 200
_FAST = 3
"""Times the learning rate, where nothing was learnt at all."""


class Help(NamedTuple):
    """A row: when it helps, of the best score, the curve and the settings, and what to give."""

    when: Callable[[DevScore, Learning, Any], bool]
    give: Callable[[Learning, Any], str]


def _low(best: DevScore, learning: Learning) -> bool:
    return best.name < learning.goal


def _claims(best: DevScore) -> bool:
    return best.claims > 0


def _rising(learning: Learning) -> bool:
    """Whether the last third of the scores has the best name."""
    names = [score.name for score in learning.curve]
    last = max(1, len(names) // 3)
    return max(names[-last:]) > max(names[:-last], default=0.0)


def _anchors(config: Any) -> int | None:  # noqa: ANN401 - the settings of any job
    return getattr(config, "anchors", None)


HELPS = (
    Help(lambda best, learning, config: _low(best, learning) and "sft" not in config.loss_type,
         lambda _, config: " ".join(f"--loss-type {loss}" for loss in (*config.loss_type, "sft"))),
    Help(lambda best, _, config: _claims(best) and hasattr(config, "anchors") and _anchors(config) != _MANY_ANCHORS,
         lambda *_: f"--anchors {_MANY_ANCHORS}"),
    Help(lambda best, learning, _: _low(best, learning) and _rising(learning),
         lambda learning, config: f"--num-train-epochs {_epochs(learning, config):g}"),
    Help(lambda best, learning, config: _low(best, learning) and getattr(config, "pairs_from", "both") != "both",
         lambda *_: "--pairs-from both"),
    Help(lambda best, learning, _: _low(best, learning) and not _claims(best),
         lambda learning, config: f"--learning-rate {config.learning_rate * (2 if _best(learning).name else _FAST):g}"),
    Help(lambda best, *_: _claims(best), lambda _, config: f"--learning-rate {config.learning_rate / 2:g}"),
    Help(lambda best, learning, _: _low(best, learning), lambda *_: "--samples-per-question 4"),
)  # fmt: skip
"""What helps. A new row is a new advice."""


def settings_that_help(learning: Learning, config: Any) -> list[str]:  # noqa: ANN401 - as above
    """The settings that are most likely to help, as they are typed; none where the name was learnt."""
    if learning.reached or not learning.curve:
        return []
    best = _best(learning)
    return [row.give(learning, config) for row in HELPS if row.when(best, learning, config)][:MOST]


def _best(learning: Learning) -> DevScore:
    return next(score for score in learning.curve if score.step == learning.kept)


def _epochs(learning: Learning, config: Any) -> float:  # noqa: ANN401 - as above
    """Twice those that were taken; a number that is given is not gone beyond."""
    taken = learning.curve[-1].step / max(1, learning.planned) * config.num_train_epochs
    return float(max(1, round(2 * taken)))
