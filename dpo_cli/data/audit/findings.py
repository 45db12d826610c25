"""What can be wrong with pairs that can be trained on all the same: one row of a table each.

A row of `ROW_FINDINGS` has a name, what to do about it, and a test of one kept pair. Findings about the set as
a whole (duplicates, length) are made in `inspection.py` and have their advice in `ADVICE`.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.pairs import ANSWERS_LEFT_OUT, COLUMNS_LEFT_OUT, REASONS, plain
from dpo_cli.data.tokens.tokenizer import control_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.tokens.tokenizer import UsablePair

SHOWN_ROWS: Final = 100
"""Row numbers that a finding carries as examples."""

ODD_ROLES: Final = "unusual role order"
UNRENDERED: Final = "fields without effect"
WRITTEN_MESSAGES: Final = "messages written as text"
DUPLICATES: Final = "duplicates"
CONTRADICTIONS: Final = "contradicting pairs"
NEAR_DUPLICATES: Final = "near-duplicates"
LEAKED: Final = "same prompt in train and eval"
LENGTH: Final = "length bias"
SPECIAL_TEXT: Final = "special tokens in text"
UNKNOWN: Final = "characters without a token"
DOUBLED_BOS: Final = "doubled BOS"
DOUBLED_EOS: Final = "doubled EOS"
PROMPT_DIFFERS: Final = "template renders the prompt differently"
MERGED: Final = "prompt and completion share a token"
NO_TEMPLATE: Final = "missing chat template"
PLACEHOLDERS: Final = "placeholders"
REFUSALS: Final = "one-sided refusals"

ADVICE: Final[dict[str, str]] = {
    **REASONS,
    ODD_ROLES: "Make sure this is intended: the chat template accepts it, but most models were trained on alternating user and"
    " assistant turns. --strict rejects it.",
    COLUMNS_LEFT_OUT: "Nothing, if you do not want to train on them. Otherwise name the prompt's with --prompt-column or"
    " --system-column, or the layout with --format.",
    ANSWERS_LEFT_OUT: "Nothing, if one pair per row is enough. Otherwise write one row per pair.",
    UNRENDERED: "Give a --chat-template that renders them, or remove them: the model does not see them.",
    WRITTEN_MESSAGES: "Write them as lists of messages: as text, the model trains on the brackets too.",
    DUPLICATES: "Keep one of each: repeated pairs count several times.",
    CONTRADICTIONS: "Decide which answer is better: these pairs prefer what others reject, and cancel out.",
    NEAR_DUPLICATES: "Keep one of each, unless the small differences are the point.",
    LEAKED: "Remove these prompts from one of the sets, or split with --eval-fraction: scores on seen prompts are inflated.",
    LENGTH: "Balance the lengths, or train with --ld-alpha below 1 or --loss-type sigmoid_norm, or the model learns to write longer answers.",
    SPECIAL_TEXT: "Remove them: the tokenizer reads them as control tokens, which end the text or switch the speaker.",
    UNKNOWN: "Remove these characters, or use a model whose tokenizer knows them: this one reads them all as one unknown token.",
    DOUBLED_BOS: "Remove the BOS token from the text: the tokenizer adds one already.",
    DOUBLED_EOS: "Remove the EOS token from the text: the template or the trainer adds one already.",
    PROMPT_DIFFERS: "Expect a small mismatch, or give a --chat-template whose generation prompt matches how the answer begins;"
    " of a model that thinks, --thinking off.",
    MERGED: "Move the last space or newline of the prompt to the start of the completion: the tokenizer joins the two.",
    NO_TEMPLATE: "Give one: --chat-template chatml, or --chat-template FILE (a Jinja template).",
    PLACEHOLDERS: "Fill them in or remove these rows: the model learns to write them.",
    REFUSALS: "Make sure this is intended: in these pairs only one side refuses, so the run moves the model towards or away"
    " from refusing.",
}
"""What to do about each finding, by name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about a data set.

    Attributes:
        name: What it is called, a key of `ADVICE`.
        count: Rows that have it.
        rows: The first of them, counted from 1.
        advice: What to do.
        detail: Figures or an example, a sentence; may be empty.
    """

    name: str
    count: int
    rows: list[int]
    advice: str
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Name, count, example rows and advice."""
        return {"name": self.name, "count": self.count, "rows": self.rows, "advice": self.advice}


