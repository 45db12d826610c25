"""What a row has beside prompt and completions: tools and variables for the chat template, and media."""

from __future__ import annotations

from typing import Any, Final

from dpo_cli.config.template_arguments import RESERVED
from dpo_cli.data.literals import bounded, parse_json
from dpo_cli.data.messages import kind
from dpo_cli.data.pairs import NON_TEXT, RowProblem

_MEDIA: Final = (
    *(
        "image",
        "images",
        "image_path",
        "image_paths",
        "image_url",
        "image_urls",
        "pixel_values",
        "rejected_images",
    ),
    *("video", "videos", "video_path", "rejected_videos"),
    *("audio", "audios", "audio_path", "rejected_audios"),
)


def refuse_media(row: dict[str, Any]) -> None:
    """Refuse a row with pictures, sound or film: TRL trains on them with a processor, and its text alone is another pair.

    Raises:
        RowProblem: `non-text value`, naming the column.
    """
    for name in _MEDIA:
        value = row.get(name)
        if isinstance(value, list):
            value = [item for item in value if item]
        if value:
            raise _media(name)
    for name, value in row.items():  # `datasets` stores pictures and sound of any column so
        if isinstance(value, dict) and value.get("bytes") and value.keys() <= {"bytes", "path"}:
            raise _media(name)


def _media(name: str) -> RowProblem:
    return RowProblem(NON_TEXT, f"the column {name} has a value, but only text can be trained on", name)


def extras_of(row: dict[str, Any]) -> dict[str, Any]:
    """What a row gives to the chat template beside messages: `tools` and `template_kwargs` of a `Pair`.

    Raises:
        RowProblem: As `tools_of` and `template_kwargs_of`.
    """
    return {"tools": tools_of(row), "template_kwargs": template_kwargs_of(row)}


def tools_of(row: dict[str, Any]) -> list[Any] | None:
    """The function schemas of a row: a list, or a list written as JSON text (as TRL has it).

    Raises:
        RowProblem: `non-text value` when it is neither; `unreadable row` when it is nested too deeply.
    """
    value = _json_column(row, "tools")
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise RowProblem(NON_TEXT, f"tools is {kind(value)}, not a list", "tools")
    return value


def template_kwargs_of(row: dict[str, Any]) -> dict[str, Any] | None:
    """Variables for the chat template, TRL's column `chat_template_kwargs`: an object, or one written as JSON text.

    Raises:
        RowProblem: `non-text value` when it is neither, or names what is no variable of the template.
    """
    value = _json_column(row, "chat_template_kwargs")
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise RowProblem(
            NON_TEXT, f"chat_template_kwargs is {kind(value)}, not an object", "chat_template_kwargs"
        )
    taken = next((name for name in value if name in RESERVED), None)
    if taken is not None:
        raise RowProblem(
            NON_TEXT,
            f"chat_template_kwargs has {taken!r}, which training sets itself",
            f"chat_template_kwargs.{taken}",
        )
    return value


def _json_column(row: dict[str, Any], name: str) -> Any:  # noqa: ANN401 - whatever the column holds
    value = row.get(name)
    if not isinstance(value, str):
        if value:
            bounded(value, name)
        return value
    if not value.strip():
        return None
    try:
        return parse_json(value, name)
    except ValueError as error:
        raise RowProblem(NON_TEXT, f"{name} is text but not JSON: {error}", name) from error
