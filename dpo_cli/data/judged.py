"""From a raw row to a pair where a row holds answers and a judgement: who is better, scores, or a ranking.

Two answers whose judgement is a draw are no pair. Of more than two, the best is set against the worst.
"""

from __future__ import annotations

from typing import Any, Final

from dpo_cli.data.extras import extras_of
from dpo_cli.data.layouts import (
    ASKED,
    column,
    left_out_answers,
    prompt_of,
    split_conversations,
)
from dpo_cli.data.messages import completion_of, conversation_of, kind
from dpo_cli.data.pairs import COLUMNS_LEFT_OUT, NON_TEXT, TIE, Note, Pair, RowProblem
from dpo_cli.data.unwrapping import ANSWER_TEXTS, LISTS, RANKS, SCORES, Row

HELPSTEER_FIRST: Final = ("response_1", "response1")
HELPSTEER_SECOND: Final = ("response_2", "response2")
STRENGTHS: Final = ("preference_strength", "overall_preference")

FIRST: Final = ("response_a", "answer_a", "output_a", "completion_a", "response_A", "answer_A")
SECOND: Final = ("response_b", "answer_b", "output_b", "completion_b", "response_B", "answer_B")
WINNERS: Final = ("winner", "preference", "preferred", "better", "choice", "label", "winner_model_a")


def number(value: object) -> float | None:
    """A number, or one written as text (CSV has no other); None for anything else."""
    if isinstance(value, bool | int | float):
        return float(value)
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _number(row: Row, *names: str) -> float:
    value = column(row, *names)
    found = number(value)
    if found is None or found != found:  # noqa: PLR0124 - NaN prefers nothing
        name = next(name for name in names if name in row)
        raise RowProblem(NON_TEXT, f"{name} is {kind(value)}, not a number", name)
    return found


def _pair(row: Row, prompt: Any, answers: tuple[str, str], better: float) -> Pair:  # noqa: ANN401 - messages
    """The pair of two answer columns.

    Args:
        row: The row.
        prompt: Its prompt, messages.
        answers: Two columns.
        better: Above 0 when the first is better, below when the second is.
    """
    if not better:
        raise RowProblem(TIE, f"neither {answers[0]} nor {answers[1]} is preferred")
    chosen, rejected = answers if better > 0 else answers[::-1]
    return Pair(
        prompt,
        completion_of(column(row, chosen), chosen),
        completion_of(column(row, rejected), rejected),
        **extras_of(row),
    )


def safe_rlhf(row: Row) -> Pair:
    """PKU-SafeRLHF: `response_0`, `response_1`, and the number of the better one in `better_response_id`."""
    names = [name for name in ("better_response_id", "safer_response_id") if name in row]
    better = _number(row, *names or ("better_response_id",))
    if better not in {0, 1}:
        raise RowProblem(TIE, f"{names[0]} is neither 0 nor 1", names[0])
    pair = _pair(row, prompt_of(row, *ASKED), ("response_0", "response_1"), 0.5 - better)
    if len(names) > 1 and number(row[names[1]]) != better:
        note: Note = (COLUMNS_LEFT_OUT, "'safer_response_id' prefers the other answer")
        return Pair(pair.prompt, pair.chosen, pair.rejected, pair.tools, pair.template_kwargs, (note,))
    return pair


def shp(row: Row) -> Pair:
    """SHP: a post in `history`, two comments, and `labels`, 1 when the first is preferred."""
    return _pair(row, prompt_of(row, "history"), ("human_ref_A", "human_ref_B"), _number(row, "labels") - 0.5)


def webgpt(row: Row) -> Pair:
    """WebGPT comparisons: `question`, `answer_0` and `answer_1`, each with a score."""
    better = _number(row, "score_0") - _number(row, "score_1")
    return _pair(row, prompt_of(row, *ASKED), ("answer_0", "answer_1"), better)


def helpsteer(row: Row) -> Pair:
    """HelpSteer preferences: two responses, and a strength from -3 (the first is better) to 3 (the second is)."""
    names = tuple(next(name for name in pair if name in row) for pair in (HELPSTEER_FIRST, HELPSTEER_SECOND))
    return _pair(row, prompt_of(row, *ASKED, "context"), (names[0], names[1]), -_number(row, *STRENGTHS))