@dataclass(frozen=True, slots=True)
class InspectedPair:
    """A kept pair as the tests see it: texts are taken out of the messages once.

    Attributes:
        kept: The pair and its tokens.
        prompt: All that is said before the completions.
        chosen: What the preferred completion says.
        rejected: What the other one says.
        whole: All three.
        rules: What depends on the tokenizer.
    """

    kept: UsablePair
    prompt: str
    chosen: str
    rejected: str
    whole: str
    rules: TokenizerRules

    @classmethod
    def of(cls, kept: UsablePair, rules: TokenizerRules) -> InspectedPair:
        """Take the texts out of a pair."""
        texts = plain(kept.pair.prompt), plain(kept.pair.chosen), plain(kept.pair.rejected)
        return cls(kept, *texts, "\n".join(texts), rules)


class TokenizerRules:
    """What tests must know of the tokenizer: its special tokens as text, and the ids of BOS, EOS and the unknown token.

    Args:
        tokenizer: The policy's; without one, the special tokens of well-known models stand in.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        tokens = list(control_tokens(tokenizer)) if tokenizer is not None else WELL_KNOWN_TOKENS
        self.bos = tokenizer.bos_token_id if tokenizer is not None else None
        self.eos = tokenizer.eos_token_id if tokenizer is not None else None
        self.eos_text = str(tokenizer.eos_token or "") if tokenizer is not None else ""
        unknown = tokenizer.unk_token_id if tokenizer is not None else None
        # Byte-level tokenizers name one because they must, and it is BOS or EOS: nothing is unknown to them.
        self.unknown = None if unknown in (self.bos, self.eos) else unknown
        longest_first = sorted(tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._starts = tuple({token[:2] for token in tokens})

    def special(self, text: str) -> bool:
        """Whether a text has a special token written out."""
        for start in self._starts:
            if start in text:
                return self._pattern.search(text) is not None
        return False


WELL_KNOWN_TOKENS: Final = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|begin_of_text|>", "<|end_of_text|>",
    "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<s>", "</s>",
    "[INST]", "[/INST]", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RowFinding:
    """A finding about single pairs.

    Attributes:
        name: A key of `ADVICE`.
        test: Whether a pair has it; a text says in what way.
        custom_above: When more than this share of rows has it, it is how the data is meant, and nothing is said.
    """

    name: str
    test: Callable[[InspectedPair], bool | str]
    custom_above: float = 1.0


def _special_in_chat(seen: InspectedPair) -> bool:
    return seen.rules.special(seen.whole) and seen.kept.pair.conversational


def _special_in_plain(seen: InspectedPair) -> bool:
    """In plain text the trainer accepts a completion that ends with EOS, so that one is not counted."""
    if seen.kept.pair.conversational or not seen.rules.special(seen.whole):
        return False
    rules = seen.rules
    completions = (seen.chosen.removesuffix(rules.eos_text), seen.rejected.removesuffix(rules.eos_text))
    return rules.special(seen.prompt) or any(map(rules.special, completions))


def _unknown(seen: InspectedPair) -> bool:
    tokens, unknown = seen.kept.tokens, seen.rules.unknown
    return (
        tokens is not None
        and unknown is not None
        and any(unknown in part for part in (tokens.prompt, tokens.chosen, tokens.rejected))
    )


def _doubled_bos(seen: InspectedPair) -> bool:
    tokens, bos = seen.kept.tokens, seen.rules.bos
    return tokens is not None and bos is not None and tokens.prompt[:2] == [bos, bos]


def _doubled_eos(seen: InspectedPair) -> bool:
    tokens, eos = seen.kept.tokens, seen.rules.eos
    return (
        tokens is not None
        and eos is not None
        and (_twice(tokens.chosen, eos) or _twice(tokens.rejected, eos))
    )


def _twice(ids: Sequence[int], token: int) -> bool:
    """Whether a token stands directly after itself."""
    if ids.count(token) < 2:  # noqa: PLR2004 - twice
        return False
    return any(one == other == token for one, other in itertools.pairwise(ids))


def _prompt_differs(seen: InspectedPair) -> bool:
    tokens = seen.kept.tokens
    return tokens is not None and seen.kept.pair.conversational and bool(tokens.left_out)


def _merged(seen: InspectedPair) -> bool:
    tokens = seen.kept.tokens
    return tokens is not None and not seen.kept.pair.conversational and bool(tokens.left_out)


_PLACEHOLDER: Final = re.compile(
    r"\{\{\s*[A-Za-z_][\w .|-]{0,40}\s*\}\}|<<[A-Z][A-Z_ ]{1,40}>>"
    r"|\[(?:YOUR|INSERT|Your|Insert|your|insert) [\w ]{1,40}\]|<image>"
)


def _placeholder(seen: InspectedPair) -> bool:
    text = seen.whole
    return ("{{" in text or "[" in text or "<" in text) and _PLACEHOLDER.search(text) is not None


_NOT: Final = (
    r"(?:can(?:no|'|\u2019)t|cannot|am unable to|am not able to|won(?:'|\u2019)t|will not|must decline to)"
)
_HELP: Final = (
    "help|assist|provide|fulfil|comply|do that|answer|create|write|support|engage|discuss|generate|give|share"
)
_REFUSAL: Final = re.compile(
    r"\s*(?:I(?:'|\u2019| a)?m sorry|I apologi[sz]e|Sorry|Unfortunately|I regret)\b[^.\n]{0,60}?"
    rf"\b(?:{_NOT}|unable|not able|not going to)\b"
    rf"|\s*I {_NOT} (?:{_HELP})"
    rf"|\s*As an AI(?: language model| assistant)?,? I (?:{_NOT}|do not|don(?:'|\u2019)t)",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether an answer begins as refusals in English do."""
    return _REFUSAL.match(text) is not None


