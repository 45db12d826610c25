"""Damage that shows without expected answers: what each model makes of the other's ordinary answers, and their form.

Ordinary answers are those to questions that are not about identity. Every figure is measured on both models, on the
same questions. Two of them need the models themselves:

- *unlikely*: minus the log-probability per token that the model before gives an answer. Its own answers are the
  yardstick; gibberish, another language or one answer for everything are far from it.
- *forgotten*: the same of the answers of the model before, as the model after sees them.

The others are read off the text, see `form_rows`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from dpo_cli.evaluation.divergence import Continuation, token_log_probs, unlikeliness
from dpo_cli.evaluation.intervals import ratio_interval
from dpo_cli.evaluation.scores import IDENTITY, Score, ScoreRow, lone_row, paired_row
from dpo_cli.text.words import repetition, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from dpo_cli.evaluation.examination import Examination
    from dpo_cli.evaluation.scores import Answer


def read_back(
    model: PreTrainedModel, before: Examination, after: Examination, *, batch_size: int = 32
) -> Examination:
    """Let the model before read what the model after said to ordinary questions, after the prompts of its own answers.

    Args:
        model: The model before.
        before: Its examination.
        after: The examination of the model after.
        batch_size: Answers in one forward pass at most.

    Returns:
        `after` with what was found; as it was where the two do not read the same tokens.
    """
    from dpo_cli.models.positions import positions_in

    if not before.own or not before.is_read_by(after.vocabulary):
        return after
    prompts = {one.row: one.prompt for one in before.said if one.group != IDENTITY}
    limit = positions_in(model)
    # A renamed chat template may have made the other prompt shorter.
    read = [
        Continuation(prompt, tokens, one.group, one.row)
        for one in after.said
        if (prompt := prompts.get(one.row)) is not None
        and (tokens := one.tokens if limit is None else one.tokens[: limit - len(prompt)])
    ]
    return replace(after, unlikely=unlikeliness(read, token_log_probs(model, read, batch_size=batch_size)))


def likelihood_rows(before: Examination, after: Examination) -> list[ScoreRow]:
    """What each model makes of the other's ordinary answers, in nats per token; nothing where that was not read."""
    ordinary = [one for one in before.own if one.continuation.group != IDENTITY]
    own = unlikeliness([one.continuation for one in ordinary], [one.said for one in ordinary])
    rows = []
    for name, label, found in (
        ("unlikely", "Answers unlikely to the model before", after.unlikely),
        ("forgotten", "Former answers unlikely to the model", after.forgotten),
    ):
        if both := [row for row in own if row in found]:
            values = [own[row] for row in both], [found[row] for row in both]
            rows.append(paired_row(name, label, "lower", "nats/token", values))
    return rows


def form_rows(before: Sequence[Answer], after: Sequence[Answer]) -> list[ScoreRow]:
    """The form of ordinary answers: repeated phrases, answers cut off, one answer to several questions, length.

    The last one compares words in all: 2 is twice as long as before. Questions that the model before answered without
    a word are left out of it.

    Args:
        before: Answers of the model before.
        after: Answers of the model after, to the same questions in the same order.
    """
    old, new = ([one for one in answers if one.question.group != IDENTITY] for answers in (before, after))
    if not old:
        return []
    rows = [
        paired_row(name, label, "lower", "rate", (values(old), values(new)))
        for name, label, values in (
            ("repetition_other", "Repeated phrases, other questions", _repetitions),
            ("cut_off_other", "Cut-off answers, other questions", _cut_off),
            ("same_answer", "Same answer to several questions", _same),
        )
    ]
    lengths = [
        (len(words(one.answer)), len(words(other.answer))) for one, other in zip(old, new, strict=True)
    ]
    counted = [(float(first), float(second)) for first, second in lengths if first]
    if counted:
        first, second = zip(*counted, strict=True)
        value, interval = sum(second) / sum(first), ratio_interval(second, first)
        row = Score(
            "longer", "Length, as a multiple of before", value, len(counted), interval, "none", "times"
        )
        rows.append(lone_row(row))
    return rows


def _repetitions(answers: Sequence[Answer]) -> list[float]:
    return [repetition(one.answer) for one in answers]


def _cut_off(answers: Sequence[Answer]) -> list[float]:
    return [float(one.truncated) for one in answers]


def _same(answers: Sequence[Answer]) -> list[float]:
    """1 for an answer that is also given to another question, told apart by its text."""
    given = Counter(answer for _, answer in {(one.question.text, _plain(one)) for one in answers})
    return [float(given[_plain(one)] > 1) for one in answers]


def _plain(answer: Answer) -> str:
    return " ".join(words(answer.answer))
