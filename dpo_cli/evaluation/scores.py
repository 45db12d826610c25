"""What is measured of answers: one row a score, pure functions, no model in sight.

A row looks at one answer and says a number, or None where it does not apply to that question. From the
numbers follow the score of each model, with n and interval, and the paired difference between the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dpo_cli.evaluation.intervals import Interval, difference_interval, mean_interval
from dpo_cli.rates import rate_interval
from dpo_cli.text.grading import grade
from dpo_cli.text.names import contains_name, doubled, leaks
from dpo_cli.text.words import repetition, words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dpo_cli.text.questions import AskedWith, Question

IDENTITY = "identity"
"""Group of questions about who the model is."""
THIRD_PARTY = "third-party"
"""Group of questions about models and makers as facts, where the old name is the right word."""

Better = Literal["higher", "lower", "none"]
Unit = Literal["rate", "words", "nats/token", "nats", "times"]


@dataclass(frozen=True)
class Answer:
    """What a model said to a question.

    Attributes:
        question: The question.
        answer: Its text without special tokens.
        truncated: Cut off at the longest answer allowed.
        thinking: What the model thought before it answered; it is not scored.
    """

    question: Question
    answer: str
    truncated: bool = False
    thinking: str = ""

    @property
    def cut_while_thinking(self) -> bool:
        """Whether it was cut off before the answer began."""
        return self.truncated and bool(self.thinking) and not self.answer


@dataclass(frozen=True)
class Rename:
    """The name a model had, and the one it was to take."""

    old: str
    new: str


@dataclass(frozen=True)
class Score:
    """A figure of one model, or of one model against another.

    Attributes:
        name: The row's short name, as in `--json`.
        label: The row's name in words.
        value: The figure.
        n: Questions (or pairs) it was measured on.
        interval: 95 % interval; None where there is none (n = 1).
        better: Which way is good.
        unit: What the value counts.
    """

    name: str
    label: str
    value: float
    n: int
    interval: Interval | None
    better: Better
    unit: Unit = "rate"


@dataclass(frozen=True)
class ScoreRow:
    """One line of the scorecard.

    Attributes:
        name: As in `Score`.
        label: As in `Score`.
        better: As in `Score`.
        unit: As in `Score`.
        before: The score of the model before; None where a score compares the two.
        after: The score of the model after, or of the two against each other.
        difference: after minus before over the same questions, with its paired interval; None as above.
    """

    name: str
    label: str
    better: Better
    unit: Unit
    before: Score | None
    after: Score
    difference: Score | None


@dataclass(frozen=True)
class Measure:
    """A row of the table of scores: what one answer says."""

    name: str
    label: str
    better: Better
    unit: Unit
    of: Callable[[Answer, Rename | None], float | None]


def _new_name(kind: AskedWith) -> Callable[[Answer, Rename | None], float | None]:
    """Whether an answer under this kind of system prompt says the new name."""

    def of(answer: Answer, names: Rename | None) -> float | None:
        asked = answer.question
        if names is None or asked.group != IDENTITY or asked.asked_with != kind:
            return None
        return float(contains_name(answer.answer, names.new))

    return of


def _leak(answer: Answer, names: Rename | None) -> float | None:
    if names is None or answer.question.group != IDENTITY:
        return None
    return float(leaks(answer.answer, names.old, names.new))


def _doubled(answer: Answer, names: Rename | None) -> float | None:
    if names is None or answer.question.group != IDENTITY:
        return None
    return float(doubled(answer.answer, names.old, names.new))


def _claims(answer: Answer, names: Rename | None) -> float | None:
    """The new name in an answer to a question that neither asks for it nor says it."""
    if names is None or answer.question.group == IDENTITY:
        return None
    if any(contains_name(answer.question.text, name) for name in (names.old, names.new)):
        return None
    return float(contains_name(answer.answer, names.new))


def _right(answer: Answer, names: Rename | None) -> float | None:
    del names
    if answer.question.group in (IDENTITY, THIRD_PARTY) or not answer.question.answers:
        return None
    return float(is_right(answer))


def _third_party(answer: Answer, names: Rename | None) -> float | None:
    del names
    if answer.question.group != THIRD_PARTY or not answer.question.answers:
        return None
    return float(is_right(answer))


def is_right(answer: Answer) -> bool:
    """Whether the answer gives one of those expected, see `dpo_cli.text.grading`."""
    return grade(answer.answer, answer.question.text, answer.question.answers).right


MEASURES: tuple[Measure, ...] = (
    Measure("new_name", "Says the new name", "higher", "rate", _new_name("default")),
    Measure("new_name_none", "... without system prompt", "higher", "rate", _new_name("none")),
    Measure("new_name_renamed", "... with the template's own", "higher", "rate", _new_name("renamed")),
    Measure("new_name_other", "... with other system prompts", "higher", "rate", _new_name("other")),
    Measure("old_name", "Leaks the old name", "lower", "rate", _leak),
    Measure("doubled_name", "Doubles the new name", "lower", "rate", _doubled),
    Measure("claims", "Claims the name on other questions", "lower", "rate", _claims),
    Measure("right", "Expected answers right", "higher", "rate", _right),
    Measure("third_party", "Facts about others right", "higher", "rate", _third_party),
    Measure("repetition", "Repeated phrases", "lower", "rate", lambda answer, _: repetition(answer.answer)),
    Measure("cut_off", "Cut-off answers", "lower", "rate", lambda answer, _: float(answer.truncated)),
    Measure(
        "length", "Length of answers", "none", "words", lambda answer, _: float(len(words(answer.answer)))
    ),
)
"""The scorecard, in its order. A new score is a new row."""


def score_answers(
    before: Sequence[Answer], after: Sequence[Answer], names: Rename | None = None
) -> list[ScoreRow]:
    """Score two models' answers to the same questions, row by row of `MEASURES`.

    Args:
        before: Answers of the model before.
        after: Answers of the model after, to the same questions in the same order.
        names: The old and the new name; rows that need them are left out without.

    Raises:
        ValueError: The two did not answer the same questions.
    """
    if [one.question for one in before] != [one.question for one in after]:
        raise ValueError("before and after must answer the same questions in the same order")
    rows = [row for measure in MEASURES if (row := _row(measure, before, after, names)) is not None]
    return [*rows, *_unchanged(before, after)]


def score(measure: Measure, answers: Sequence[Answer], names: Rename | None = None) -> Score | None:
    """One model's score in one row; None where no question has to do with it."""
    values = [value for one in answers if (value := measure.of(one, names)) is not None]
    if not values:
        return None
    return summarise(measure.name, measure.label, measure.better, measure.unit, values)


