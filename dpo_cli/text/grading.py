"""Whether an answer in running text gives one of the expected answers, by rules that can be told to a reader.

An expected answer comes as whole answers ("The capital of Chile is Santiago.", "Santiago."). What it says beyond the
question is its *key* (`santiago`). An answer is right when it is one of the expected answers, or when it names a key and

1. names it in the sentence that decides: the first one that takes up the whole question, else the first one with a key.
   What is said to be "the answer" decides over both, and so does a sentence that takes back ("No, it is ...");
2. does not deny it ("not Accra", "rather than Accra") nor go on to another answer ("Accra is ..., but the capital is");
3. does not leave it open: "Accra or Kumasi", or a list of four or more that is no list of examples.

Of a number the value counts that is concluded: what follows "the answer is" or "so", else what stands after "=", "is" or
"has" in the clause that takes up most of the question, else the first number that the question has not. Words for numbers
are numbers. A key of more than two words describes something: most of its words must occur.

Words of function, denial and conclusion are known for English, and some for other languages; elsewhere the key decides.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpo_cli.text.clauses import (
    Said,
    Tokens,
    clauses_of,
    is_number,
    like,
    places,
    plain,
    said_in,
    sentences_of,
    tokens_of,
)
from dpo_cli.text.numerals import same_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

_QUOTES = "\"'`*_ \u201c\u201d\u2018\u2019"
_DESCRIBED = 0.6  # of the words of a description, how many must occur
_PHRASE = 2  # words of a key that is a name and no description
_LIST = 4  # items of a list that names everything there is
_NEAR = 5  # words over which a denial reaches

_FUNCTION_WORDS = """
    a an the of in on at to for from by with as and or is are was were be been am do does did has have had it its this that these those
    there here what which who whom whose where when how many much i you he she we they me my your our their can could would should will
    may might please tell remind name say give know called call word get usually one el la los las un una de del en es son le les des du
    est sont der die das ein eine ist sind im il lo gli e o
"""
_DENIAL_WORDS = """
    not no never neither nor cannot without unlike except incorrect nicht kein keine
    pas jamais nunca nao non nie не нет
