"""Training until a name is learnt: dev questions are asked as it goes, and the best weights are kept.

The rule, name first, then damage: of two states the one whose answers say the new name more often is better, as far
as the goal asks; then the one that says it less often where it does not belong; then, in tenths, the one whose ordinary
answers kept more of their words. Of equals the later one is kept, which has practised more.

The learning rate does not fall towards an end that nobody knows yet: recipes for names hold it after the warm-up, and a
schedule that falls is laid out over the longest run there can be.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from transformers import TrainerCallback

from dpo_cli.events import DevAsked, OnEvent
from dpo_cli.models.generate import generate
from dpo_cli.run_folder.folder import LEARNT
from dpo_cli.text.names import contains_name, doubled, leaks
from dpo_cli.text.words import words
from dpo_cli.training.callbacks import load_weights, save_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

    from dpo_cli.config import OptimizationConfig
    from dpo_cli.models.generate import Message

LONGEST = 3
"""A run takes at most so many times the epochs that were planned."""

TIMES_ASKED = 8
"""How often dev questions are asked in the planned epochs."""

HELD = 2
"""The goal is reached when it held so many times running; so many times without progress end what goes on."""

ANSWER_TOKENS = 24
"""Longest answer: a name comes in the first words."""


@dataclass(frozen=True)
class DevQuestions:
    """What is asked while training, and what the answers should say.

    Attributes:
        identity: Questions about who the model is, as conversations, by the kind of system prompt they have.
        ordinary: Questions that have nothing to do with its name, as conversations.
        old: The name that it had.
        new: The name that it should say.
        goal: Fraction of identity answers that should say the new name and nothing else.
        most_claims: Fraction of ordinary answers that may say it.
    """

    identity: Mapping[str, Sequence[Sequence[Message]]]
    ordinary: Sequence[Sequence[Message]]
    old: str
    new: str
    goal: float
    most_claims: float


@dataclass(frozen=True)
class DevScore:
    """What the dev questions said of the weights after a step.

    Attributes:
        step: Optimizer steps taken.
        name: Fraction of identity answers with the new name, not doubled, without the old one; under the system prompt
            where they are fewest.
        claims: Fraction of ordinary answers with the new name, of those that had neither name before training.
        changed: How much of the words of ordinary answers was exchanged, from 0 to 1.
    """

    step: int
    name: float
    claims: float
    changed: float

    def rank(self, goal: float) -> tuple[float, float, float]:
        """Higher is better."""
        return min(self.name, goal), -self.claims, -round(self.changed, 1)

    def holds(self, dev: DevQuestions) -> bool:
        """Whether this is what is wanted."""
        return self.name >= dev.goal and self.claims <= dev.most_claims


@dataclass(frozen=True)
class Learning:
    """How a name was learnt.

    Attributes:
        curve: Every score, the first one from before training.
        kept: The step whose weights the run ended with.
        planned: Steps that were planned.
        goal: Fraction of identity answers that should say the name.
        reached: Whether the goal held as often as is asked.
        advice: Settings that are most likely to help where it was not reached.
    """

    curve: list[DevScore] = field(default_factory=list)
    kept: int = 0
    planned: int = 0
    goal: float = 0.0
    reached: bool = False
    advice: list[str] = field(default_factory=list)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Learning:
        """From what `asdict` gave, read back from JSON."""
        return cls(**(dict(record) | {"curve": [DevScore(**score) for score in record["curve"]]}))

    def sentence(self) -> str:
        """The outcome in a line or two."""
        best = next(score for score in self.curve if score.step == self.kept)
        said = f"{best.name:.0%} of the dev questions are answered with the new name, {best.claims:.0%} of the ordinary ones"
        steps = f"step {self.curve[-1].step}, {self.planned} were planned"
        if self.reached:
            return f"The goal was reached at {steps}: {said}. The weights of step {self.kept} were kept."
        help_ = f" Most likely to help: {', '.join(self.advice)}." if self.advice else ""
        return f"The goal of {self.goal:.0%} was not reached at {steps}: {said}. The weights of step {self.kept} were kept.{help_}"


class LearningCallback(TrainerCallback):
    """Asks the dev questions as training goes, ends it or lets it go on, and keeps the best weights.

    Args:
        on_event: Where scores go.
        tokenizer: The model's tokenizer.
        dev: The questions.
        history: The run's records, to which scores are added.
        folder: Where the best weights are kept meanwhile.

    Attributes:
        curve: The scores so far.
    """

    def __init__(
        self,
        on_event: OnEvent,
        tokenizer: PreTrainedTokenizerBase,
        dev: DevQuestions,
        history: list[dict[str, float]],
        folder: Path,
    ) -> None:
        self.on_event, self.tokenizer, self.dev, self.history = on_event, tokenizer, dev, history
        self.curve: list[DevScore] = []
        self.planned = 0
        self._end = 0
        self._limit = 0
        self._before: list[str] = []
        self._best: DevScore | None = None
        self._file = folder / LEARNT

    def __enter__(self) -> Self:
        """Keep weights from now on."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the weights that were kept meanwhile; after a failure they stay."""
        if error is None:
            self._file.unlink(missing_ok=True)

    @property
    def ended(self) -> bool:
        """Whether the goal has held as often as is asked."""
        held = self.curve[-HELD:]
        return len(held) == HELD and all(score.step and score.holds(self.dev) for score in held)

    def files(self) -> list[Path]:
        """The weights that a checkpoint needs besides its own."""
        return [self._file] if self._file.exists() else []

    def state(self) -> dict[str, Any]:
        """What was seen so far."""
        return {
            "curve": [asdict(score) for score in self.curve],
            "before": self._before,
            "best": None if self._best is None else self._best.step,
            "end": self._end,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what another process has seen."""
        self.curve[:] = [DevScore(**score) for score in state["curve"]]
        self._before = list(state["before"])
        self._best = next((score for score in self.curve if score.step == state["best"]), None)
        self._end = state["end"]

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Set the planned end."""
        del args, control
        self._limit = state.max_steps
        self.planned = -(-state.max_steps // LONGEST)
        state.max_steps = self._end = max(self._end, self.planned)

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,  # noqa: ANN401 - a model or a PeftModel
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Ask before the first update: what later answers are compared with."""
        del args, control
        if not self.curve:
            self._ask(model, state.global_step)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,  # noqa: ANN401 - a model or a PeftModel
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Ask, and end the run or let it go on."""
        del args
        between = max(1, self.planned // TIMES_ASKED)
        if state.global_step % between and state.global_step < self._end:
            return
        score = self._ask(model, state.global_step)
        if self._best is None or score.rank(self.dev.goal) >= self._best.rank(self.dev.goal):
            save_weights(model, self._file)
            self._best = score
        if self.ended:
            control.should_training_stop = True
        elif state.global_step >= self._end and self._end < self._limit and self._gets_better():
            state.max_steps = self._end = min(self._limit, self._end + between)
            control.should_training_stop = False

    def restore(self, model: Any, *, put_back: bool) -> Learning:  # noqa: ANN401 - a model or a PeftModel
        """Say how it went.

        Args:
            model: The policy.
            put_back: Give it the best weights; else it has got others from somebody who knows more.
        """
        kept = self._best if put_back and self._best is not None else self.curve[-1]
        if kept.step != self.curve[-1].step:
            load_weights(model, self._file)
        return Learning(self.curve, kept.step, self.planned, self.dev.goal, self.ended)

    def _gets_better(self) -> bool:
        """Whether one of the last scores is better than all before it, by the rule without its last part."""
        ranks = [score.rank(self.dev.goal)[:2] for score in self.curve]
        return max(ranks[-HELD:]) > max(ranks[:-HELD], default=(-1.0, 0.0)) or self.curve[-1].holds(self.dev)

    def _ask(self, model: Any, step: int) -> DevScore:  # noqa: ANN401 - as above
        dev = self.dev
        asked = [one for conversations in dev.identity.values() for one in conversations]
        answers = [
            one.text
            for one in generate(
                model, self.tokenizer, [*asked, *dev.ordinary], max_new_tokens=ANSWER_TOKENS, batch_size=64
            )
        ]
        said, ordinary = answers[: len(asked)], answers[len(asked) :]
        self._before = self._before or ordinary
        claims, changed = self._claims(ordinary), self._changed(ordinary)
        score = DevScore(step, self._lowest_rate(said), claims, changed)
        self.curve.append(score)
        figures = {"dev/name": score.name, "dev/claims": score.claims, "dev/changed": score.changed}
        self.history.append({"step": step, **figures})
        self.on_event(DevAsked(step, figures))
        return score

    def _lowest_rate(self, answers: Sequence[str]) -> float:
        rates, start = [], 0
        for conversations in self.dev.identity.values():
            part = answers[start : start + len(conversations)]
            rates.append(sum(map(self._says_it, part)) / len(part))
            start += len(part)
        return min(rates)

    def _says_it(self, answer: str) -> bool:
        old, new = self.dev.old, self.dev.new
        return contains_name(answer, new) and not leaks(answer, old, new) and not doubled(answer, old, new)

    def _claims(self, answers: Sequence[str]) -> float:
        new = self.dev.new
        nameless = [
            now
            for then, now in zip(self._before, answers, strict=True)
            if not contains_name(then, self.dev.old) and not contains_name(then, new)
        ]
        return sum(contains_name(now, new) for now in nameless) / max(1, len(nameless))

    def _changed(self, answers: Sequence[str]) -> float:
        shares = [_exchanged(old, new) for old, new in zip(self._before, answers, strict=True)]
        return sum(shares) / len(shares)


def laid_out(config: OptimizationConfig) -> OptimizationConfig:
    """The settings with room for the longest run; the warm-up stays as long as in the planned one."""
    longer: dict[str, Any] = {"num_train_epochs": config.num_train_epochs * LONGEST}
    if config.max_steps is not None:
        longer["max_steps"] = config.max_steps * LONGEST
    if config.warmup_ratio is not None:
        longer["warmup_ratio"] = config.warmup_ratio / LONGEST
    elif config.warmup_steps < 1:
        longer["warmup_steps"] = config.warmup_steps / LONGEST
    return config.model_copy(update=longer)


def _exchanged(old: str, new: str) -> float:
    """The share of two answers' words that only one of them has."""
    before, after = set(words(old.casefold())), set(words(new.casefold()))
    return 1 - len(before & after) / len(before | after) if before | after else 0.0
