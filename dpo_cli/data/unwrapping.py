"""Values that a file wraps: messages written as text, an answer in a list of one or in an object."""

from __future__ import annotations

from typing import Any, Final

from dpo_cli.data.literals import literal
from dpo_cli.data.messages import is_message, is_messages, messages_in

Row = dict[str, Any]

ANSWER_TEXTS: Final = (
    "response",
    "answer",
    "completion",
    "text",
    "content",
    "output",
    "value",
    "generated_text",
)
"""Where an object holds the text of an answer."""

LISTS: Final = ("completions", "answers", "responses", "outputs", "candidates", "generations")
"""Columns that may hold a list of answers."""

SCORES: Final = ("overall_score", "score", "rating", "reward", "scores", "ratings", "rewards")
RANKS: Final = ("rank", "ranking", "ranks", "rankings")
"""Where a score (higher is better) or a rank (lower is better) stands: in an answer, or in a list beside the answers."""

_MAY_BE_LISTS: Final = frozenset((*LISTS, *SCORES, *RANKS, "output", "history"))


def first_answers(row: Row) -> Row:
    """A row whose `chosen` or `rejected` are lists of answers, with the first of each."""
    return row | {name: row[name][0] for name in ("chosen", "rejected") if is_list_of_answers(row[name])}


def is_list_of_answers(value: object) -> bool:
    """Whether a value is a list of texts or of conversations."""
    return (
        isinstance(value, list)
        and bool(value)
        and (all(isinstance(item, str) for item in value) or all(map(is_messages, value)))
    )


def unwrapped(row: Row) -> Row:
    """A row whose values are what layouts know, where a file wraps them.

    Messages and lists written as text become what they are: those of `chosen` and `rejected` only together, since a single one may be an answer
    in JSON. A list of one answer, or an object with its text, becomes that answer.

    Raises:
        RowProblem: `unreadable row` for messages that are nested too deeply.
    """
    changed = {
        name: found
        for name, value in row.items()
        if isinstance(value, str) and value and (found := _value_in(value, name)) is not None
    }
    if ("chosen" in changed) is not ("rejected" in changed):
        changed.pop("chosen", None)
        changed.pop("rejected", None)
    for name in ("chosen", "rejected"):
        value = row.get(name)
        if isinstance(value, list) and len(value) == 1 and is_list_of_answers(value):
            changed[name] = value[0]
        elif isinstance(value, dict) and not is_message(value):
            text = next((value[key] for key in ANSWER_TEXTS if isinstance(value.get(key), str)), None)
            if text is not None:
                changed[name] = text
    return {**row, **changed} if changed else row


def _value_in(text: str, name: str) -> Any:  # noqa: ANN401 - messages, or the list of a column that may hold one
    """What a text holds that is more than text; None when it is only that."""
    found = messages_in(text, name)
    if found is None and name in _MAY_BE_LISTS and text.lstrip()[:1] in {"[", "a"}:
        value = literal(text, name)
        return value if isinstance(value, list) else None
    return found
