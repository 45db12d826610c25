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
        if stop > start:
            left.append(Piece("".join(old[start:stop]), not same))
        if other_stop > other_start:
            right.append(Piece("".join(new[other_start:other_stop]), not same))
    return left, right