def arena(row: Row) -> Pair:
    """Chatbot Arena: two conversations or two responses, and who won."""
    if "conversation_a" not in row:
        names = tuple(next(name for name in pair if name in row) for pair in (FIRST, SECOND))
        return _pair(row, prompt_of(row, *ASKED), (names[0], names[1]), _winner(row))
    better = _winner(row)
    if not better:
        raise RowProblem(TIE, "neither conversation is preferred")
    sides = [conversation_of(column(row, name), name) for name in ("conversation_a", "conversation_b")]
    return split_conversations(row, *(sides if better > 0 else sides[::-1]))


def _winner(row: Row) -> float:
    """Above 0 when the first won, below when the second did, 0 for a draw."""
    if "winner_model_a" in row:
        return _number(row, "winner_model_a") - _number(row, "winner_model_b")
    name = next(name for name in WINNERS if name in row)
    value = row[name]
    word = value.strip().casefold() if isinstance(value, str) else ""
    side = (
        word.removeprefix("model_")
        .removeprefix("response_")
        .removeprefix("answer_")
        .removeprefix("assistant_")
    )
    if side in {"a", "b"}:
        return 1.0 if side == "a" else -1.0
    if "tie" in word or "both" in word or word in {"draw", "none", "neither", "same"}:
        return 0.0
    raise RowProblem(NON_TEXT, f"{name} names neither answer a nor answer b", name)


def ranked(row: Row) -> Pair:
    """A list of answers with scores or ranks, in each answer or in a list beside them (UltraFeedback, Nectar, NeMo)."""
    answers = column(row, *LISTS)
    name = next(name for name in LISTS if name in row)
    worths = [_worth(row, answer, index) for index, answer in enumerate(answers)]
    judged = [(worth, -index) for index, worth in enumerate(worths) if worth is not None]
    if len(judged) < 2:  # noqa: PLR2004 - a pair
        raise RowProblem(NON_TEXT, f"{name} has fewer than two answers with a score or a rank", name)
    (best, first), (worst, last) = max(judged), min(judged)
    if best == worst:
        raise RowProblem(TIE, f"all answers in {name} have the same score or rank", name)
    return Pair(
        prompt_of(row, *ASKED, "context"),
        _answer(answers[-first], f"{name}[{-first}]"),
        _answer(answers[-last], f"{name}[{-last}]"),
        **extras_of(row),
        notes=left_out_answers(len(answers) - 2),
    )


def _worth(row: Row, answer: object, index: int) -> float | None:
    """How good an answer is; None when nothing is said of it."""
    for names, sign in ((SCORES, 1), (RANKS, -1)):
        for name in names:
            beside = row.get(name)
            value = answer.get(name) if isinstance(answer, dict) else None
            if value is None and isinstance(beside, list) and index < len(beside):
                value = beside[index]
            found = number(value)
            if found is not None and found == found:  # noqa: PLR0124 - NaN is no score
                return sign * found
    return None


def _answer(value: Any, key: str) -> list[dict[str, Any]]:  # noqa: ANN401 - whatever the list holds
    if isinstance(value, dict) and "role" not in value:
        name = next((name for name in ANSWER_TEXTS if name in value), "response")
        return completion_of(value.get(name), f"{key}.{name}")
    return completion_of(value, key)


def is_judged(row: Row) -> bool:
    """Whether a row with a list of answers has a score or a rank for two of them."""
    answers = next((row[name] for name in LISTS if name in row), None)
    if not isinstance(answers, list):
        return False
    return sum(_worth(row, answer, index) is not None for index, answer in enumerate(answers)) > 1


def is_single_answers(row: Row) -> bool:
    """Whether a row is one answer with a label whether it is good, as KTO takes them."""
    return (
        "label" in row
        and ("completion" in row or "response" in row)
        and "prompt" in row
        and not {"chosen", "rejected"} & row.keys()
    )