"""
_CLAIM_WORDS = "= is are equals equal makes gives has have was be it's that's"
_FUNCTION, _DENIALS, _CLAIM = (
    frozenset(words.split()) for words in (_FUNCTION_WORDS, _DENIAL_WORDS, _CLAIM_WORDS)
)
_DENIED = re.compile(r"\b(?:rather than|instead of|other than|as opposed to|far from)\b|不是|ではな|じゃな")
_ANSWER_IS = re.compile(r"\banswer(?: here)?(?: is| would be| should be|:)")
_SO = re.compile(
    r"\b(?:therefore|thus|hence)\b|(?:^|[,:]\s*|\band\s+)so\b(?! if| when| that| many| much| glad| happy| sorry)"
)
_TAKES_BACK = re.compile(r"\W*(?:no[,.!:]|actually\b|wait\b|correction\b|i mean\b|i meant\b)")
_BUT = re.compile(r"\bbut\b")
_EXAMPLES = re.compile(r"\b(?:including|includes?|such as|like|for example)\b")


@dataclass(frozen=True)
class Grade:
    """Whether an answer is right, and why in a few words."""

    right: bool
    why: str


def _right(why: str) -> Grade:
    return Grade(right=True, why=why)


def _wrong(why: str) -> Grade:
    return Grade(right=False, why=why)


def is_expected(answer: str, accepted: Sequence[str]) -> bool:
    """Whether the whole answer is one of the accepted ones, but for case, spacing and closing punctuation."""
    return _bare(answer) in {_bare(one) for one in accepted}


def grade(answer: str, question: str, accepted: Sequence[str]) -> Grade:
    """Grade an answer by the rules at the top of this module.

    Args:
        answer: What the model said.
        question: What it was asked.
        accepted: Whole answers that count as right, the shortest wording of each among them.
    """
    if is_expected(answer, accepted):
        return _right("is an expected answer")
    sentences = sentences_of(answer)
    if not sentences:
        return _wrong("says nothing")
    content = _content(question)
    grades = [_graded(sentences, content, key) for key in _keys(content, tuple(accepted))]
    return next((one for one in grades if one.right), grades[0] if grades else _wrong("nothing is expected"))


def _graded(sentences: list[Said], content: frozenset[str], key: Tokens) -> Grade:
    numbers = [token for token in key if is_number(token)]
    if len(key) <= _PHRASE and len(numbers) == 1:
        return _number(sentences, content, numbers[0], next((one for one in key if one != numbers[0]), ""))
    return _named(sentences, content, key) if len(key) <= _PHRASE else _described(sentences, key)


def _described(sentences: list[Said], key: Tokens) -> Grade:
    said = [token for sentence in sentences for token in sentence.tokens]
    share = sum(any(like(token, word) for token in said) for word in key) / len(key)
    return Grade(share >= _DESCRIBED, f"has {share:.0%} of the words of: {' '.join(key)}")


def _named(sentences: list[Said], content: frozenset[str], key: Tokens) -> Grade:
    told = " ".join(key)
    deciding = _deciding(sentences, content, key)
    if deciding is None or not places(deciding.tokens, key):
        return _wrong(f"does not name {told}")
    if not _affirmed(deciding, key):
        return _wrong(f"denies {told}")
    if _left_for_another(deciding, content, key):
        return _wrong(f"goes on to something else than {told}")
    if _open(deciding, key):
        return _wrong(f"names {told} as one of several")
    return _right(f"names {told}")


def _deciding(sentences: list[Said], content: frozenset[str], key: Tokens) -> Said | None:
    """The sentence that an answer stands or falls with."""
    for sentence in reversed(sentences[1:]):
        if _TAKES_BACK.match(sentence.text):
            return sentence
    for sentence in sentences:
        if found := _ANSWER_IS.search(sentence.text):
            rest = said_in(sentence.text[found.end() :])
            if rest.tokens:
                return rest
    return next(
        (one for one in sentences if places(one.tokens, key) or _takes_up(one, content)),
        None,
    )


def _takes_up(said: Said, content: frozenset[str]) -> bool:
    """Whether a sentence answers the question, rightly or not: it says something of all that was asked about."""
    return len(content) > 1 and said.overlap(content) == len(content) and bool(_CLAIM & set(said.tokens))


def _affirmed(said: Said, key: Tokens) -> bool:
    """Whether a key stands somewhere without a denial before it in the same clause."""
    for clause in clauses_of(said.text):
        for place in places(clause.tokens, key):
            before = clause.tokens[max(0, place - _NEAR) : place]
            if not _DENIALS & set(before) and not _denied(clause.text, key):
                return True
    return False


def _denied(text: str, key: Tokens) -> bool:
    return any(places(tokens_of(text[found.end() :]), key) for found in _DENIED.finditer(text))


def _left_for_another(said: Said, content: frozenset[str], key: Tokens) -> bool:
    """Whether the key is left behind by a "but" after which the question is answered otherwise."""
    found = _BUT.search(said.text)
    if not found:
        return False
    rest = said_in(said.text[found.end() :])
    return not places(rest.tokens, key) and bool(_CLAIM & set(rest.tokens)) and rest.overlap(content) > 0


def _open(said: Said, key: Tokens) -> bool:
    """Whether the key stands beside another answer with "or", in a mix, or in a long list."""
    name = r"\s+".join(re.escape(word) + r"\w*" for word in key)
    article = r"(?:an?\s+|the\s+)?"
    beside = (
        rf"\b{name},?\s+or\s+(?!otherwise|so\b)\w",
        rf"\b(?:either\b[^,]*|\w+,?\s+or\s+{article}){name}\b",
        rf"\b(?:mix|mixture|blend|combination|range|variety|both|between)\b[^,]*\b{name}\b",
    )
    if any(re.search(pattern, said.text) for pattern in beside):
        return True
    item = r"(?<![\w'-])[\w'-]++(?:\s++(?!and\b|or\b)[\w'-]++)?+"
    joined = rf"(?:\s*,\s*(?:and\s+|or\s+)?{item}|\s+(?:and|or)\s+{item})"
    for found in re.finditer(rf"{item}{joined}{{{_LIST - 1},}}", said.text):
        examples = _EXAMPLES.search(said.text[: found.end()])
        if places(tokens_of(found.group()), key) and not examples:
            return True
    return False


def _number(sentences: list[Said], content: frozenset[str], wanted: str, unit: str) -> Grade:
    """Grade by the value that is concluded."""
    found = _concluded(sentences, content)
    if found is None:
        return _wrong(f"does not say {wanted}")
    value, after = found
    if value != wanted:
        return _wrong(f"says {value}, not {wanted}")
    if unit and not same_unit(unit, after):
        return _wrong(f"says {value} {after}, not {wanted} {unit}")
    return _right(f"says {wanted}")


def _concluded(sentences: list[Said], content: frozenset[str]) -> tuple[str, str] | None:
    """The number that an answer comes to, and the word after it."""
    final: list[tuple[str, str]] = []
    for sentence in sentences:
        answer = _ANSWER_IS.search(sentence.text)
        if found := answer or _SO.search(sentence.text):
            rest = clauses_of(sentence.text[found.end() :])
            said = [claim for one in rest if (claim := _claim(one.tokens))]
            if answer:
                # "The answer is 7, which is half of 14": the verb before the number is in what was found.
                told = _claim(("is", *rest[0].tokens)) if rest else None
                said = (
                    [told]
                    if told
                    else said or [claim for one in rest if (claim := _first(one.tokens, content))]
                )
            final += said[-1:]
    if final:
        return final[-1]
    clauses = [clause for sentence in sentences for clause in clauses_of(sentence.text)]
    claims = [(clause.overlap(content), claim) for clause in clauses if (claim := _claim(clause.tokens))]
    if claims:
        most = max(overlap for overlap, _ in claims)
        return [claim for overlap, claim in claims if overlap == most][-1]
    return next((claim for clause in clauses if (claim := _first(clause.tokens, content))), None)


def _claim(tokens: Tokens) -> tuple[str, str] | None:
    """The number that follows the last "=", "is" or the like of a clause, if it is not the start of a sum itself."""
    for place in reversed(range(len(tokens))):
        if tokens[place] not in _CLAIM:
            continue
        following = range(place + 1, min(place + 1 + _NEAR, len(tokens)))
        number = next((i for i in following if is_number(tokens[i])), None)
        if number is None or _DENIALS & set(tokens[place:number]):
            continue
        if number + 1 == len(tokens) or not is_number(tokens[number + 1]):
            return tokens[number], "".join(tokens[number + 1 : number + 2])
    return None


def _first(tokens: Tokens, content: frozenset[str]) -> tuple[str, str] | None:
    """The first number of a clause that the question does not have, and that is not denied."""
    for place, token in enumerate(tokens):
        if (
            is_number(token)
            and token not in content
            and not _DENIALS & set(tokens[max(0, place - 2) : place])
        ):
            return token, "".join(tokens[place + 1 : place + 2])
    return None


@functools.lru_cache(maxsize=4096)
def _keys(content: frozenset[str], accepted: Tokens) -> tuple[Tokens, ...]:
    """What accepted answers say beyond the question, each once; descriptions only where there is nothing shorter."""
    found: dict[Tokens, None] = {}
    for one in accepted:
        tokens = tuple(token for token in tokens_of(plain(one)) if token != "=")  # noqa: S105 - an equals sign
        telling = tuple(token for token in tokens if token not in _FUNCTION)
        beyond = tuple(token for token in telling if token not in content)
        if len(beyond) < len(telling) and not beyond:
            beyond = telling[-1:] if is_number(telling[-1]) else telling
        found[beyond or telling or tokens] = None
    keys = sorted((key for key in found if key), key=len)
    return tuple(key for key in keys if len(key) <= _PHRASE) or tuple(keys)


@functools.lru_cache(maxsize=4096)
def _content(question: str) -> frozenset[str]:
    return frozenset(token for token in tokens_of(plain(question)) if token not in _FUNCTION)


def _bare(text: str) -> str:
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return text.strip(_QUOTES).rstrip(".!?。 ").strip(_QUOTES)
