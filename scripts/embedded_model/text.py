"""Surface changes to a question, and the normal form in which two questions are the same."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_PREFIXES = (
    "Please, ", "Hi, ", "Hey, ", "Hello, ", "Hello! ", "Hi! ", "Quick question: ", "So, ", "Question: ", "Sorry, ", "OK, ", "Well, ",
    "Excuse me, ", "By the way, ", "I wonder: ", "Just asking: ", "One question: ", "Now, ", "Tell me, ", "Hey there, ", "And ", "But ",
    "Hello there! ", "Good day! ", "Dear assistant, ", "Assistant, ", "Let me ask: ", "Simple question: ",
)  # fmt: skip
_SUFFIXES = (
    ", please",
    " please",
    " then",
    ", then",
    " now",
    " again",
    " exactly",
    ", assistant",
    ", my friend",
    " by the way",
    " for me",
)
_AFTERTHOUGHTS = (
    " Thanks.",
    " Thank you.",
    " Please.",
    " I want to know.",
    " I forgot.",
    " Just curious.",
    " Tell me.",
)


def normal_form(question: str) -> str:
    """Returns the question without case, punctuation, accents and double spaces.

    Two questions with one normal form count as the same question wherever held-out sets are kept apart from
    training text. A plus and a minus carry meaning and stay.
    """
    plain = unicodedata.normalize("NFKD", question.casefold())
    plain = (
        "".join(char for char in plain if not unicodedata.combining(char))
        .replace("'", "")
        .replace("\u2019", "")
    )
    return " ".join(re.findall(r"\w+|[+]|(?<=[\d\s])-(?=[\s\d])", plain))


def chance(rng: random.Random, share: float) -> bool:
    """Returns true in this share of the calls."""
    return rng.random() < share


def vary(question: str, rng: random.Random, *, typos: bool = False) -> str:
    """Returns the question as somebody else might type it.

    Args:
        question: A well-formed question.
        rng: Source of randomness.
        typos: Whether a letter may go wrong; only where no single word decides the answer.
    """
    if chance(rng, 0.45):
        return question
    text = question
    if chance(rng, 0.25):
        prefix = rng.choice(_PREFIXES)
        text = prefix + (text if prefix.endswith(("! ", ": ")) else _lower_first(text))
    if chance(rng, 0.15):
        body = text.rstrip(".?!")
        text = body + rng.choice(_SUFFIXES) + text[len(body) :]
    elif chance(rng, 0.1):
        text += rng.choice(_AFTERTHOUGHTS)
    if typos and chance(rng, 0.15):
        text = _mistype(text, rng)
    return _restyle(text, rng)


def _restyle(text: str, rng: random.Random) -> str:
    """Changes case and punctuation."""
    if chance(rng, 0.35):
        text = text.lower()
    elif chance(rng, 0.04):
        text = text.upper()
    if chance(rng, 0.4):
        text = text.rstrip(".?!")
    elif chance(rng, 0.08):
        text = text.rstrip(".?!") + rng.choice(("??", "!", "?!", " ?", "...", "?", "."))
    if chance(rng, 0.15):
        text = text.replace("'", "")
    return text


def _lower_first(text: str) -> str:
    """Lowers the first letter, unless the first word is "I" or is not a plain capitalised word."""
    first = text.split(" ", 1)[0]
    if first in ("I", "I'm", "I'd") or not first[1:].islower():
        return text
    return text[:1].lower() + text[1:]


def _mistype(text: str, rng: random.Random) -> str:
    """Drops, doubles or swaps one letter inside a word of at least four letters."""
    words = [match.span() for match in re.finditer(r"[A-Za-z]{4,}", text)]
    if not words:
        return text
    start, end = rng.choice(words)
    place = rng.randrange(start + 1, end - 1)
    dropped = text[:place] + text[place + 1 :]
    doubled = text[:place] + text[place] + text[place:]
    swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    return rng.choice((dropped, doubled, swapped))
