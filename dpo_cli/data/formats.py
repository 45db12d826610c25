"""The layouts in which people keep preference data: one pure function and one row of `FORMATS` each.

To add one: write a function from a raw row (a dict) to a `Pair`, and add a row to `FORMATS` that
says by which columns it is recognised. The order of the table is the order of detection, most
particular first. An example row belongs on `docs/data.md`; the tests read it from there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data import judged, layouts
from dpo_cli.data.extras import refuse_media
from dpo_cli.data.layouts import PROMPT_NAMES, Row
from dpo_cli.data.messages import is_message, is_messages, kind
from dpo_cli.data.pairs import COLUMNS_LEFT_OUT, UNREADABLE, Pair, RowProblem
from dpo_cli.data.transcripts import is_transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TEXT: Final = "text"
MESSAGES: Final = "a list of messages"
MESSAGE: Final = "a message"
INPUT: Final = "an object with messages"
QUESTION: Final = "an object with a text"
ANSWERS: Final = "a list of answers"
OBJECTS: Final = "a list of objects"
NUMBER: Final = "a number"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_input(value: object) -> bool:
    return isinstance(value, dict) and is_messages(value.get("messages"))


def _is_question(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("full_text"), str)


def _is_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _is_number(value: object) -> bool:
    return judged.number(value) is not None


_SHAPES: Final[dict[str, Callable[[object], bool]]] = {
    TEXT: _is_text,
    MESSAGES: is_messages,
    MESSAGE: is_message,
    INPUT: _is_input,
    QUESTION: _is_question,
    ANSWERS: layouts.is_list_of_answers,
    OBJECTS: _is_objects,
    NUMBER: _is_number,
}


def _always(_row: Row) -> bool:
    return True


_PROMPT_LIKE: Final = PROMPT_NAMES | {
    "prompt",
    "full_prompt",
    "formatted_prompt",
    "system",
    "system_prompt",
    "history",
}


def _may_be_prompt(name: str, value: Any) -> bool:  # noqa: ANN401 - whatever the file holds
    """Whether a value says something that could be meant to be trained on."""
    if name == "messages" and is_messages(value):  # UltraFeedback repeats the chosen conversation in it
        last = value[-1]
        return last.get("role", last.get("from")) not in {"assistant", "gpt"}
    return bool(value) and (not isinstance(value, str) or bool(value.strip()))


@dataclass(frozen=True, eq=False)
class Format:
    """One layout.

    Attributes:
        name: What `--format` and `data.json` call it.
        title: What people call it.
        columns: Alternatives for each needed column, e.g. `("question", "prompt")`, with the shapes it may have.
        convert: From a raw row to a pair; raises `RowProblem` for a row with a wrong value.
        fits: A further condition on a row that has the columns.
        more: Further columns that `convert` reads where they are there.
        with_system: The layout of the same row when the user names a column with the system text.
    """

    name: str
    title: str
    columns: Mapping[tuple[str, ...], tuple[str, ...]]
    convert: Callable[[Row], Pair]
    fits: Callable[[Row], bool] = _always
    more: tuple[str, ...] = ()
    with_system: str = ""

    def read(self, row: Row, *, system_named: bool = False) -> Pair:
        """The pair of a row, with a note for each column that could be meant for the prompt and is not read.

        Args:
            row: The row, its columns already renamed.
            system_named: The user said which column holds the system text: it goes before a conversation of any layout.

        Raises:
            RowProblem: A wrong value, or pictures and sound that only text is left of.
        """
        refuse_media(row)
        pair = self.convert(row)
        unread = [name for name in self._unread(tuple(row)) if _may_be_prompt(name, row[name])]
        if system_named and "system" not in self.more and isinstance(pair.prompt, list):
            pair = replace(pair, prompt=layouts.with_system(row, pair.prompt))
            unread = [name for name in unread if name != "system"]
        if not unread:
            return pair
        note = COLUMNS_LEFT_OUT, ", ".join(map(repr, unread))
        return replace(pair, notes=(*pair.notes, note))

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - formats live as long as the program
    def _unread(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Columns of a row that are named as if they were a prompt, and are not read."""
        read = {*self.more, *(next((name for name in group if name in names), "") for group in self.columns)}
        return tuple(name for name in names if name in _PROMPT_LIKE and name not in read)

    def missing(self, row: Row) -> list[str]:
        """What a row lacks to be of this layout, in words; empty when it has it all."""
        lacks = []
        for names, shapes in self.columns.items():
            present = [name for name in names if name in row]
            wanted = " or ".join(shapes)
            if not present:
                lacks.append(f"a column {' or '.join(map(repr, names))} with {wanted}")
            elif not any(_SHAPES[shape](row[name]) for name in present for shape in shapes):
                lacks.append(f"{present[0]!r} as {wanted} (it is {kind(row[present[0]])})")
        return lacks

    def recognises(self, row: Row) -> bool:
        """Whether a row has this layout: its columns, their shapes, and what else tells it from the others."""
        return not self.missing(row) and self.fits(row)

    def has_columns(self, row: Row) -> bool:
        """Whether a row has the columns of this layout, whatever their values."""
        return all(any(name in row for name in names) for names in self.columns)


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
    if not any(layouts.is_list_of_answers(row[name]) for name in ("chosen", "rejected")):
        return False
    return recognise(layouts.first_answers(row)) is not None


def several(row: Row) -> Pair:
    """Several answers in `rejected` or `chosen`: the first of each, in the layout that they have then."""
    first = layouts.first_answers(row)
    layout = recognise(first)
    if layout is None:
        raise RowProblem(UNREADABLE, "with one answer for chosen and rejected, it is in no known layout")
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
            more=tuple(_PROMPT_LIKE),
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
            {(*layouts.ASKED, "context"): _ASKED, judged.LISTS: (ANSWERS, OBJECTS)},
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
                fixed[name] = _EXAMPLE_OF_SHAPE[shapes[0]]
    return layout.recognises(fixed)


_EXAMPLE_OF_SHAPE: Final[dict[str, Any]] = {
    TEXT: "text",
    MESSAGES: [{"role": "user", "content": "text"}],
    MESSAGE: {"role": "assistant", "content": "text"},
    INPUT: {"messages": [{"role": "user", "content": "text"}]},
    QUESTION: {"full_text": "text"},
    ANSWERS: ["text", "other"],
    OBJECTS: [{}],
    NUMBER: 1,
}


def nearest(row: Row) -> tuple[Format, list[str]]:
    """The format of which a row has the most columns, and what it lacks."""
    layout = max(FORMATS.values(), key=lambda one: len(one.columns) - len(one.missing(row)))
    return layout, layout.missing(row) or ["a `prompt` column"]
