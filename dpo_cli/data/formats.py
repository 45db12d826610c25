"""The layouts in which people keep preference data: one pure function and one row of `FORMATS` each.

To add one: write a function from a raw row (a dict) to a `Pair`, and add a row to `FORMATS` that
says by which columns it is recognised. The order of the table is the order of detection, most
particular first. An example row belongs on `docs/data.md`; the tests read it from there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dpo_cli.data import judged, layouts
from dpo_cli.data.layouts import PROMPT_NAMES
from dpo_cli.data.messages import is_messages, kind
from dpo_cli.data.pairs import UNREADABLE, Pair, RowProblem
from dpo_cli.data.shapes import (
    ANSWERS,
    EXAMPLES,
    INPUT,
    MESSAGE,
    MESSAGES,
    NUMBER,
    OBJECTS,
    PROMPT_LIKE,
    QUESTION,
    TEXT,
    Format,
)
from dpo_cli.data.transcripts import is_transcript
from dpo_cli.data.unwrapping import LISTS, Row, first_answers, is_list_of_answers

if TYPE_CHECKING:
    from collections.abc import Iterable


def _asks(row: Row) -> bool:
    """A `prompt` alone is TRL's own plain text, so the question of an Orca pair has another name."""
    return any(name in row for name in ("question", "query", "input"))


def _continues(row: Row) -> bool:
    """`messages` beside `prompt` repeats the chosen conversation (UltraFeedback); a prompt ends with the user."""
    if "conversations" in row:
        return True
    last = row["messages"][-1]
    return "prompt" not in row and last.get("role", last.get("from")) not in {"assistant", "gpt"}


def _is_transcript(row: Row) -> bool:
    start = row.get("prompt", "")
    return is_transcript(row["chosen"]) or (isinstance(start, str) and is_transcript(start + row["chosen"]))


def _begins_with_messages(row: Row) -> bool:
    if "prompt" in row:
        return is_messages(row["prompt"])
    if isinstance(row["chosen"], str) or isinstance(row["rejected"], str):
        return False
    turns = row.get("conversations", row.get("messages"))
    return not (is_messages(turns) and _continues(row))


def _is_plain(row: Row) -> bool:
    if "prompt" in row:
        return isinstance(row["prompt"], str)
    return not PROMPT_NAMES & row.keys() and layouts.shared_beginning(row["chosen"], row["rejected"]) > 0


def _is_several(row: Row) -> bool:
    """Lists of answers, and a layout for the first of each."""
    if not any(is_list_of_answers(row[name]) for name in ("chosen", "rejected")):
        return False
    return recognise(first_answers(row)) is not None


def several(row: Row) -> Pair:
    """Several answers in `rejected` or `chosen`: the first of each, in the layout that they have then."""
    first = first_answers(row)
    layout = recognise(first)
    if layout is None:
        raise RowProblem(UNREADABLE, "with one answer for chosen and rejected, it fits no known layout")
    pair = layout.read(first)
    return replace(pair, notes=(*pair.notes, *layouts.left_out_answers(1)))


_COMPLETION: Final = (MESSAGE, MESSAGES, TEXT)
_BOTH_TEXT: Final[dict[tuple[str, ...], tuple[str, ...]]] = {("chosen",): (TEXT,), ("rejected",): (TEXT,)}

_ASKED: Final = (TEXT, MESSAGES)

