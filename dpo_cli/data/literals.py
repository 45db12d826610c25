"""Values that a column holds as text: JSON, or what Python and NumPy print of a list.

`datasets` and pandas write messages into CSV as Python prints them, exporters write them as JSON into any format.
Nothing is evaluated: the text is taken apart into tokens, put together as JSON, and anything else is no value.
"""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.pairs import UNREADABLE, RowProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

DEEPEST: Final = 64
"""Levels of lists and objects in tools, template variables and messages: schemas have about ten."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TOKEN: Final = re.compile(
    r"\s+"
    r"|(?P<string>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<word>True|False|None)"
    r"|(?P<number>-?\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?)"
    r"|(?P<numpy>array\(|(?:,\s*)?dtype=object|\))"
    r"|(?P<mark>[\[\]{}:,])",
    re.DOTALL,
)
_AS_JSON: Final = {"True": "true", "False": "false", "None": "null"}


def parse_json(text: str, key: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The value of a text that is JSON.

    Args:
        text: The text.
        key: Where it stands in the row.

    Raises:
        ValueError: It is no JSON.
        RowProblem: `unreadable row`: nested too deeply, or half a surrogate pair.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _too_deep(key) from error
    bounded(value, key)
    return value


def bounded(value: object, key: str) -> None:
    """Make sure that a value can be walked through and written.

    Raises:
        RowProblem: `unreadable row`: nested more than `DEEPEST` levels, or a text with half a surrogate pair.
    """
    level: list[object] = [value]
    for _ in range(DEEPEST + 1):
        for text in (item for item in level if isinstance(item, str)):
            if not text.isascii() and _SURROGATE.search(text):
                raise RowProblem(UNREADABLE, f"{key} has a lone surrogate, which is not a character", key)
        level = [item for outer in level for item in _inside(outer)]
        if not level:
            return
    raise _too_deep(key)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, list) else ()


def _too_deep(key: str) -> RowProblem:
    return RowProblem(UNREADABLE, f"{key} is nested more than {DEEPEST} levels deep", key)


def literal(text: str, key: str) -> Any:  # noqa: ANN401 - whatever was printed
    """The list or object that a text is, as JSON (also twice over) or as Python or NumPy print it; None when it is neither.

    Args:
        text: Any text.
        key: Where it stands in the row.

    Raises:
        RowProblem: `unreadable row`: nested too deeply, or half a surrogate pair.
    """
    inner = text.strip()
    if inner.startswith(('"[', '"{')):
        inner = _inner_text(inner, key)
    if not inner.startswith(("[", "{", "array(")) or not inner.endswith(("]", "}", ")")):
        return None
    try:
        return parse_json(inner, key)
    except ValueError:
        pass
    printed = _printed(inner)
    if printed is None:
        return None
    try:
        return parse_json(printed, key)
    except ValueError:
        return None


def _inner_text(text: str, key: str) -> str:
    """What a text that was written as JSON once more was before."""
    try:
        value = parse_json(text, key)
    except ValueError:
        return text
    return value.strip() if isinstance(value, str) else text


def _printed(text: str) -> str | None:
    """What Python or NumPy printed, as JSON. NumPy puts no comma between the objects of an array."""
    tokens: list[str] = []
    at = 0
    ended = False
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            return None
        at = found.end()
        token = _json_token(found)
        if token is None:
            return None
        if not token:
            continue
        if ended and token[0] not in "]}:,":
            tokens.append(",")
        tokens.append(token)
        ended = token[0] not in "[{:,"
    return "".join(tokens)


def _json_token(found: re.Match[str]) -> str | None:
    """A token as JSON has it; empty for what is only NumPy's wrapping, None for a string that is none."""
    kind, token = found.lastgroup, found[0]
    if kind == "string":
        try:
            return json.dumps(ast.literal_eval(token.replace("\n", "\\n").replace("\r", "\\r")))
        except (ValueError, SyntaxError):
            return None
    if kind == "word":
        return _AS_JSON[token]
    return token if kind in {"mark", "number"} else ""
