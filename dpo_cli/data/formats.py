"""The layouts in which people keep preference data: one pure function and one row of `FORMATS` each.

To add one: write a function from a raw row (a dict) to a `Pair`, and add a row to `FORMATS` that
says by which columns it is recognised. The order of the table is the order of detection, most
particular first. An example row belongs on `docs/data.md`; the tests read it from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.messages import (
    completion_of,
    conversation_of,
    is_message,
    is_messages,
    is_transcript,
    kind,
    text_of,
    tools_of,
    transcript_of,
)
from dpo_cli.data.pairs import NON_TEXT, ROLE_ORDER, UNREADABLE, Message, Pair, RowProblem
from dpo_cli.errors import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Row = dict[str, Any]

TEXT: Final = "text"
MESSAGES: Final = "a list of messages"
MESSAGE: Final = "a message"
INPUT: Final = "an object with messages"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_input(value: object) -> bool:
    return isinstance(value, dict) and is_messages(value.get("messages"))


_SHAPES: Final[dict[str, Callable[[object], bool]]] = {
    TEXT: _is_text,
    MESSAGES: is_messages,
    MESSAGE: is_message,
    INPUT: _is_input,
}


def _always(_row: Row) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Format:
    """One layout.

    Attributes:
        name: What `--format` and `data.json` call it.
        title: What people call it.
        columns: Alternatives for each needed column, e.g. `("question", "prompt")`, with the shapes it may have.
        convert: From a raw row to a pair; raises `RowProblem` for a row with a wrong value.
        fits: A further condition on a row that has the columns.
    """

    name: str
    title: str
    columns: Mapping[tuple[str, ...], tuple[str, ...]]
    convert: Callable[[Row], Pair]
    fits: Callable[[Row], bool] = _always

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


def _column(row: Row, *names: str) -> Any:  # noqa: ANN401 - whatever the file holds
    for name in names:
        if name in row:
            return row[name]
    needed = " or ".join(map(repr, names))
    raise RowProblem(UNREADABLE, f"no column {needed}; it has {listed(map(repr, row)) or 'none'}", names[0])


def _question(row: Row, question: str) -> list[Message]:
    """A one-turn prompt, with the row's system text before it where there is some."""
    system = row.get("system")
    start: list[Message] = []
    if system is not None and text_of(system, "system").strip():
        start = [{"role": "system", "content": system}]
    return [*start, {"role": "user", "content": question}]


def _with_system(row: Row, prompt: list[Message]) -> list[Message]:
    system = row.get("system")
    if system is None or not text_of(system, "system").strip() or (prompt and prompt[0]["role"] == "system"):
        return prompt
    return [{"role": "system", "content": system}, *prompt]


def _shared_prefix(chosen: list[Message], rejected: list[Message]) -> int:
    """How many messages both begin with; each keeps at least its last (`trl.data_utils.extract_prompt`)."""
    most = min(len(chosen), len(rejected)) - 1
    return next((index for index in range(max(most, 0)) if chosen[index] != rejected[index]), max(most, 0))


def _split_conversations(chosen: list[Message], rejected: list[Message], tools: list[Any] | None) -> Pair:
    cut = _shared_prefix(chosen, rejected)
    return Pair(chosen[:cut], chosen[cut:], rejected[cut:], tools)


def standard(row: Row) -> Pair:
    """TRL standard: `chosen` and `rejected` are strings; without `prompt`, it is what both begin with.

    The shared beginning is cut as `trl.data_utils.extract_prompt` does: before the first difference,
    and before a space that stands there.
    """
    chosen = text_of(_column(row, "chosen"), "chosen")
    rejected = text_of(_column(row, "rejected"), "rejected")
    if "prompt" in row:
        return Pair(text_of(row["prompt"], "prompt"), chosen, rejected)
    if chosen == rejected:
        return Pair("", chosen, rejected)
    cut = _shared_beginning(chosen, rejected)
    if not cut or _OTHER_PROMPTS & row.keys():
        raise RowProblem(
            UNREADABLE, "there is no prompt column, and chosen and rejected begin differently", "prompt"
        )
    return Pair(chosen[:cut], chosen[cut:], rejected[cut:])


def _shared_beginning(chosen: str, rejected: str) -> int:
    shortest = min(len(chosen), len(rejected))
    cut = next((index for index in range(shortest) if chosen[index] != rejected[index]), shortest)
    return cut - 1 if 0 < cut < shortest and chosen[cut - 1] == " " else cut


