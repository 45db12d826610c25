r"""Characters that act instead of showing, and their escapes in the formats that we write.

JSON and TOML leave C1 controls and bidirectional marks as they are; a file with them acts when it is shown with
`cat`. Their escapes mean the same to every reader.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Controls (C0, DEL, C1), invisible formatting (bidirectional marks, zero widths, tags), lone surrogates,
# line and paragraph separators. Unassigned characters stay: they may be newer than this Python.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def acts(character: str) -> bool:
    """Whether a character does something else than show."""
    return unicodedata.category(character) in _ACTING


def escaped_json(text: str) -> str:
    r"""JSON text with every acting character but newlines between values as `\u....`, in UTF-16 units."""
    return _escaped(text, _json_escape)


def escaped_toml(text: str) -> str:
    r"""TOML text with every acting character but newlines and tabs as `\u....` or `\U........`; in strings and quoted keys only."""
    return _escaped(text, lambda it: f"\\u{ord(it):04x}" if ord(it) < 2**16 else f"\\U{ord(it):08x}")


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(escape(it) if it not in "\n\t" and acts(it) else it for it in text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