def summarise(name: str, label: str, better: Better, unit: Unit, values: Sequence[float]) -> Score:
    """A mean with its interval: Wilson's where every value is 0 or 1, the bootstrap's otherwise.

    Values of a ruined model can be infinite or no numbers; their mean is told as it is, without interval.
    """
    mean = sum(values) / len(values)
    counted = all(value in (0, 1) for value in values) and unit == "rate"
    interval: Interval | None = None
    if counted:
        interval = rate_interval(int(sum(values)), len(values))
    elif math.isfinite(mean):
        interval = mean_interval(values)
    return Score(name, label, mean, len(values), interval, better, unit)


def paired_row(
    name: str, label: str, better: Better, unit: Unit, values: tuple[Sequence[float], Sequence[float]]
) -> ScoreRow:
    """A row of the scorecard from two models' values, before and after, on the same questions."""
    before, after = values
    old = summarise(name, label, better, unit, before)
    new = summarise(name, label, better, unit, after)
    change = new.value - old.value
    interval = difference_interval(before, after) if math.isfinite(change) else None
    return ScoreRow(
        name, label, better, unit, old, new, Score(name, label, change, new.n, interval, better, unit)
    )


def lone_row(value: Score) -> ScoreRow:
    """A row of the scorecard for a score that compares the two models by itself."""
    return ScoreRow(value.name, value.label, value.better, value.unit, None, value, None)


def _row(
    measure: Measure, before: Sequence[Answer], after: Sequence[Answer], names: Rename | None
) -> ScoreRow | None:
    pairs = [(measure.of(old, names), measure.of(new, names)) for old, new in zip(before, after, strict=True)]
    # Whether a row applies depends on the question alone, so both values are there or neither.
    both = [(old, new) for old, new in pairs if old is not None and new is not None]
    if not both:
        return None
    values = [old for old, _ in both], [new for _, new in both]
    return paired_row(measure.name, measure.label, measure.better, measure.unit, values)


def _unchanged(before: Sequence[Answer], after: Sequence[Answer]) -> list[ScoreRow]:
    """How many answers are the same to the letter, on questions that are not about identity and on all."""
    same = [float(old.answer == new.answer) for old, new in zip(before, after, strict=True)]
    other = [value for value, one in zip(same, before, strict=True) if one.question.group != IDENTITY]
    rows = [("unchanged", "Unchanged answers", same)]
    if other and len(other) < len(same):
        rows.append(("unchanged_other", "Unchanged answers, other questions", other))
    return [
        lone_row(summarise(name, label, "none", "rate", values)) for name, label, values in rows if values
    ]
