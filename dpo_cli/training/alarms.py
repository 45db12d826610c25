"""What looks wrong while training: one row an alarm, each a pure function of what has been said so far.

Every alarm sounds once a run. Thresholds are set so that a run that will end well is never interrupted
and a ruined one is named within its first tenth; docs/reading-a-run.md says what each means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING

from dpo_cli.events import Evaluated, ProbeAnswered, RunFinished, StepLogged, Warned
from dpo_cli.text.words import repetition, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dpo_cli.events import Event

LOSS_AT_START = {
    "sigmoid": math.log(2),  # -log sigmoid(0), whatever the label smoothing
    "robust": math.log(2),
    "hinge": 1.0,  # relu(1 - 0)
    "nca_pair": 2 * math.log(2),  # log 2 + log 2 / 2 + log 2 / 2
}
"""The loss while policy and reference are the same model, by TRL's name, where it is one number."""

_LOSS_OFF = 0.05  # well above what bfloat16 rounds, well below what another model gives
_REWARD_OFF = 0.1
_ZERO_MARGIN = 1e-4  # what two summations of the same numbers may differ by, times beta
_FLAT_MARGIN = 0.02
_FLAT_ACCURACY = 0.55
_FEW_LOGS = 2
_SOME_LOGS = 5
_SUNK_NATS, _SUNK_SHARE = 5.0, 0.5
_HIGH_MARGIN = 30.0  # sigmoid(30) is 1 in float32: nothing is learnt there
_RUINED_LOSS = 3.0
_HIGH_NORM, _NORM_JUMP = 1e4, 100.0
_REPEATING, _NOT_REPEATING, _FEW_WORDS = 0.5, 0.25, 8
_EVAL_RISE = 0.05


@dataclass
class RunLog:
    """What has been said so far.

    Attributes:
        loss_type: TRL's names of the losses that are summed.
        beta: Of the implicit reward; None when unknown.
        scaled_loss: The loss is scaled for fp16.
        steps: Every logged step.
        probes: Every probe answer; the first one at step 0 is the model before training.
        evaluations: Every evaluation on held-out pairs.
    """

    loss_type: tuple[str, ...]
    beta: float | None
    scaled_loss: bool = False
    steps: list[StepLogged] = field(default_factory=list)
    probes: list[ProbeAnswered] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)

    def add(self, event: Event) -> int | None:
        """Remember an event that alarms look at; the step it belongs to, or None for any other."""
        if isinstance(event, StepLogged):
            self.steps.append(event)
        elif isinstance(event, ProbeAnswered):
            self.probes.append(event)
        elif isinstance(event, Evaluated):
            self.evaluations.append(event)
        else:
            return None
        return event.step

    def figures(self, name: str, last: int | None = None) -> list[float]:
        """The values of a metric, oldest first; only those of the `last` logged steps if given."""
        steps = self.steps if last is None else self.steps[-last:]
        return [step.metrics[name] for step in steps if name in step.metrics]


@dataclass(frozen=True)
class Alarm:
    """A row of `ALARMS`.

    Attributes:
        name: Short name, as in `Warned`.
        watch: What is seen, in words, or None while nothing is wrong.
        advice: What to change.
        collapse: The model is being ruined; `--stop-on-collapse` ends the run.
    """

    name: str
    watch: Callable[[RunLog], str | None]
    advice: str
    collapse: bool = False


class Alarms:
    """Listens to events and says what is wrong: call it with an event, get the warnings it raises.

    Args:
        loss_type: TRL's names of the losses, for the check of the first step.
        beta: Of the implicit reward, to tell rewards in nats; some alarms are silent without.
        scaled_loss: The loss is scaled for fp16, so that a gradient may overflow without harm.
    """

    def __init__(
        self,
        loss_type: Iterable[str] = ("sigmoid",),
        *,
        beta: float | None = None,
        scaled_loss: bool = False,
    ) -> None:
        self._seen = RunLog(tuple(loss_type), beta, scaled_loss)
        self._silent = {alarm.name: alarm for alarm in ALARMS}

    def __call__(self, event: Event) -> list[Warned]:
        """Take an event; give the warnings it raises, none twice a run."""
        if isinstance(event, RunFinished):
            return []
        step = self._seen.add(event)
        if step is None:
            return []
        warnings = []
        for name, alarm in list(self._silent.items()):
            message = alarm.watch(self._seen)
            if message is not None:
                del self._silent[name]
                warnings.append(Warned(name, message, alarm.advice, step, alarm.collapse))
        return warnings


