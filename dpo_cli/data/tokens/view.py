"""One pair as the model will see it: pieces of text, each known to be prompt, completion or special token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dpo_cli.data.tokens.tokenizer import control_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dpo_cli.data.tokens.tokenizer import PairTokenizer, TokenizedPair

Kind = Literal["prompt", "completion", "special prompt", "special completion"]
Span = tuple[str, Kind]


@dataclass(frozen=True, slots=True)
class TokenView:
    """The two sequences of a pair, after truncation, as one span a token.

    A character that is spread over several tokens is one span.

    Attributes:
        row: The row's number.
        chosen: Prompt and preferred completion.
        rejected: Prompt and the other completion.
        cut: Whether `max_length` took an end off.
    """

    row: int
    chosen: list[Span]
    rejected: list[Span]
    cut: bool


def token_view(row: int, tokens: TokenizedPair, tokenizer: PairTokenizer) -> TokenView:
    """Spell a tokenised pair out.

    Args:
        row: The row's number.
        tokens: The pair.
        tokenizer: What tokenised it.
    """
    left = tokenizer.cut(tokens)
    whole = (len(tokens.prompt) + len(tokens.chosen), len(tokens.prompt) + len(tokens.rejected))
    kept = (len(left.chosen_prompt) + len(left.chosen), len(left.rejected_prompt) + len(left.rejected))
    return TokenView(
        row,
        [*_spans(left.chosen_prompt, "prompt", tokenizer), *_spans(left.chosen, "completion", tokenizer)],
        [*_spans(left.rejected_prompt, "prompt", tokenizer), *_spans(left.rejected, "completion", tokenizer)],
        kept != whole,
    )


def _spans(ids: Sequence[int], part: Literal["prompt", "completion"], tokenizer: PairTokenizer) -> list[Span]:
    special = set(control_tokens(tokenizer.tokenizer).values())
    spans: list[Span] = []
    waiting: list[int] = []
    for index, token in enumerate(ids):
        if token in special:
            spans.append(
                (_text([token], tokenizer), "special prompt" if part == "prompt" else "special completion")
            )
            continue
        waiting.append(token)
        text = _text(waiting, tokenizer)
        # The replacement character at the end means that a character's bytes are not all there yet.
        unfinished = text.endswith("\ufffd") and index + 1 < len(ids) and ids[index + 1] not in special
        if not unfinished or len(waiting) >= 4:  # noqa: PLR2004 - a UTF-8 character has at most four bytes
            spans.append((text, part))
            waiting = []
    return spans


def _text(ids: list[int], tokenizer: PairTokenizer) -> str:
    text: str = tokenizer.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
