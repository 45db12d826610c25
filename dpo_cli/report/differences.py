"""Which words of two answers differ."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

_PIECE = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer, and whether the other answer has it not."""

    text: str
    changed: bool


def differing_words(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Cut two answers into stretches that both have and stretches that only one has (`difflib`)."""
    old, new = _PIECE.findall(before), _PIECE.findall(after)
    left: list[Piece] = []
    right: list[Piece] = []
    for tag, start, stop, other_start, other_stop in SequenceMatcher(
        a=old, b=new, autojunk=False
    ).get_opcodes():
        same = tag == "equal"
        left += _pieces("".join(old[start:stop]), changed=not same)
        right += _pieces("".join(new[other_start:other_stop]), changed=not same)
    return left, right


def _pieces(text: str, *, changed: bool) -> list[Piece]:
    """A stretch; a changed one without the white space around it, which needs no mark."""
    if not changed:
        return [Piece(text, changed)] if text else []
    core = text.strip()
    begin = text.index(core)
    parts = (text[:begin], core, text[begin + len(core) :])
    return [Piece(part, part is core and core != "") for part in parts if part]