def not_finite(figures: Mapping[str, float], *, scaled_loss: bool) -> list[str]:
    """Names of figures that are infinite or no number, and must not be.

    Args:
        figures: Of one logged step.
        scaled_loss: The loss is scaled for fp16: where its gradient overflows, the step is left out and the scale
            lowered, and nothing is ruined.
    """
    bad = [name for name, value in figures.items() if not math.isfinite(value)]
    return [] if scaled_loss and bad == ["grad_norm"] else bad


def _not_finite(seen: RunLog) -> str | None:
    if not seen.steps:
        return None
    latest = seen.steps[-1]
    bad = not_finite(latest.metrics, scaled_loss=seen.scaled_loss)
    return (
        f"Step {latest.step}: {bad[0]} is {latest.metrics[bad[0]]}; the weights are ruined." if bad else None
    )


def _wrong_reference(seen: RunLog) -> str | None:
    """Before the first update the policy is the reference: rewards are 0, and the loss is a known number."""
    if len(seen.steps) != 1 or seen.steps[0].step > 1:
        return None
    metrics = seen.steps[0].metrics
    rewards = [metrics.get("rewards/chosen", 0.0), metrics.get("rewards/rejected", 0.0)]
    if max(map(abs, rewards)) > _REWARD_OFF:
        return (
            f"Before the first update the rewards are {rewards[0]:.2f} (chosen) and {rewards[1]:.2f} (rejected), "
            "not 0: the reference is not the model being trained."
        )
    expected = LOSS_AT_START.get(seen.loss_type[0]) if len(seen.loss_type) == 1 else None
    loss = metrics.get("loss")
    if expected is not None and loss is not None and abs(loss - expected) > _LOSS_OFF:
        return (
            f"Before the first update the loss is {loss:.3f}, not {expected:.3f}: "
            "policy and reference do not agree on the pairs."
        )
    return None


def _nothing_to_learn(seen: RunLog) -> str | None:
    margins = [
        abs(step.metrics["rewards/margins"])
        for step in seen.steps
        if step.step > 1 and "rewards/margins" in step.metrics
    ]
    latest = seen.steps[-1] if seen.steps else None
    if latest is None or len(margins) < _FEW_LOGS or latest.step < latest.total_steps / 20:
        return None
    if max(margins) < _ZERO_MARGIN:
        return (
            "Chosen and rejected get the same reward at every step: there is nothing to learn in these pairs."
        )
    accuracies = seen.figures("rewards/accuracies", _SOME_LOGS)
    late = latest.step >= latest.total_steps / 2 and len(margins) >= _SOME_LOGS
    if (
        late
        and fmean(margins[-_SOME_LOGS:]) < _FLAT_MARGIN
        and accuracies
        and fmean(accuracies) <= _FLAT_ACCURACY
    ):
        return (
            f"Half of the run is over, but the accuracy is still {fmean(accuracies):.2f} with a margin of "
            f"{fmean(margins[-_SOME_LOGS:]):.3f}: the model is not learning to tell these pairs apart."
        )
    return None


def _ruined(seen: RunLog) -> str | None:
    """The loss is far above where it began: a step was so large that the model is gone."""
    losses = seen.figures("loss")
    if len(losses) < _FEW_LOGS or not losses[-1] > _RUINED_LOSS * max(losses[0], 1.0):
        return None  # a loss that is no number is another alarm
    return (
        f"The loss has risen from {losses[0]:.2f} to {losses[-1]:.2f}: the updates are destroying the model."
    )


def _both_falling(seen: RunLog) -> str | None:
    """Chosen completions lose so much probability that the model no longer says them either.

    Razin et al. (2024), "Unintentional unalignment: likelihood displacement in direct preference optimization".
    """
    if seen.beta is None or len(seen.steps) < _FEW_LOGS:
        return None
    for step in seen.steps[-_FEW_LOGS:]:
        metrics = step.metrics
        if not {"rewards/chosen", "rewards/rejected", "logps/chosen"} <= metrics.keys():
            return None
        sunk = -metrics["rewards/chosen"] / seen.beta
        reference = -(metrics["logps/chosen"] + sunk)
        if metrics["rewards/rejected"] > 0 or sunk < max(_SUNK_NATS, _SUNK_SHARE * reference):
            return None
    return (
        f"Both rewards fall together: the chosen completions have lost {sunk:.0f} nats, from {-reference:.0f} to "
        f"{metrics['logps/chosen']:.0f}; the model unlearns them along with the rejected ones."
    )


