"""What a preference pair is, and what can be wrong with a single one.

A pair is one prompt with two completions, the preferred one first. Text stays what the file
said: the only things done to it are joining typed text parts and giving roles their usual names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

Message = dict[str, Any]
"""`{"role": str, "content": str}`, and whatever else the file says of it: `tool_calls`, `thinking`, `name`, ...."""

Text = str | list[Message]
"""Plain text (a standard pair) or messages (a conversational pair)."""

# Reasons why a row is no pair to train on. They are keys of `data.json` and of `dpo check --json`.
UNREADABLE: Final = "unreadable row"
NON_TEXT: Final = "non-text value"
ROLE_ORDER: Final = "wrong role order"
EMPTY: Final = "empty completion"
IDENTICAL: Final = "identical completions"
TIE: Final = "no preference"
TEMPLATE_REFUSED: Final = "refused by the chat template"
PROMPT_FILLS: Final = "prompt fills max_length"
IDENTICAL_CUT: Final = "identical after truncation"

REASONS: Final[dict[str, str]] = {
    UNREADABLE: "Fix or remove these rows: they are not trained on.",
    NON_TEXT: "Fill in the text or remove these rows: a null, a number or an image cannot be trained on.",
    ROLE_ORDER: "Put the turns in order: system first, then user and assistant in turn; the prompt ends with the user.",
    EMPTY: "Remove these rows, or fill in the missing answer.",
    IDENTICAL: "Remove these rows: two identical completions teach nothing.",
    TIE: "Remove these rows: neither answer is preferred.",
    TEMPLATE_REFUSED: "Change the rows to what this model's template accepts, or give another template with --chat-template.",
    PROMPT_FILLS: "Raise --max-length, or shorten these prompts: no token of the completion is left.",
    IDENTICAL_CUT: "Raise --max-length: the difference lies beyond it.",
}
"""What to do about rows that were dropped, by reason."""

# What reading a row left out. They are findings, and the row is a pair all the same.
COLUMNS_LEFT_OUT: Final = "columns left out"
ANSWERS_LEFT_OUT: Final = "answers left out"

Note = tuple[str, str]
"""A finding of reading (`COLUMNS_LEFT_OUT`, `ANSWERS_LEFT_OUT`), and what it is about."""

_NOTHING_SAID: Final = frozenset({"role", "name", "id", "type", "tool_call_id"})
"""Fields of a message that are no answer by themselves."""


class RowProblem(Exception):  # noqa: N818 - not a failure of the run: it is counted, and the next row follows
    """One row cannot become a pair.

    Args:
        reason: One of `REASONS`.
        detail: What is wrong, a sentence part such as "chosen is null".
        key: The column or path inside the row, e.g. `chosen[1].content`; empty for the whole row.
    """

    def __init__(self, reason: str, detail: str, key: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.key = key


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt, the completion that is preferred, and the one that is not.

    Attributes:
        prompt: What comes before both completions: a string, or messages.
        chosen: The preferred completion, of the prompt's kind.
        rejected: The other completion, of the prompt's kind.
        tools: JSON schemas of functions that the chat template is given, or None.
        template_kwargs: Further variables for the chat template (`enable_thinking`), or None.
        notes: What reading left out; no part of the pair itself.
    """

    prompt: Text
    chosen: Text
    rejected: Text
    tools: list[Any] | None = None
    template_kwargs: dict[str, Any] | None = None
    notes: tuple[Note, ...] = field(default=(), compare=False)

    @property
    def conversational(self) -> bool:
        """Whether the pair is made of messages, which need a chat template."""
        return isinstance(self.prompt, list)

    def to_row(self) -> dict[str, Any]:
        """The pair in TRL's layout: `prompt`, `chosen`, `rejected`.

        Where there are some, also `tools` as JSON text, and `chat_template_kwargs`.
        """
        row: dict[str, Any] = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        if self.tools:
            row["tools"] = json.dumps(self.tools, ensure_ascii=False)
        if self.template_kwargs:
            row["chat_template_kwargs"] = self.template_kwargs
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Pair:
        """The pair of a row in TRL's layout, as `to_row` makes it."""
        tools = row.get("tools")
        return cls(
            row["prompt"],
            row["chosen"],
            row["rejected"],
            json.loads(tools) if isinstance(tools, str) else tools,
            row.get("chat_template_kwargs") or None,
        )


def written(text: Text) -> str:
    """A text or messages as one canonical string, for hashing and comparison."""
    if isinstance(text, str):
        return text
    if all(len(message) == 2 for message in text):  # noqa: PLR2004 - role and content, nearly always
        return "".join(f"\x1e{message['role']}\x1f{message['content']}" for message in text)
    return json.dumps(text, sort_keys=True, ensure_ascii=False)


