"""Messages as people write them, made into `{"role", "content"}` with the usual role names."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from dpo_cli.data.pairs import NON_TEXT, ROLE_ORDER, Message, RowProblem

ROLES: Final[dict[str, str]] = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "instruction": "user",
    "question": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "claude": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "tool_response": "tool",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
_ROLE_KEYS: Final = ("role", "from")
_CONTENT_KEYS: Final = ("content", "value", "text")
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})
_KEPT: Final = ("name", "tool_call_id", "reasoning_content")


def is_message(value: object) -> bool:
    """Whether a value has the shape of one message: an object with a role."""
    return isinstance(value, dict) and any(key in value for key in _ROLE_KEYS)


def is_messages(value: object) -> bool:
    """Whether a value has the shape of a conversation: a list of objects with roles."""
    return isinstance(value, list) and bool(value) and all(is_message(item) for item in value)


def kind(value: object) -> str:
    """What a value is, in a user's words: "a number", "a list of messages", ...."""
    if is_message(value):
        return "a message"
    if is_messages(value):
        return "a list of messages"
    if value == []:
        return "an empty list"
    return _KINDS.get(type(value), f"a value of type {type(value).__name__}")


_KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "true or false",
    str: "text",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def text_of(value: object, key: str) -> str:
    """A value that must be text.

    Raises:
        RowProblem: `non-text value`, with what it is instead.
    """
    if isinstance(value, str):
        return value
    raise RowProblem(NON_TEXT, f"{key} is {kind(value)}, not text", key)


def message_of(value: object, key: str) -> Message:
    """One message in the usual names.

    Args:
        value: `{"role", "content"}` or `{"from", "value"}`; content is text or a list of text parts.
        key: Where it stands in the row.

    Returns:
        `role` and `content`, and the keys about tools where they say something.

    Raises:
        RowProblem: `non-text value` or, for a role that nobody knows, `wrong role order`.
    """
    if not isinstance(value, dict):
        raise RowProblem(NON_TEXT, f"{key} is {kind(value)}, not a message", key)
    written_role = next((value[name] for name in _ROLE_KEYS if value.get(name) is not None), None)
    if not isinstance(written_role, str):
        raise RowProblem(NON_TEXT, f"{key} has no role (keys: {', '.join(map(str, value))})", key)
    role = ROLES.get(written_role) or ROLES.get(written_role.strip().casefold())
    if role is None:
        raise RowProblem(ROLE_ORDER, f"{key} has the unknown role {written_role!r}", f"{key}.role")
    content_key = next((name for name in _CONTENT_KEYS if name in value), "content")
    content = value.get(content_key)
    if isinstance(content, str) and len(value) == 2:  # noqa: PLR2004 - a role and a text: most messages by far
        if written_role != "function_call":
            return {"role": role, "content": content}
        return _function_call(content, key)
    calls = value.get("tool_calls")
    if content is None and calls:
        content = ""
    message: Message = {"role": role, "content": _content(content, f"{key}.{content_key}")}
    if calls:
        message["tool_calls"] = _tool_calls(calls, f"{key}.tool_calls")
    message.update({name: value[name] for name in _KEPT if isinstance(value.get(name), str)})
    return message


def _content(value: object, key: str) -> str:
    if isinstance(value, list):
        return "".join(_part(part, f"{key}[{index}]") for index, part in enumerate(value))
    return text_of(value, key)


def _part(part: object, key: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS:
        return text_of(part.get("text"), f"{key}.text")
    what = f"a part of type {part.get('type')!r}" if isinstance(part, dict) else kind(part)
    raise RowProblem(NON_TEXT, f"{key} is {what}, not text", key)


def _tool_calls(calls: object, key: str) -> list[Any]:
    if not isinstance(calls, list):
        raise RowProblem(NON_TEXT, f"{key} is {kind(calls)}, not a list", key)
    return [_tool_call(call, f"{key}[{index}]") for index, call in enumerate(calls)]


def _tool_call(call: object, key: str) -> dict[str, Any]:
    """A call whose arguments are an object: the OpenAI API writes them as a JSON string, templates want the object."""
    if not isinstance(call, dict):
        raise RowProblem(NON_TEXT, f"{key} is {kind(call)}, not an object", key)
    function = call.get("function")
    if isinstance(function, dict):
        return {**call, "function": {**function, "arguments": _object(function.get("arguments"))}}
    return {**call, "arguments": _object(call["arguments"])} if "arguments" in call else dict(call)


def _object(value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except ValueError:
            return value
        return parsed if isinstance(parsed, dict) else value
    return value


def _function_call(content: str, key: str) -> Message:
    """ShareGPT's `function_call` turn: its text is the call as JSON, one object or a list of them."""
    call = None
    if content.lstrip()[:1] in {"{", "["}:
        try:
            call = json.loads(content)
        except ValueError:
            call = None
    calls = call if isinstance(call, list) else [call]
    if not all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in calls):
        return {"role": "assistant", "content": content}
    wrapped = [{"type": "function", "function": item} for item in calls]
    return {"role": "assistant", "content": "", "tool_calls": _tool_calls(wrapped, key)}


def conversation_of(value: object, key: str) -> list[Message]:
    """A list of messages.

    Raises:
        RowProblem: As `message_of`; `non-text value` when it is no list.
    """
    if not isinstance(value, list):
        raise RowProblem(NON_TEXT, f"{key} is {kind(value)}, not a list of messages", key)
    return [message_of(item, f"{key}[{index}]") for index, item in enumerate(value)]


def completion_of(value: object, key: str) -> list[Message]:
    """A completion as messages: a list of them, a single one, or only its text (the assistant's).

    Raises:
        RowProblem: As `message_of`.
    """
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if isinstance(value, dict):
        return [message_of(value, key)]
    return conversation_of(value, key)


def tools_of(row: dict[str, Any]) -> list[Any] | None:
    """The function schemas of a row: a list, or a list written as JSON text (as TRL has it).

    Raises:
        RowProblem: `unreadable row` when the text is no JSON list.
    """
    value = row.get("tools")
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowProblem(NON_TEXT, f"tools is text that is no JSON: {error}", "tools") from error
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise RowProblem(NON_TEXT, f"tools is {kind(value)}, not a list", "tools")
    return value


_TURN: Final = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant|System): ?")


def is_transcript(value: object) -> bool:
    """Whether a text is an Anthropic HH transcript: it begins with a turn and has an assistant's turn."""
    return (
        isinstance(value, str)
        and value.lstrip().startswith(("Human:", "System:"))
        and "\n\nAssistant:" in value
    )


def transcript_of(text: str) -> list[Message]:
    """The turns of an Anthropic HH transcript.

    Args:
        text: Turns that begin with `Human:` or `Assistant:` after an empty line.

    Returns:
        One message a turn, in order, outer whitespace removed.
    """
    pieces = _TURN.split(text)
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return [{"role": ROLES[name.casefold()], "content": said.strip()} for name, said in turns]