def conversational(row: Row) -> Pair:
    """TRL conversational: messages in `chosen` and `rejected`, and in `prompt` or as what both begin with."""
    chosen = completion_of(_column(row, "chosen"), "chosen")
    rejected = completion_of(_column(row, "rejected"), "rejected")
    tools = tools_of(row)
    if "prompt" not in row:
        pair = _split_conversations(chosen, rejected, tools)
        return Pair(_with_system(row, list(pair.prompt)), pair.chosen, pair.rejected, tools)  # type: ignore[arg-type]
    prompt = conversation_of(row["prompt"], "prompt")
    turns = len(prompt)
    if len(chosen) > turns and len(rejected) > turns and chosen[:turns] == prompt == rejected[:turns]:
        chosen, rejected = chosen[turns:], rejected[turns:]
    return Pair(_with_system(row, prompt), chosen, rejected, tools)


def ultrafeedback(row: Row) -> Pair:
    """UltraFeedback-binarized: `prompt` is a string, `chosen` and `rejected` are whole conversations."""
    prompt = text_of(_column(row, "prompt"), "prompt")
    chosen = completion_of(_column(row, "chosen"), "chosen")
    rejected = completion_of(_column(row, "rejected"), "rejected")
    tools = tools_of(row)
    if chosen and rejected and chosen[0]["role"] == rejected[0]["role"] == "assistant":
        return Pair(_question(row, prompt), chosen, rejected, tools)
    pair = _split_conversations(chosen, rejected, tools)
    return Pair(_with_system(row, list(pair.prompt)), pair.chosen, pair.rejected, tools)  # type: ignore[arg-type]


def transcripts(row: Row) -> Pair:
    """Anthropic HH: transcripts in `chosen` and `rejected`; the prompt is what both share up to the last answer."""
    start = text_of(row["prompt"], "prompt") if "prompt" in row else ""
    chosen = text_of(_column(row, "chosen"), "chosen")
    rejected = text_of(_column(row, "rejected"), "rejected")
    if start and not (is_transcript(chosen) and is_transcript(rejected)):
        chosen, rejected = start + chosen, start + rejected
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not is_transcript(text):
            raise RowProblem(ROLE_ORDER, f"{name} is no transcript of Human: and Assistant: turns", name)
    return _split_conversations(transcript_of(chosen), transcript_of(rejected), None)


def question(row: Row) -> Pair:
    """Orca pairs: `system` (may be empty), `question`, `chosen`, `rejected`, all text."""
    asked = text_of(_column(row, "question", "query", "prompt", "input"), "question")
    return Pair(
        _question(row, asked),
        completion_of(text_of(_column(row, "chosen"), "chosen"), "chosen"),
        completion_of(text_of(_column(row, "rejected"), "rejected"), "rejected"),
        tools_of(row),
    )


def alpaca(row: Row) -> Pair:
    """Alpaca ranking: `instruction`, `input` (may be missing or empty), `chosen`, `rejected`; `history` of turns."""
    asked = text_of(_column(row, "instruction"), "instruction")
    more = row.get("input")
    if more is not None and text_of(more, "input").strip():
        asked = f"{asked}\n{more}"
    prompt = _question(row, asked)
    history = row.get("history") or []
    if not isinstance(history, list):
        raise RowProblem(NON_TEXT, f"history is {kind(history)}, not a list", "history")
    turns: list[Message] = []
    for index, exchange in enumerate(history):
        if not isinstance(exchange, list) or len(exchange) != 2:  # noqa: PLR2004 - a question and its answer
            raise RowProblem(NON_TEXT, f"history[{index}] is no question and answer", f"history[{index}]")
        turns.append({"role": "user", "content": text_of(exchange[0], f"history[{index}][0]")})
        turns.append({"role": "assistant", "content": text_of(exchange[1], f"history[{index}][1]")})
    return Pair(
        [*prompt[:-1], *turns, prompt[-1]],
        completion_of(text_of(_column(row, "chosen"), "chosen"), "chosen"),
        completion_of(text_of(_column(row, "rejected"), "rejected"), "rejected"),
        tools_of(row),
    )