def fingerprint(*texts: Text) -> int:
    """64 bits that are the same for the same texts, on every machine and in every process (BLAKE2b)."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        data = written(text).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return int.from_bytes(digest.digest(), "little")


def plain(text: Text) -> str:
    """Only the words: a string itself, or what its messages say, one to a line.

    Other fields of a message (tool calls, thinking) follow its content as JSON.
    """
    if isinstance(text, str):
        return text
    if len(text) == 1 and len(text[0]) == 2:  # noqa: PLR2004 - role and content, nearly always
        return str(text[0]["content"])
    return "\n".join([_words(message) for message in text])


def _words(message: Message) -> str:
    content = str(message["content"])
    if len(message) == 2:  # noqa: PLR2004 - role and content
        return content
    more = {name: value for name, value in message.items() if name not in {"role", "content"}}
    return f"{content}\n{json.dumps(more, sort_keys=True, ensure_ascii=False)}".lstrip()


def check_pair(pair: Pair) -> Pair:
    """Refuse a pair that cannot teach anything.

    Args:
        pair: Text of the right types already; a conversation in its usual role names.

    Returns:
        The same pair.

    Raises:
        RowProblem: `wrong role order` for a conversation without a prompt, `empty completion` or
            `identical completions`.
    """
    if pair.prompt == []:
        raise RowProblem(ROLE_ORDER, "there is no message before the completions", "prompt")
    for name, completion in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if _says_nothing(completion):
            raise RowProblem(EMPTY, f"{name} has no text", name)
    if pair.chosen == pair.rejected:
        raise RowProblem(IDENTICAL, "chosen and rejected are the same")
    return pair


def _says_nothing(completion: Text) -> bool:
    if isinstance(completion, str):
        return not completion.strip()
    return not any(
        message["content"].strip() or (len(message) > 2 and _says_more(message))  # noqa: PLR2004 - role and content
        for message in completion
    )


def _says_more(message: Message) -> bool:
    """Whether a message without content has a field that says something: tool calls, thinking."""
    return any(
        value and isinstance(value, str | list | dict)
        for name, value in message.items()
        if name not in _NOTHING_SAID
    )


def odd_roles(prompt: list[Message], chosen: Text, rejected: Text) -> RowProblem | None:
    """What is unusual in the order of the roles.

    Usual is what most chat models were trained on: a system message first if at all, then user and assistant in
    turn, a prompt that ends with a user or tool message, and completions of the assistant's. A chat template may take
    more than that.

    Args:
        prompt: Messages of the prompt.
        chosen: Messages of the preferred completion.
        rejected: Messages of the other completion.

    Returns:
        `wrong role order`, naming the first such message; None when all is as usual.
    """
    try:
        _check_roles(prompt, chosen, rejected)
    except RowProblem as problem:
        return problem
    return None


def _check_roles(prompt: list[Message], chosen: Text, rejected: Text) -> None:
    before = _walk("", prompt, "prompt")
    if before not in {"user", "tool"}:
        found = f"a {before} message" if before else "nothing"
        raise RowProblem(
            ROLE_ORDER, f"the prompt ends with {found}, not with a user or tool message", "prompt"
        )
    for name, completion in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(completion, list) or not completion:
            continue
        first = completion[0]["role"]
        if first != "assistant":
            raise RowProblem(
                ROLE_ORDER, f"{name} starts with a {first} message, not with the assistant's", name
            )
        last = _walk(before, completion, name)
        if last != "assistant":
            raise RowProblem(ROLE_ORDER, f"{name} ends with a {last} message, not with the assistant's", name)


_MAY_FOLLOW: Final[dict[str, frozenset[str]]] = {
    "": frozenset({"system", "user"}),
    "system": frozenset({"system", "user"}),
    "user": frozenset({"assistant"}),
    "assistant": frozenset({"user"}),
    "tool": frozenset({"tool", "assistant"}),
    # An assistant that calls a tool may speak before and after the tool's answer.
    "tool call": frozenset({"tool", "assistant", "user"}),
}


def _walk(before: str, messages: list[Message], key: str) -> str:
    """The role of the last message, after checking that each may follow the one before it."""
    turn = before
    for index, message in enumerate(messages):
        role = message["role"]
        if role not in _MAY_FOLLOW[turn]:
            place = f"after a {turn} message" if turn else "at the start"
            raise RowProblem(ROLE_ORDER, f"a {role} message {place}", f"{key}[{index}]")
        turn = "tool call" if role == "assistant" and message.get("tool_calls") else role
    return "assistant" if turn == "tool call" else turn
