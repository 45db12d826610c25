"""What a conversation says and the chat template leaves out: thinking, tool calls, messages of a role it does not know."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dpo_cli.data.pairs import Message, Pair
    from dpo_cli.models.templates import Refusal

    Render = Callable[[Sequence[Message], Pair], str | Refusal]
    Field = tuple[bool, str, str]

_ENOUGH: Final = 32
"""Times that a template has to ignore a field before it is taken to ignore it always."""

_OTHER: Final = "\ue000other\ue001"


class Unrendered:
    """Says which fields of messages a template does not look at.

    A field is left out when the conversation without it is rendered to the same text. That is tried only for what is
    not found in the text, and not again for a field that made a difference once.

    Args:
        render: Messages, and the pair that they belong to, to text.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self._rendered: set[Field] = set()
        self._ignored: Counter[Field] = Counter()

    def fields(self, pair: Pair, chosen: str, rejected: str) -> tuple[str, ...]:
        """The fields of a conversational pair that the template left out, e.g. "tool_calls of assistant messages".

        Args:
            pair: The pair.
            chosen: Prompt and chosen as rendered.
            rejected: Prompt and rejected as rendered.
        """
        found: dict[str, None] = {}
        turns = len(pair.prompt)
        for completion, text in ((pair.chosen, chosen), (pair.rejected, rejected)):
            messages: list[Message] = [*pair.prompt, *completion]
            for index, message in enumerate(messages):
                for name in _doubtful(message, text):
                    field = index >= turns, message["role"], name
                    if self._is_left_out(field, messages, pair, text):
                        found[f"{name} of {message['role']} messages"] = None
        if pair.tools and self._is_left_out((False, "", "tools"), messages, pair, text):
            found["tools"] = None
        return tuple(found)

    def _is_left_out(self, field: Field, messages: list[Message], pair: Pair, text: str) -> bool:
        if field in self._rendered:
            return False
        if self._ignored[field] >= _ENOUGH:
            return True
        if self._without(field, messages, pair) == text:
            self._ignored[field] += 1
            return True
        self._rendered.add(field)
        return False

    def _without(self, field: Field, messages: list[Message], pair: Pair) -> str | Refusal:
        in_completion, role, name = field
        turns = len(pair.prompt)
        if name == "tools":
            return self._render(messages, replace(pair, tools=None))
        changed = [
            _changed(message, name)
            if message["role"] == role and (index >= turns) is in_completion
            else message
            for index, message in enumerate(messages)
        ]
        return self._render(changed, pair)


def _doubtful(message: Message, text: str) -> list[str]:
    """Fields of a message that are not seen in the text at once."""
    content = message["content"].strip()
    names = [] if content in text else ["content"]
    if len(message) > 2:  # noqa: PLR2004 - role and content
        names += [name for name in message if name not in {"role", "content"}]
    return names


def _changed(message: Message, name: str) -> Message:
    if name == "content":
        return {**message, "content": _OTHER}
    return {key: value for key, value in message.items() if key != name}
