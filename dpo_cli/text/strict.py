"""What JSON allows and no row or question may have: a key that stands twice, half a surrogate pair."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
"""Half a surrogate pair, which is no character."""


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that stands twice; None when none does."""
    known: set[str] = set()
    for name in names:
        if name in known:
            return name
        known.add(name)
    return None


def loads(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse JSON in which a key stands once in an object and every text is made of characters.

    Raises:
        ValueError: It is not JSON, or not so.
        RecursionError: It nests too deep.
    """
    if SURROGATE.search(text) or "\\ud" in text.casefold():
        value = json.loads(text, object_pairs_hook=_unique)
        if SURROGATE.search(json.dumps(value, ensure_ascii=False)):
            raise ValueError("a lone surrogate, which is not a character")
        return value
    return json.loads(text, object_pairs_hook=_unique)


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(items)
    if len(made) != len(items):
        raise ValueError(f"duplicate key {quoted(first_repeated(name for name, _ in items))} in one object")
    return made
