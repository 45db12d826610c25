"""Arguments of a chat template that users give: which names are ours to set, and which values a template takes."""

from __future__ import annotations

from typing import Any, Final

RESERVED: Final = frozenset(
    {
        "conversation",
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
        "sanitize_control_tokens",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
        "messages",
        "self",
        "conversations",
    }
)
"""What TRL and the tokenizer pass to a template, or use to tokenise what it gives."""
_OF_OTHER_SETTINGS: Final = {
    "chat_template": "give --chat-template instead",
    "tools": "the tools of each pair come with the data",
}
SWITCHES: Final = ("enable_thinking", "thinking")
"""Variables by which templates switch thinking on and off; the first that a template knows is its switch."""


def check_template_arguments(arguments: dict[str, Any], thinking: str | None) -> dict[str, Any]:
    """Refuse arguments that no template may be given here.

    Args:
        arguments: Variable of the template to its value.
        thinking: What `--thinking` says.

    Raises:
        ValueError: One line for each mistake, starting with the setting's name.
    """
    lines = [f"template: {problem}" for key, value in arguments.items() if (problem := _problem(key, value))]
    if thinking in {"on", "off"}:
        lines += [
            f"template: {key} is set by --thinking {thinking} too; give one of them"
            for key in SWITCHES
            if key in arguments
        ]
    if lines:
        raise ValueError("\n".join(lines))
    return arguments


def _problem(key: str, value: Any) -> str:  # noqa: ANN401 - whatever TOML holds
    if key in RESERVED:
        return f"{key} is set by dpo itself for every conversation"
    if key in _OF_OTHER_SETTINGS:
        return f"{key} cannot be given here; {_OF_OTHER_SETTINGS[key]}"
    return "" if _plain(value) else f"{key} is {type(value).__name__}; put it in quotes to pass it as text"


def _plain(value: Any) -> bool:  # noqa: ANN401 - as above
    """Whether JSON could say it; TOML has dates and times beside that."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(_plain(inner) for inner in value)
    return isinstance(value, str | int | float | bool)
