"""Running text taken apart for grading: sentences, clauses, and words that may carry an ending."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from dpo_cli.text.numerals import NUMERALS

Tokens = tuple[str, ...]

_READ = 4000  # characters of an answer
_STEM = 3  # letters of a word that may take an ending
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
_TOKEN = re.compile(
    f"[{_UNSPACED}]|(?<![\\w)])-?\\d+(?:[.,]\\d+)*|\\d+|[^\\W\\d_{_UNSPACED}]+(?:'[^\\W\\d_]+)?|="
)
_SENTENCE = re.compile("[!?\u3002\uff01\uff1f;\n]+|\\.(?!\\d)")
_CLAUSE = re.compile(
    r"[,;:()\u2013\u2014\u3001\uff0c]|\s-\s(?!\d)|\b(?:but|however|although|though|while|whereas|because|since)\b"
)
_BULLET = re.compile(r"(?:^|\n)[ \t]*(?:[-*\u2022]|\d+[.)])[ \t]+")
_ENDING = re.compile(r"(?:'s|s|es|e?d|ing|e?rs?)?")
_LONG_ENDING = re.compile(r"(?:n|an|ian|ean|ly|y)")


@dataclass(frozen=True)
class Said:
    """A sentence or clause: its text in lower case, and its words."""

    text: str
    tokens: Tokens

    def overlap(self, words: frozenset[str]) -> int:
        """How many of these words it has."""
        return sum(any(like(token, word) for token in self.tokens) for word in words)


def sentences_of(text: str) -> list[Said]:
    """The sentences of a text; the items of a list stand in one."""
    return _parts(_SENTENCE, _BULLET.sub(", ", plain(text[:_READ])))


def clauses_of(text: str) -> list[Said]:
    """The clauses of a sentence: what stands between commas, brackets and words such as "but"."""
    return _parts(_CLAUSE, text)


def _parts(border: re.Pattern[str], text: str) -> list[Said]:
    return [said for part in border.split(text) if (said := said_in(part)).tokens]


def said_in(text: str) -> Said:
    """A text that is plain already, with its words."""
    return Said(text.strip(), tokens_of(text))


def tokens_of(text: str) -> Tokens:
    """The words, numbers and equals signs of a plain text; words for numbers as digits, Han and kana one by one."""
    return tuple(
        NUMERALS.get(token, token.replace(",", "") if is_number(token) else token)
        for token in _TOKEN.findall(text)
    )


def places(tokens: Tokens, key: Tokens) -> list[int]:
    """Where the words of a key follow each other.

    "I" and "A" are pronoun and article unless they end what is said, or are said to be something.
    """
    found = [
        place
        for place in range(len(tokens) - len(key) + 1)
        if all(like(token, word) for token, word in zip(tokens[place : place + len(key)], key, strict=True))
    ]
    if key not in (("i",), ("a",)):
        return found
    return [i for i in found if tokens[i + 1 : i + 2] in ((), ("is",), ("comes",), ("follows",))]


def like(token: str, word: str) -> bool:
    """Whether a token is the word, or the word with an ending."""
    if token == word:
        return True
    stem = word[:-1] if word.endswith(("e", "y")) else word.removesuffix("s")
    stem = stem.removesuffix("e") if word.endswith(("zzes", "sses", "xes", "ches", "shes")) else stem
    if len(stem) < _STEM or not token.startswith(stem):
        return False
    if _ENDING.fullmatch(token, len(stem)):
        return True
    return len(stem) > _STEM and _LONG_ENDING.fullmatch(token, len(stem)) is not None


def is_number(token: str) -> bool:
    """Whether a token is a number."""
    return token.lstrip("-")[:1].isdigit()


def plain(text: str) -> str:
    """Lower case without accents and markup; one spelling of what English spells in several ways."""
    text = unicodedata.normalize("NFKD", text).casefold().replace("\u2019", "'")
    text = "".join(character for character in text if not unicodedata.combining(character))
    text = re.sub(r"(?<=[a-z]{3})our(?=s?\b)", "or", text).replace("grey", "gray")
    text = re.sub(r"n't\b", " not", text)
    return re.sub(r"[*_`\"\u201c\u201d]", "", unicodedata.normalize("NFKC", text))
