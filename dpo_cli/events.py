"""What training says while it runs: plain frozen records, passed to one callable.

The trainer emits, `report` draws, `training.alarms` listens. A record carries values and no text layout,
so that a live view, a log line, a test and a notebook can read the same stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class RunStarted:
    """Training is about to take its first step.

    Attributes:
        total_steps: Optimizer steps planned.
        pairs: Preference pairs in the training set; 0 for a stream, which does not know.
        pairs_per_step: Pairs behind one optimizer step (batch x accumulation x devices).
        engine: Name of the engine that computes log-probabilities.
        device: Device name as torch spells it.
        dtype: What is multiplied in, as torch spells it; the weights themselves stay in fp32.
        note: One sentence worth telling (a preset, for example); empty when there is none.
    """

    total_steps: int
    pairs: int
    pairs_per_step: int
    engine: str = ""
    device: str = ""
    dtype: str = ""
    note: str = ""


@dataclass(frozen=True)
class Stage:
    """A named part of a job started or finished; `seconds` is set when it finished."""

    name: str
    state: Literal["started", "finished"]
    seconds: float | None = None


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of a stage are done."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Noted:
    """A sentence worth a line, such as the accounting of rows before training."""

    message: str


@dataclass(frozen=True)
class StepLogged:
    """The trainer logged an optimizer step.

    Attributes:
        step: Optimizer steps taken; 0 is the state before the first update.
        total_steps: Optimizer steps planned.
        epoch: Passes over the training set, fractional.
        seconds: Wall-clock seconds since training started.
        metrics: TRL's metric names (`loss`, `rewards/chosen`, `rewards/rejected`, `rewards/accuracies`,
            `rewards/margins`, `logps/chosen`, `logps/rejected`, `grad_norm`, `learning_rate`, ...).
        pairs_seen: Pairs trained on so far.
        tokens_seen: Tokens trained on so far.
        peak_memory_bytes: Highest memory so far (device memory on an accelerator, resident set on CPU).
    """

    step: int
    total_steps: int
    epoch: float
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    pairs_seen: int = 0
    tokens_seen: int = 0
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class ProbeAnswered:
    """The model, as it is at this step, answered a probe question (greedy)."""

    step: int
    question: str
    answer: str


@dataclass(frozen=True)
class DevAsked:
    """The model, as it is at this step, answered the dev questions (`training.learning`).

    Attributes:
        step: Optimizer steps taken.
        metrics: `dev/name`, `dev/claims` and `dev/changed`, each from 0 to 1.
    """

    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """The held-out pairs were scored at this step (TRL's `eval_*` metric names)."""

    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Warned:
    """Something looks wrong.

    Attributes:
        name: The alarm's short name, a row of `training.alarms.ALARMS`.
        message: What is seen, in plain words with figures.
        advice: What to change, naming the setting.
        step: Optimizer step at which it was seen.
        collapse: The model is being ruined: `stop_on_collapse` ends the run on it.
    """

    name: str
    message: str
    advice: str
    step: int
    collapse: bool = False


@dataclass(frozen=True)
class RunFinished:
    """Training ended.

    Attributes:
        steps: Optimizer steps taken.
        seconds: Wall-clock seconds.
        metrics: Final metrics.
        stopped_early: Why the run ended before its last step; None when it did not.
    """

    steps: int
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    stopped_early: str | None = None


Event = (
    RunStarted
    | Stage
    | Progress
    | Noted
    | StepLogged
    | ProbeAnswered
    | DevAsked
    | Evaluated
    | Warned
    | RunFinished
)
"""Anything the trainer can say."""

OnEvent = Callable[[Event], None]
"""Where events go; `ignore` when nobody listens."""


OnProgress = Callable[[int, int], None]
"""Called with how much of a stage is done, and how much there is; whoever listens knows the stage."""


def ignore(event: Event) -> None:
    """Take an event and do nothing with it."""
    del event
