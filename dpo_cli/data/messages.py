"""Messages as people write them, made into `{"role", "content"}` with the usual role names."""

from __future__ import annotations

from typing import Any, Final

from dpo_cli.data.literals import bounded, literal, parse_json
from dpo_cli.data.pairs import NON_TEXT, Message, RowProblem
from dpo_cli.errors import quoted

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
_OWN_KEYS: Final = frozenset((*_ROLE_KEYS, *_CONTENT_KEYS, "tool_calls"))
# Parts of LLaMA-Factory's messages that are no content, and the field in which chat templates look for them.
_REASONING: Final = "reasoning"
_TOOL_CALL: Final = "tool_call"


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


def is_written_message(value: object) -> bool:
    """Whether an object that stood in text is a message, and no answer that happens to be JSON."""
    return isinstance(value, dict) and (
        ("role" in value and ("content" in value or "tool_calls" in value))
        or value.keys() == {"from", "value"}
    )


def messages_in(text: str, key: str) -> Any:  # noqa: ANN401 - messages, one message, or an object with messages
    """The messages that a text holds as JSON, or as Python or NumPy print them; None when it is other text.

    Args:
        text: The value of a column.
        key: The column.

    Raises:
        RowProblem: `unreadable row`: messages nested too deeply, or half a surrogate pair.
    """
    start = text[:1]
    if start not in '[{a"' and not start.isspace():
        return None
    if "role" not in text and "from" not in text:
        return None
    value = literal(text, key)
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        return value if all(map(is_written_message, value["messages"])) else None
    if isinstance(value, list):
        return value if value and all(map(is_written_message, value)) else None
    return value if is_written_message(value) else None


def message_of(value: object, key: str) -> Message:
    """One message in the usual names.

    Args:
        value: `{"role", "content"}` or `{"from", "value"}`; content is text or a list of text parts.
        key: Where it stands in the row.

    Returns:
        `role` and `content`, and every other field that is not null. A role without a usual name stays as it is.

    Raises:
        RowProblem: `non-text value`; `unreadable row` for fields that are nested too deeply.
    """
    if not isinstance(value, dict):
        raise RowProblem(NON_TEXT, f"{key} is {kind(value)}, not a message", key)
    written_role = next((value[name] for name in _ROLE_KEYS if value.get(name) is not None), None)
    if not isinstance(written_role, str) or not written_role.strip():
        raise RowProblem(NON_TEXT, f"{key} has no role (keys: {', '.join(map(str, value))})", key)
    role = ROLES.get(written_role) or ROLES.get(written_role.strip().casefold()) or written_role
    content_key = _content_key(value)
    content = value.get(content_key)
    if isinstance(content, str) and len(value) == 2:  # noqa: PLR2004 - a role and a text: most messages by far
        if written_role != "function_call":
            return {"role": role, "content": content}
        return _function_call(content, key)
    more = _more(value, content, key)
    if content is None and more:
        content = ""
    return {"role": role, "content": _content(content, f"{key}.{content_key}"), **more}


def _content_key(value: dict[str, Any]) -> str:
    named = [name for name in _CONTENT_KEYS if name in value]
    filled = (name for name in named if value[name] is not None)
    return next(filled, named[0] if named else "value" if "from" in value else "content")


def _more(value: dict[str, Any], content: object, key: str) -> dict[str, Any]:
    """The fields of a message beside role and content, those among the parts of its content included."""
    more = {name: item for name, item in value.items() if name not in _OWN_KEYS and item is not None}
    calls = value.get("tool_calls")
    if isinstance(calls, str):
        calls = parse_or(calls, f"{key}.tool_calls")
    parts = content if isinstance(content, list) else []
    written_calls = [_part_text(part, key) for part in parts if _type(part) == _TOOL_CALL]
    if written_calls:
        calls = [
            call for text in written_calls for call in _function_call(text, key).get("tool_calls", [text])
        ]
    if calls:
        more["tool_calls"] = _tool_calls(calls, f"{key}.tool_calls")
    thoughts = [_part_text(part, key) for part in parts if _type(part) == _REASONING]
    if thoughts:
        more["reasoning_content"] = "".join(thoughts)
    if more:
        bounded(more, key)
    return more


def _type(part: object) -> str:
    written = part.get("type") if isinstance(part, dict) else None
    return written if isinstance(written, str) else "text"


def _part_text(part: Any, key: str) -> str:  # noqa: ANN401 - a part of a message's content
    return text_of(next((part[name] for name in ("text", "value", "content") if name in part), None), key)


def _content(value: object, key: str) -> str:
    if isinstance(value, list):
        return "".join(
            _part(part, f"{key}[{index}]")
            for index, part in enumerate(value)
            if _type(part) not in {_REASONING, _TOOL_CALL}
        )
    return text_of(value, key)


def _part(part: object, key: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and _type(part) in _TEXT_PARTS:
        return _part_text(part, f"{key}.text")
    what = f"a part of type {quoted(part.get('type'))}" if isinstance(part, dict) else kind(part)
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
        parsed = parse_or(value, "arguments")
        return parsed if isinstance(parsed, dict) else value
    return value


def parse_or(text: str, key: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The value of a text that is JSON; the text itself where it is not."""
    try:
        return parse_json(text, key)
    except ValueError:
        return text


def _function_call(content: str, key: str) -> Message:
    """ShareGPT's `function_call` turn: its text is the call as JSON, one object or a list of them."""
    call = parse_or(content, key) if content.lstrip()[:1] in {"{", "["} else None
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