def sharegpt(row: Row) -> Pair:
    """ShareGPT ranking: `conversations`, and `chosen` and `rejected` as one message (or text, or a list) each."""
    key = "conversations" if "conversations" in row or "messages" not in row else "messages"
    prompt = conversation_of(_column(row, "conversations", "messages"), key)
    chosen = completion_of(_column(row, "chosen"), "chosen")
    rejected = completion_of(_column(row, "rejected"), "rejected")
    return Pair(_with_system(row, prompt), chosen, rejected, tools_of(row))


def openai(row: Row) -> Pair:
    """OpenAI preference fine-tuning: `input.messages`, `preferred_output`, `non_preferred_output`."""
    given = _column(row, "input")
    if not isinstance(given, dict):
        raise RowProblem(NON_TEXT, f"input is {kind(given)}, not an object with messages", "input")
    return Pair(
        conversation_of(_column(given, "messages"), "input.messages"),
        completion_of(_column(row, "preferred_output"), "preferred_output"),
        completion_of(_column(row, "non_preferred_output"), "non_preferred_output"),
        tools_of(given) or tools_of(row),
    )


def _asks(row: Row) -> bool:
    """A `prompt` beside a `system` column is a question in a frame; alone it is TRL's own plain text."""
    return any(name in row for name in ("question", "query", "input")) or isinstance(
        row.get("system", 0), str | None
    )


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
    return not isinstance(row["chosen"], str) and not isinstance(row["rejected"], str)


# A text column of one of these names is a prompt: then chosen and rejected do not hold it.
_OTHER_PROMPTS: Final = frozenset(
    {
        "query",
        "question",
        "instruction",
        "input",
        "context",
        "text",
        "request",
        "task",
        "problem",
        "user",
        "post",
    }
)


def _is_plain(row: Row) -> bool:
    if "prompt" in row:
        return not is_messages(row["prompt"])
    return not _OTHER_PROMPTS & row.keys() and _shared_beginning(row["chosen"], row["rejected"]) > 0


_COMPLETION: Final = (MESSAGE, MESSAGES, TEXT)
_BOTH_TEXT: Final[dict[tuple[str, ...], tuple[str, ...]]] = {("chosen",): (TEXT,), ("rejected",): (TEXT,)}

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
            openai,
        ),
        Format(
            "sharegpt-ranking",
            "ShareGPT ranking",
            {
                ("conversations", "messages"): (MESSAGES,),
                ("chosen",): _COMPLETION,
                ("rejected",): _COMPLETION,
            },
            sharegpt,
            _continues,
        ),
        Format("alpaca-ranking", "Alpaca ranking", {("instruction",): (TEXT,), **_BOTH_TEXT}, alpaca),
        Format(
            "anthropic-hh",
            "Anthropic HH transcripts",
            _BOTH_TEXT,
            transcripts,
            _is_transcript,
        ),
        Format(
            "orca-pairs",
            "Orca pairs",
            {("question", "query", "prompt", "input"): (TEXT,), **_BOTH_TEXT},
            question,
            _asks,
        ),
        Format(
            "ultrafeedback-binarized",
            "UltraFeedback-binarized",
            {("prompt",): (TEXT,), ("chosen",): (MESSAGES, MESSAGE), ("rejected",): (MESSAGES, MESSAGE)},
            ultrafeedback,
        ),
        Format(
            "trl-conversational",
            "TRL conversational",
            {("chosen",): _COMPLETION, ("rejected",): _COMPLETION},
            conversational,
            _begins_with_messages,
        ),
        Format("trl-standard", "TRL standard", _BOTH_TEXT, standard, _is_plain),
    )
}


def recognise(row: Row) -> Format | None:
    """The first format of the table that a row fits with its columns and their shapes."""
    return next((layout for layout in FORMATS.values() if layout.recognises(row)), None)


def detect(rows: Iterable[Row]) -> Format | None:
    """The format of a data set, from its first rows.

    The first row that fits a format decides. Where none does, a row that has the columns and only wrong
    values (null, a number) decides, so that the values are complained about and not the layout.

    Args:
        rows: The first rows, columns already renamed.

    Returns:
        The format, or None when no row has the columns of any.
    """
    rows = list(rows)
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
}


def nearest(row: Row) -> tuple[Format, list[str]]:
    """The format that lacks the least to fit a row, and what it lacks."""
    layout = min(FORMATS.values(), key=lambda one: len(one.missing(row)) / len(one.columns))
    return layout, layout.missing(row) or ["a `prompt` column"]
