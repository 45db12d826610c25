"""Hold what two models said side by side: scores with intervals, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.errors import DataError
from dpo_cli.evaluation.damage import form_rows, likelihood_rows
from dpo_cli.evaluation.implicit_rewards import PairLogProbs, reward_margins, reward_rows
from dpo_cli.evaluation.json_values import scores_json
from dpo_cli.evaluation.scores import Answer, Rename, ScoreRow, lone_row, score_answers
from dpo_cli.evaluation.verdict import DEFAULT_THRESHOLDS, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dpo_cli.evaluation.examination import Examination
    from dpo_cli.text.questions import Question


@dataclass(frozen=True)
class Margins:
    """Log-probability margins of the held-out pairs in nats, and the implicit reward margins between the two.

    `left_out` is how many further pairs had nothing to score.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]
    rewards: tuple[float, ...]
    beta: float
    left_out: int = 0


@dataclass(frozen=True)
class Comparison:
    """Two models, the same questions.

    Attributes:
        before: Name of the model before.
        after: Name of the model after.
        answers: Both answers to each question, before first.
        scores: The scorecard.
        verdict: The checks; None where none applies.
        margins: Margins of held-out pairs; None without pairs.
        names: The names that were looked for, if any.
        same_tokens: Whether both read the same tokens; else each reads the pairs in its own, and no divergence can be
            measured.
    """

    before: str
    after: str
    answers: tuple[tuple[Answer, Answer], ...]
    scores: tuple[ScoreRow, ...]
    verdict: Verdict | None
    margins: Margins | None = None
    names: Rename | None = None
    same_tokens: bool = True

    def to_json(self) -> dict[str, Any]:
        """The document that `dpo compare --json` prints; the same models and questions give the same bytes."""
        return {
            "before": {"model": self.before},
            "after": {"model": self.after},
            "questions": [
                {
                    "question": old.question.text,
                    "group": old.question.group,
                    **_asked_with(old.question),
                    "before": {"answer": old.answer},
                    "after": {"answer": new.answer},
                }
                for old, new in self.answers
            ],
            "scores": scores_json(self.scores),
            "verdict": self.verdict.to_json() if self.verdict else None,
        }


def _asked_with(question: Question) -> dict[str, str]:
    """The system prompt of a question that has its own."""
    return {} if question.system_prompt is None else {"system_prompt": question.system_prompt}


def compare_examinations(
    before: Examination,
    after: Examination,
    *,
    names: Rename | None = None,
    beta: float = 0.2,
    thresholds: Mapping[str, float] = DEFAULT_THRESHOLDS,
) -> Comparison:
    """Score two examinations against each other and judge the result.

    Args:
        before: Of the model before.
        after: Of the model after, examined with `before`.
        names: Old and new name, for the identity scores.
        beta: Beta of the implicit reward.
        thresholds: Of the verdict; see `verdict.CHECKS`.
    """
    rows = score_answers(before.answers, after.answers, names)
    if names is not None:  # only of a model that is renamed is it said that nothing else changes
        rows += [*form_rows(before.answers, after.answers), *likelihood_rows(before, after)]
    rows += [lone_row(score) for score in after.divergence]
    old, new, left_out = _scored_by_both(before, after)
    rows += reward_rows(old, new, beta)
    margins = None
    if old:
        margins = Margins(
            tuple(one.margin for one in old),
            tuple(one.margin for one in new),
            tuple(reward_margins(old, new, beta)),
            beta,
            left_out,
        )
    answers = tuple(zip(before.answers, after.answers, strict=True))
    return Comparison(
        before.model,
        after.model,
        answers,
        tuple(rows),
        judge(rows, thresholds),
        margins,
        names,
        same_tokens=before.is_read_by(after.vocabulary),
    )


def _scored_by_both(
    before: Examination, after: Examination
) -> tuple[list[PairLogProbs], list[PairLogProbs], int]:
    """What each model gives the pairs that both can score, and how many pairs are left out."""
    old, new = (
        {tokens.row: given for tokens, given in zip(one.pair_tokens, one.pair_log_probs, strict=True)}
        for one in (before, after)
    )
    both = [row for row in old if row in new]
    if old and not both:
        raise DataError(
            "no held-out pair can be scored by both models: each pair is too long for the tokenizer of at least one of them",
            hint="Give a larger --max-length.",
        )
    left_out = before.pairs_left_out + len(old) - len(both)
    return [old[row] for row in both], [new[row] for row in both], left_out