def _margin_exploding(seen: RunLog) -> str | None:
    margins = seen.figures("rewards/margins", _FEW_LOGS)
    if len(margins) < _FEW_LOGS or min(map(abs, margins)) < _HIGH_MARGIN:
        return None
    return (
        f"The reward margin is {margins[-1]:.0f}: the loss is saturated, and further updates have no effect."
    )


def _gradient_norm(seen: RunLog) -> str | None:
    norms = seen.figures("grad_norm")
    if not norms or not math.isfinite(norms[-1]):
        return None  # a norm that is no number is another alarm
    if norms[-1] > _HIGH_NORM:
        return f"The gradient norm is {norms[-1]:.3g}."
    usual = [norm for norm in norms[:-1] if math.isfinite(norm)]
    if len(usual) >= _SOME_LOGS and norms[-1] > _NORM_JUMP * max(1.0, median(usual)):
        return f"The gradient norm jumped to {norms[-1]:.3g}, from {median(usual):.3g} before."
    return None


def _repeats(text: str) -> bool:
    return len(words(text)) >= _FEW_WORDS and repetition(text, 2) > _REPEATING


def _repetition(seen: RunLog) -> str | None:
    """The probe answer goes round in circles, and did not before training."""
    if (
        len(seen.probes) < _FEW_LOGS
        or seen.probes[0].step > 0
        or repetition(seen.probes[0].answer, 2) > _NOT_REPEATING
    ):
        return None
    if not _repeats(seen.probes[-1].answer):
        return None
    share = repetition(seen.probes[-1].answer, 2)
    return f"The answer to the probe question repeats itself ({share:.0%} of its word pairs are repeats)."


def _silence(seen: RunLog) -> str | None:
    """The model has stopped to answer, and did answer before training."""
    if len(seen.probes) < _FEW_LOGS or seen.probes[0].step > 0 or not seen.probes[0].answer.strip():
        return None
    return (
        None if words(seen.probes[-1].answer) else "The answer to the probe question no longer has any words."
    )


def _overfitting(seen: RunLog) -> str | None:
    losses = [one.metrics["eval_loss"] for one in seen.evaluations if "eval_loss" in one.metrics]
    if len(losses) <= _FEW_LOGS or min(losses[-_FEW_LOGS:]) < min(losses) + _EVAL_RISE:
        return None
    return f"The loss on held-out pairs has risen from {min(losses):.3f} to {losses[-1]:.3f}: the model is overfitting."


_SLOWER = "Lower --learning-rate, or raise --beta, which keeps the model closer to the reference."

ALARMS: tuple[Alarm, ...] = (
    Alarm("not_finite", _not_finite, "Lower --learning-rate, or use --dtype float32.", collapse=True),
    Alarm(
        "wrong_reference",
        _wrong_reference,
        "Pass no reference model, so that the model before training is used, and set --lora-dropout 0; "
        "a cached reference must come from the same model, template and max length.",
    ),
    Alarm(
        "nothing_to_learn",
        _nothing_to_learn,
        "Look at the pairs with `dpo check`: are chosen and rejected different after truncation to --max-length? "
        "If they are, raise --learning-rate or --num-train-epochs.",
    ),
    Alarm("ruined", _ruined, "Lower --learning-rate by a factor of ten or more.", collapse=True),
    Alarm(
        "both_falling",
        _both_falling,
        f"{_SLOWER} Adding the SFT loss (--loss-type sigmoid --loss-type sft) keeps the chosen completions likely.",
    ),
    Alarm("margin_exploding", _margin_exploding, f"{_SLOWER} Fewer --num-train-epochs may also help."),
    Alarm(
        "gradient_norm",
        _gradient_norm,
        "Lower --learning-rate, add --warmup-steps, or lower --max-grad-norm.",
    ),
    Alarm("repetition", _repetition, _SLOWER, collapse=True),
    Alarm("silence", _silence, _SLOWER, collapse=True),
    Alarm(
        "overfitting", _overfitting, "Use fewer --num-train-epochs, a lower --learning-rate, or more pairs."
    ),
)
"""Every alarm, in the order in which they are looked at. A new alarm is a new row."""
