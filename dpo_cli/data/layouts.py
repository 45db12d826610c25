"""From a raw row to a pair: one pure function for each layout in which the better answer has a column of its own.

Layouts that hold answers and a judgement are in `judged.py`; `formats.py` says which row is of which layout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.extras import extras_of
from dpo_cli.data.messages import (
    completion_of,
    conversation_of,
    kind,
    text_of,
)
from dpo_cli.data.pairs import (
    ANSWERS_LEFT_OUT,
    NON_TEXT,
    ROLE_ORDER,
    UNREADABLE,
    Message,
    Note,
    Pair,
    RowProblem,
)
from dpo_cli.data.transcripts import is_transcript, transcript_of
from dpo_cli.errors import listed

if TYPE_CHECKING:
    from dpo_cli.data.unwrapping import Row

QUESTIONS: Final = ("question", "query", "prompt", "input")
"""Columns that may hold a question, the first that is there."""

CHOSEN: Final = ("chosen_response", "output_chosen", "response_chosen", "chosen_answer", "response_j")
REJECTED: Final = (
    "rejected_response",
    "output_rejected",
    "response_rejected",
    "rejected_answer",
    "response_k",
)
"""Columns of the two answers, where they are called neither `chosen` nor `rejected`."""

# Where chosen and rejected do not hold the prompt, it is in one of these.
PROMPT_NAMES: Final = frozenset(
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
        "conversations",
        "messages",
    }
)

ASKED: Final = ("instruction", *QUESTIONS)


def column(row: Row, *names: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """The value of the first of some columns that a row has.

    Raises:
        RowProblem: `unreadable row` when it has none.
    """
    for name in names:
        if name in row:
            return row[name]
    needed = " or ".join(map(repr, names))
    raise RowProblem(UNREADABLE, f"no column {needed}; it has {listed(map(repr, row)) or 'none'}", names[0])


def question_of(row: Row, question: str) -> list[Message]:
    """A one-turn prompt, with the row's system text before it where there is some."""
    system = row.get("system")
    start: list[Message] = []
    if system is not None and text_of(system, "system").strip():
        start = [{"role": "system", "content": system}]
    return [*start, {"role": "user", "content": question}]


def with_system(row: Row, prompt: list[Message]) -> list[Message]:
    """A prompt that begins with the row's system text where it has some."""
    system = row.get("system")
    if system is None or not text_of(system, "system").strip() or (prompt and prompt[0]["role"] == "system"):
        return prompt
    return [{"role": "system", "content": system}, *prompt]


def _shared_prefix(chosen: list[Message], rejected: list[Message]) -> int:
    """How many messages both begin with; each keeps at least its last (`trl.data_utils.extract_prompt`)."""
    most = min(len(chosen), len(rejected)) - 1
    return next((index for index in range(max(most, 0)) if chosen[index] != rejected[index]), max(most, 0))


def split_conversations(
    row: Row, chosen: list[Message], rejected: list[Message], *, system: bool = False
) -> Pair:
    """The pair of two whole conversations: the prompt is what both begin with, as TRL has it.

    Args:
        row: For tools and template variables.
        chosen: The preferred conversation.
        rejected: The other one.
        system: A column `system` of the row goes before both.
    """
    cut = _shared_prefix(chosen, rejected)
    prompt = with_system(row, chosen[:cut]) if system else chosen[:cut]
    return Pair(prompt, chosen[cut:], rejected[cut:], **extras_of(row))


def standard(row: Row) -> Pair:
    """TRL standard: `chosen` and `rejected` are strings; without `prompt`, it is what both begin with.

    The shared beginning is cut as `trl.data_utils.extract_prompt` does: before the first difference,
    and before a space that stands there.
    """
    chosen = text_of(column(row, "chosen"), "chosen")
    rejected = text_of(column(row, "rejected"), "rejected")
    if "prompt" in row:
        return Pair(text_of(row["prompt"], "prompt"), chosen, rejected)
    if chosen == rejected:
        return Pair("", chosen, rejected)
    cut = shared_beginning(chosen, rejected)
    if not cut or PROMPT_NAMES & row.keys():
        raise RowProblem(
            UNREADABLE, "there is no prompt column, and chosen and rejected begin differently", "prompt"
        )
    return Pair(chosen[:cut], chosen[cut:], rejected[cut:])


