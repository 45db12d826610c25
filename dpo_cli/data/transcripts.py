"""Anthropic HH transcripts: a conversation as one text, turns begun with `Human:` and `Assistant:`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from dpo_cli.data.messages import ROLES

if TYPE_CHECKING:
    from dpo_cli.data.pairs import Message

# A file that went through Windows has its line ends.
_TURN: Final = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant|System): ?")
_ANSWER: Final = re.compile(r"\r?\n\r?\nAssistant:")


def is_transcript(value: object) -> bool:
    """Whether a text is an Anthropic HH transcript: it begins with a turn and has an assistant's turn."""
    return (
        isinstance(value, str)
        and value.lstrip().startswith(("Human:", "System:"))
        and _ANSWER.search(value) is not None
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