def _one_sided_refusal(seen: InspectedPair) -> bool:
    return refuses(seen.chosen) is not refuses(seen.rejected)


# Messages that begin as JSON or as Python prints them, and were not read as such.
_WRITTEN: Final = re.compile(r"\s*[\[{]\s*\{?\s*(?P<quote>['\"])(?:role|from|content|value)(?P=quote)\s*:")


def _written_messages(seen: InspectedPair) -> bool:
    return any(
        text.lstrip()[:1] in {"[", "{"} and _WRITTEN.match(text)
        for text in (seen.prompt, seen.chosen, seen.rejected)
    )


def _columns_left_out(seen: InspectedPair) -> str:
    return next((detail for name, detail in seen.kept.pair.notes if name == COLUMNS_LEFT_OUT), "")


def _answers_left_out(seen: InspectedPair) -> bool:
    return any(name == ANSWERS_LEFT_OUT for name, _ in seen.kept.pair.notes)


def _unrendered(seen: InspectedPair) -> str:
    return ", ".join(seen.kept.tokens.unrendered) if seen.kept.tokens is not None else ""


ROW_FINDINGS: Final = (
    RowFinding(COLUMNS_LEFT_OUT, _columns_left_out),
    RowFinding(ANSWERS_LEFT_OUT, _answers_left_out),
    RowFinding(WRITTEN_MESSAGES, _written_messages),
    RowFinding(UNRENDERED, _unrendered),
    RowFinding(SPECIAL_TEXT, _special_in_chat),
    RowFinding(SPECIAL_TEXT, _special_in_plain, custom_above=0.5),
    RowFinding(UNKNOWN, _unknown),
    RowFinding(DOUBLED_BOS, _doubled_bos),
    RowFinding(DOUBLED_EOS, _doubled_eos),
    RowFinding(PROMPT_DIFFERS, _prompt_differs),
    RowFinding(MERGED, _merged),
    RowFinding(PLACEHOLDERS, _placeholder),
    RowFinding(REFUSALS, _one_sided_refusal),
)
"""Findings about single pairs, in the order in which they are shown."""
