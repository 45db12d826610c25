"""Names in running text: found as whole words, replaced as written, never mangled.

Pair making and scoring share this one reading of "the answer says Qwen". A name is found whatever its case
and is bounded by a change of word, where possessives (`Qwen's`), quotes, markup and scripts without spaces
(`我是Qwen。`) bound a word too. Two things that merely contain the name are told apart from it:

- a *longer name* (`Qwen2.5`, `Qwen-VL`, `MyQwen`), which is somebody else's name;
- an *address* (a URL, an e-mail address, a path, a handle), which breaks when it is edited.

Letters of the name inside of another word (`Ma` in `mama`) mean nothing.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Scripts written without spaces between words, and Hangul, whose particles are attached to the word:
# Thai and Lao, Myanmar, Khmer, kana, Han with its extensions, Hangul.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
_URL = r"(?:[a-z][a-z0-9+.-]*://|www\.|mailto:)[^\s<>\"'\u3000-\u303f\uff00-\uff0f\u4e00-\u9fff]*[\w/=&#+~-]"
_EMAIL = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
_ADDRESS = re.compile(f"{_URL}|{_EMAIL}", re.IGNORECASE)
# A hyphen before one of these makes an adjective of the name, not a longer name.
_ADJECTIVE = re.compile(
    r"-(?:based|like|powered|style|driven|inspired|related|trained|branded|specific)(?![\w-])"
)
# What goes on after a name (`qwen:7b`, `Qwen+`), and what leads up to one (`Name:Qwen` is a label, not a word).
_JOINERS = {+1: "-.:+@_\u2010\u2011/\\", -1: "-._\u2010\u2011/\\"}
_SLASHES = "/\\"


class Kind(Enum):
    """What an occurrence of a name in a text is."""

    NAME = "name"
    LONGER = "longer name"
    PART = "part of another word"
    ADDRESS = "address"


@dataclass(frozen=True)
class Occurrence:
    """A place in a text where a name stands: `text[start:end]`, seen as part of `word`."""

    start: int
    end: int
    kind: Kind
    word: str


@dataclass(frozen=True)
class Replacement:
    """A text in which a name was replaced.

    Attributes:
        text: The new text.
        count: Occurrences replaced; 0 means that `text` is the input.
        skipped: Longer names and addresses left alone, in order of appearance, each once.
    """

    text: str
    count: int
    skipped: tuple[str, ...] = ()


def contains_name(text: str, name: str) -> bool:
    """Whether `text` says `name` as a whole word (any case; longer names and addresses do not count)."""
    return any(found.kind is Kind.NAME for found in occurrences(text, name))


def replace_name(text: str, old: str, new: str) -> Replacement:
    """Replace each whole word `old` by `new`, keeping the case it was written in.

    `QWEN` becomes `DEEP QWEN` and `qwen` becomes `deep qwen`; an `old` that is part of `new` stays, so
    that replacing twice is replacing once, also when one name contains the other.

    Args:
        text: Any text.
        old: The name to replace.
        new: The name to put there.

    Raises:
        ValueError: A name has no visible character.
    """
    count = 0
    # One pass settles ordinary text. A further one is needed where the new name completes an old one with
    # what stood next to it (`Deep Deep Qwen` to `Qwen`); the bound is for names that would do so for ever.
    for _ in range(len(text) + 1):
        step = _replace_once(text, old, new)
        text, count = step.text, count + step.count
        if step.count == 0:
            break
    return Replacement(text, count, step.skipped)


def leaks(text: str, old: str, new: str) -> bool:
    """Whether `text` says `old` outside of `new`, as itself or as a longer name (`Qwen2.5`); no address."""
    inside = _spans_of(text, new, old)
    return any(
        found.kind in (Kind.NAME, Kind.LONGER) and not _protected(found, inside)
        for found in occurrences(text, old)
    )


def doubled(text: str, old: str, new: str) -> bool:
    """Whether `text` stutters over the new name: `Deep Deep Qwen`, `Deep Qwen Qwen`, `Orion Orion`.

    A stutter is the new name directly after one of its own beginnings, or directly before one of its own
    ends; with the old name glued to the new one (`Orion Qwen`) the text leaks, which `leaks` reports.
    """
    del old
    return any(pattern.search(text) for pattern in _stutters(new))


def occurrences(text: str, name: str) -> Iterator[Occurrence]:
    """Every place where `name` stands in `text`, from left to right, overlaps included."""
    addresses = [found.span() for found in _ADDRESS.finditer(text)]
    for found in _pattern(name).finditer(text):
        start, end = found.span(1)
        first, last = _word_around(text, start, end)
        if any(begin <= start and end <= stop for begin, stop in addresses):
            begin, stop = next(span for span in addresses if span[0] <= start and end <= span[1])
            yield Occurrence(start, end, Kind.ADDRESS, text[begin:stop])
        elif (first, last) == (start, end):
            yield Occurrence(start, end, Kind.NAME, text[start:end])
        else:
            word = text[first:last]
            yield Occurrence(start, end, _kind(text, (first, last), (start, end)), word)


def _kind(text: str, word: tuple[int, int], name: tuple[int, int]) -> Kind:
    """What the word around a name is: the name is bounded by more than letters going on, or it is no name."""
    (first, last), (start, end) = word, name
    if any(mark in text[first:last] for mark in (*_SLASHES, "@", "#")):
        return Kind.ADDRESS
    begins = first == start or _parts(text, start)
    ends = last == end or _parts(text, end)
    return Kind.LONGER if begins and ends else Kind.PART


def _parts(text: str, place: int) -> bool:
    """Whether one name can end and another begin before `text[place]`: `n2`, `n-`, `nV`."""
    left, right = text[place - 1], text[place]
    if left.isalpha() and right.isalpha():
        return left.islower() and right.isupper()
    return not (left.isdigit() and right.isdigit()) and not unicodedata.category(right).startswith("M")


def _replace_once(text: str, old: str, new: str) -> Replacement:
    """One pass from left to right."""
    inside = _spans_of(text, new, old)
    parts: list[str] = []
    skipped: dict[str, None] = {}
    done = count = 0
    for found in occurrences(text, old):
        if found.start < done or _protected(found, inside):
            continue
        if found.kind is not Kind.NAME:
            if found.kind is not Kind.PART:
                skipped[found.word] = None
            continue
        parts += [text[done : found.start], _cased_like(text[found.start : found.end], old, new)]
        done, count = found.end, count + 1
    return Replacement("".join([*parts, text[done:]]), count, tuple(skipped))


def _spans_of(text: str, new: str, old: str) -> list[tuple[int, int]]:
    """Where `new` stands and shields an `old` that it overlaps; nowhere when `new` is a part of `old`."""
    if _pattern(new).search(old):
        return [] if not _same(new, old) else [found.span(1) for found in _pattern(new).finditer(text)]
    return [found.span(1) for found in _pattern(new).finditer(text)]


def _same(one: str, other: str) -> bool:
    return _pattern(one).search(other) is not None and _pattern(other).search(one) is not None


def _protected(found: Occurrence, inside: list[tuple[int, int]]) -> bool:
    """Whether an occurrence touches a span of the new name."""
    return any(start < found.end and found.start < end for start, end in inside)


def _cased_like(found: str, old: str, new: str) -> str:
    """`new` in the case in which `old` was written at this place."""
    written = " ".join(old.split())
    seen = " ".join(found.split())
    for change in (str.upper, str.lower):
        changed = change(new)
        # `straße`.upper() is not read back as the same name: then the name stays as it was given.
        if seen != written and seen == change(written) and _same(changed, new):
            return changed
    return new


@functools.lru_cache(maxsize=256)
def _pattern(name: str) -> re.Pattern[str]:
    """Finds the letters of a name, in either Unicode normal form, any case, any white space inside.

    A lookahead, so that overlapping places are found too.
    """
    forms = sorted(
        {unicodedata.normalize(form, name) for form in ("NFC", "NFD")} | {name}, key=len, reverse=True
    )
    return re.compile(f"(?=({'|'.join(_spaced(form) for form in forms)}))", re.IGNORECASE)


def _spaced(name: str) -> str:
    words = name.split()
    if not words:
        raise ValueError("a name needs at least one visible character")
    return r"\s+".join(re.escape(word) for word in words)


@functools.lru_cache(maxsize=256)
def _stutters(new: str) -> tuple[re.Pattern[str], ...]:
    """Patterns for a new name that was begun or ended twice."""
    words = unicodedata.normalize("NFC", new).split()
    whole = _spaced(new)
    patterns: list[re.Pattern[str]] = []
    # With nothing between them (`OrionOrion`) the case must be as given: `mama` is not twice `Ma`.
    for gap, flags in ((r"[\s_\u2010\u2011-]+", re.IGNORECASE), ("", re.NOFLAG)):
        for size in range(1, len(words) + 1):
            begin, end = _spaced(" ".join(words[:size])), _spaced(" ".join(words[-size:]))
            patterns.append(re.compile(rf"(?<!\w){begin}{gap}{whole}(?!\w)", flags))
            patterns.append(re.compile(rf"(?<!\w){whole}{gap}{end}(?!\w)", flags))
    return tuple(patterns)


def _word_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The word that `text[start:end]` is part of, as a span; the same span when it stands alone."""
    first, last = start, end
    if not _UNSPACED.match(text[start]):
        first = _grow(text, start, -1)
    if not _UNSPACED.match(text[end - 1]) and not _ADJECTIVE.match(text, end):
        last = _grow(text, end, +1)
    return first, last


def _grow(text: str, edge: int, direction: int) -> int:
    """Move an edge outwards while the text goes on without a word boundary."""

    def at(distance: int) -> str:
        place = edge + distance if direction > 0 else edge - 1 - distance
        return text[place] if 0 <= place < len(text) else ""

    while True:
        if _joins(at(0)):
            edge += direction
        elif at(0) and at(0) in _JOINERS[direction] and _joins(at(1)):
            edge += 2 * direction
        elif direction < 0 and at(0) and at(0) in _SLASHES + "@#":  # a handle, a hashtag, the root of a path
            return edge - 1
        else:
            return edge


def _joins(character: str) -> bool:
    """Whether a character next to a word belongs to that word."""
    if not character or _UNSPACED.match(character):
        return False
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")