FORMATS: Final[dict[str, Format]] = {
    row.name: row
    for row in (
        Format(
            "openai-preference",
            "OpenAI preference fine-tuning",
            {
                ("input",): (INPUT,),
                ("preferred_output",): _COMPLETION,
                ("non_preferred_output",): _COMPLETION,
            },
            layouts.openai,
        ),
        Format(
            "anthropic-hh",
            "Anthropic HH transcripts",
            _BOTH_TEXT,
            layouts.transcripts,
            _is_transcript,
            more=("prompt",),
        ),
        Format(
            "trl-conversational",
            "TRL conversational",
            {("chosen",): _COMPLETION, ("rejected",): _COMPLETION},
            layouts.conversational,
            _begins_with_messages,
            more=("prompt",),
        ),
        Format(
            "trl-standard",
            "TRL standard",
            _BOTH_TEXT,
            layouts.standard,
            _is_plain,
            more=("prompt",),
            with_system="orca-pairs",
        ),
        Format(
            "sharegpt-ranking",
            "ShareGPT ranking",
            {
                ("conversations", "messages"): (MESSAGES,),
                ("chosen",): _COMPLETION,
                ("rejected",): _COMPLETION,
            },
            layouts.sharegpt,
            _continues,
            more=("system",),
        ),
        Format(
            "alpaca-ranking",
            "Alpaca ranking",
            {("instruction",): (TEXT,), **_BOTH_TEXT},
            layouts.alpaca,
            more=("input", "system", "history"),
        ),
        Format(
            "orca-pairs",
            "Orca pairs",
            {layouts.QUESTIONS: (TEXT,), **_BOTH_TEXT},
            layouts.question,
            _asks,
            more=("system",),
        ),
        Format(
            "ultrafeedback-binarized",
            "UltraFeedback-binarized",
            {("prompt",): (TEXT,), ("chosen",): (MESSAGES, MESSAGE), ("rejected",): (MESSAGES, MESSAGE)},
            layouts.ultrafeedback,
            more=("system",),
        ),
        Format(
            "several-answers",
            "Several answers",
            {("chosen",): (*_COMPLETION, ANSWERS), ("rejected",): (*_COMPLETION, ANSWERS)},
            several,
            _is_several,
            more=tuple(PROMPT_LIKE),
        ),
        Format(
            "message-pairs",
            "Pairs of conversations",
            {("chosen_messages",): (MESSAGES,), ("rejected_messages",): (MESSAGES,)},
            layouts.two_conversations,
        ),
        Format(
            "named-answers",
            "Answers under other names",
            {layouts.ASKED: _ASKED, layouts.CHOSEN: _COMPLETION, layouts.REJECTED: _COMPLETION},
            layouts.named_answers,
            more=("input", "system"),
        ),
        Format(
            "ms-swift",
            "ms-swift",
            {
                ("messages",): (MESSAGES,),
                ("rejected_messages", "rejected_response"): _COMPLETION,
            },
            layouts.swift,
            more=("system",),
        ),
        Format(
            "ms-swift-query",
            "ms-swift, older files",
            {("query",): (TEXT,), ("response",): (TEXT,), ("rejected_response",): (TEXT,)},
            layouts.swift_query,
            more=("system", "history"),
        ),
        Format(
            "llamafactory-output",
            "LLaMA-Factory, older files",
            {("instruction",): (TEXT,), ("output",): (ANSWERS,)},
            layouts.listed_answers,
            more=("input", "system", "history"),
        ),
        Format(
            "pku-saferlhf",
            "PKU-SafeRLHF",
            {
                layouts.ASKED: _ASKED,
                ("response_0",): _COMPLETION,
                ("response_1",): _COMPLETION,
                ("better_response_id", "safer_response_id"): (NUMBER,),
            },
            judged.safe_rlhf,
            more=("system",),
        ),
        Format(
            "shp",
            "SHP",
            {
                ("history",): (TEXT,),
                ("human_ref_A",): (TEXT,),
                ("human_ref_B",): (TEXT,),
                ("labels",): (NUMBER,),
            },
            judged.shp,
        ),
        Format(
            "webgpt",
            "WebGPT comparisons",
            {
                layouts.ASKED: (*_ASKED, QUESTION),
                ("answer_0",): _COMPLETION,
                ("answer_1",): _COMPLETION,
                ("score_0",): (NUMBER,),
                ("score_1",): (NUMBER,),
            },
            judged.webgpt,
        ),
        Format(
            "helpsteer-preference",
            "HelpSteer preferences",
            {
                (*layouts.ASKED, "context"): _ASKED,
                judged.HELPSTEER_FIRST: _COMPLETION,
                judged.HELPSTEER_SECOND: _COMPLETION,
                judged.STRENGTHS: (NUMBER,),
            },
            judged.helpsteer,
        ),
        Format(
            "arena",
            "Chatbot Arena",
            {
                ("conversation_a", *judged.FIRST): _COMPLETION,
                ("conversation_b", *judged.SECOND): _COMPLETION,
                judged.WINNERS: (TEXT, NUMBER),
            },
            judged.arena,
            more=(*layouts.ASKED, "system"),
        ),
        Format(
            "ranked-answers",
            "Ranked or scored answers",
            {(*layouts.ASKED, "context"): _ASKED, LISTS: (ANSWERS, OBJECTS)},
            judged.ranked,
            judged.is_judged,
            more=("system",),
        ),
    )
}


def recognise(row: Row) -> Format | None:
    """The first format of the table that a row fits with its columns and their shapes."""
    return next((layout for layout in FORMATS.values() if layout.recognises(row)), None)


def detect(rows: Iterable[Row], *, system_named: bool = False) -> Format | None:
    """The format of a data set, from its first rows.

    The first row that fits a format decides. Where none does, a row that has the columns and only wrong
    values (null, a number) decides, so that the values are complained about and not the layout.

    Args:
        rows: The first rows, columns already renamed.
        system_named: The user said which column holds the system text, so plain text is a question and answers.

    Returns:
        The format, or None when no row has the columns of any.
    """
    rows = list(rows)
    found = _detect(rows)
    return FORMATS[found.with_system] if found is not None and system_named and found.with_system else found


def _detect(rows: list[Row]) -> Format | None:
    for row in rows:
        found = recognise(row)
        if found is not None:
            return found
    for row in rows:
        if any(name in row and kind(row[name]) in _WRONG for name in ("chosen", "rejected", "prompt")):
            found = next((layout for layout in FORMATS.values() if _but_for_wrong(layout, row)), None)
            if found is not None:
                return found
    return None


_WRONG: Final = frozenset({"null", "a number", "true or false", "an empty list", "an empty object"})


def _but_for_wrong(layout: Format, row: Row) -> bool:
    """Whether a row would fit a layout if its wrong values had the shapes that the layout wants."""
    if not layout.has_columns(row):
        return False
    fixed = dict(row)
    for names, shapes in layout.columns.items():
        for name in names:
            if name in row and kind(row[name]) in _WRONG:
                fixed[name] = EXAMPLES[shapes[0]]
    return layout.recognises(fixed)


def nearest(row: Row) -> tuple[Format, list[str]]:
    """The format of which a row has the most columns, and what it lacks."""
    layout = max(FORMATS.values(), key=lambda one: len(one.columns) - len(one.missing(row)))
    return layout, layout.missing(row) or ["a `prompt` column"]