def shared_beginning(chosen: str, rejected: str) -> int:
    """How many characters of two texts TRL takes for their prompt."""
    shortest = min(len(chosen), len(rejected))
    cut = next((index for index in range(shortest) if chosen[index] != rejected[index]), shortest)
    return cut - 1 if 0 < cut < shortest and chosen[cut - 1] == " " else cut


def conversational(row: Row) -> Pair:
    """TRL conversational: messages in `chosen` and `rejected`, and in `prompt` or as what both begin with."""
    chosen = completion_of(column(row, "chosen"), "chosen")
    rejected = completion_of(column(row, "rejected"), "rejected")
    if "prompt" not in row:
        return split_conversations(row, chosen, rejected)
    prompt = conversation_of(row["prompt"], "prompt")
    turns = len(prompt)
    if len(chosen) > turns and len(rejected) > turns and chosen[:turns] == prompt == rejected[:turns]:
        chosen, rejected = chosen[turns:], rejected[turns:]
    return Pair(prompt, chosen, rejected, **extras_of(row))


def ultrafeedback(row: Row) -> Pair:
    """UltraFeedback-binarized: `prompt` is a string, `chosen` and `rejected` are whole conversations."""
    prompt = text_of(column(row, "prompt"), "prompt")
    chosen = completion_of(column(row, "chosen"), "chosen")
    rejected = completion_of(column(row, "rejected"), "rejected")
    if chosen and rejected and chosen[0]["role"] == rejected[0]["role"] == "assistant":
        return Pair(question_of(row, prompt), chosen, rejected, **extras_of(row))
    return split_conversations(row, chosen, rejected, system=True)


def transcripts(row: Row) -> Pair:
    """Anthropic HH: transcripts in `chosen` and `rejected`; the prompt is what both share up to the last answer."""
    start = text_of(row["prompt"], "prompt") if "prompt" in row else ""
    chosen = text_of(column(row, "chosen"), "chosen")
    rejected = text_of(column(row, "rejected"), "rejected")
    if start and not (is_transcript(chosen) and is_transcript(rejected)):
        chosen, rejected = start + chosen, start + rejected
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not is_transcript(text):
            raise RowProblem(ROLE_ORDER, f"{name} is not a transcript of Human: and Assistant: turns", name)
    return split_conversations(row, transcript_of(chosen), transcript_of(rejected))


def question(row: Row) -> Pair:
    """Orca pairs: `system` (may be empty), `question`, `chosen`, `rejected`, all text."""
    asked = text_of(column(row, *QUESTIONS), "question")
    return Pair(
        question_of(row, asked),
        completion_of(text_of(column(row, "chosen"), "chosen"), "chosen"),
        completion_of(text_of(column(row, "rejected"), "rejected"), "rejected"),
        **extras_of(row),
    )


def alpaca(row: Row) -> Pair:
    """Alpaca ranking: `instruction`, `input` (may be missing or empty), `chosen`, `rejected`; `history` of turns."""
    return Pair(
        _after_history(row, question_of(row, _instruction(row))),
        completion_of(text_of(column(row, "chosen"), "chosen"), "chosen"),
        completion_of(text_of(column(row, "rejected"), "rejected"), "rejected"),
        **extras_of(row),
    )


def _instruction(row: Row) -> str:
    """Alpaca's instruction, its input on a line of its own."""
    asked = text_of(column(row, "instruction"), "instruction")
    more = row.get("input")
    return f"{asked}\n{more}" if more is not None and text_of(more, "input").strip() else asked


def _after_history(row: Row, prompt: list[Message]) -> list[Message]:
    """A prompt with earlier questions and answers before its last turn."""
    history = row.get("history") or []
    if not isinstance(history, list):
        raise RowProblem(NON_TEXT, f"history is {kind(history)}, not a list", "history")
    turns: list[Message] = []
    for index, exchange in enumerate(history):
        if not isinstance(exchange, list) or len(exchange) != 2:  # noqa: PLR2004 - a question and its answer
            raise RowProblem(
                NON_TEXT, f"history[{index}] is not a question and its answer", f"history[{index}]"
            )
        turns.append({"role": "user", "content": text_of(exchange[0], f"history[{index}][0]")})
        turns.append({"role": "assistant", "content": text_of(exchange[1], f"history[{index}][1]")})
    return [*prompt[:-1], *turns, prompt[-1]]


def sharegpt(row: Row) -> Pair:
    """ShareGPT ranking: `conversations`, and `chosen` and `rejected` as one message (or text, or a list) each."""
    key = "conversations" if "conversations" in row or "messages" not in row else "messages"
    prompt = conversation_of(column(row, "conversations", "messages"), key)
    chosen = completion_of(column(row, "chosen"), "chosen")
    rejected = completion_of(column(row, "rejected"), "rejected")
    return Pair(with_system(row, prompt), chosen, rejected, **extras_of(row))


def openai(row: Row) -> Pair:
    """OpenAI preference fine-tuning: `input.messages`, `preferred_output`, `non_preferred_output`."""
    given = column(row, "input")
    if not isinstance(given, dict):
        raise RowProblem(NON_TEXT, f"input is {kind(given)}, not an object with messages", "input")
    return Pair(
        conversation_of(column(given, "messages"), "input.messages"),
        completion_of(column(row, "preferred_output"), "preferred_output"),
        completion_of(column(row, "non_preferred_output"), "non_preferred_output"),
        **(extras_of(row) | {name: value for name, value in extras_of(given).items() if value}),
    )


def prompt_of(row: Row, *names: str) -> list[Message]:
    """A prompt as messages: a question, a transcript that ends where the assistant begins, or messages.

    Args:
        row: A row with one of these columns.
        names: Columns that may hold it.
    """
    value = column(row, *names)
    name = next(name for name in names if name in row)
    if isinstance(value, dict):
        value = value.get("full_text")
    if not isinstance(value, str):
        return with_system(row, conversation_of(value, name))
    if not is_transcript(value):
        return question_of(row, value)
    turns = transcript_of(value)
    return turns if turns[-1]["content"] else turns[:-1]


def named_answers(row: Row) -> Pair:
    """A question, and the two answers in columns such as `chosen_response` and `rejected_response`."""
    asked = _instruction(row) if "instruction" in row else None
    return Pair(
        question_of(row, asked) if asked is not None else prompt_of(row, *ASKED),
        completion_of(column(row, *CHOSEN), "chosen"),
        completion_of(column(row, *REJECTED), "rejected"),
        **extras_of(row),
    )


def two_conversations(row: Row) -> Pair:
    """LLaMA-Factory's newer layout: `chosen_messages` and `rejected_messages`, whole conversations."""
    return split_conversations(
        row,
        conversation_of(column(row, "chosen_messages"), "chosen_messages"),
        conversation_of(column(row, "rejected_messages"), "rejected_messages"),
    )


def swift(row: Row) -> Pair:
    """ms-swift: `messages` that end with the better answer, the other one in `rejected_response` or `rejected_messages`."""
    chosen = conversation_of(column(row, "messages"), "messages")
    other = column(row, "rejected_messages", "rejected_response")
    if "rejected_messages" in row:
        return split_conversations(row, chosen, conversation_of(other, "rejected_messages"), system=True)
    answer = next((at for at in range(len(chosen) - 1, -1, -1) if chosen[at]["role"] != "assistant"), -1) + 1
    prompt = with_system(row, chosen[:answer])
    return Pair(prompt, chosen[answer:], completion_of(other, "rejected_response"), **extras_of(row))


def swift_query(row: Row) -> Pair:
    """ms-swift's older layout: `query`, `response` and `rejected_response`, with `system` and `history`."""
    return Pair(
        _after_history(row, question_of(row, text_of(column(row, "query"), "query"))),
        completion_of(text_of(column(row, "response"), "response"), "response"),
        completion_of(text_of(column(row, "rejected_response"), "rejected_response"), "rejected_response"),
        **extras_of(row),
    )


def listed_answers(row: Row) -> Pair:
    """LLaMA-Factory's older layout: `instruction`, `input`, and `output` with the better answer first."""
    answers = column(row, "output")
    if not isinstance(answers, list) or len(answers) < 2:  # noqa: PLR2004 - the better one and the other
        raise RowProblem(NON_TEXT, f"output is {kind(answers)}, not a list of two answers", "output")
    return Pair(
        _after_history(row, question_of(row, _instruction(row))),
        completion_of(answers[0], "output[0]"),
        completion_of(answers[-1], f"output[{len(answers) - 1}]"),
        **extras_of(row),
        notes=left_out_answers(len(answers) - 2),
    )


def left_out_answers(count: int) -> tuple[Note, ...]:
    """The note of a row that has more than two answers."""
    return ((ANSWERS_LEFT_OUT, "a row has more answers than the two of a pair"),) if count else ()
