"""What the model sees of a pair: token ids after the chat template and truncation.

The rules are those of TRL 1.16 (`DPOTrainer._prepare_dataset` and `DataCollatorForPreference`), in batches:
prompt, prompt with chosen and prompt with rejected are each tokenised whole; the prompt ends where the
first of the three differs; `max_length` cuts prompt and completion together. A test holds the ids against
TRL's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from dpo_cli.config import Truncation
from dpo_cli.data.pairs import (
    EMPTY,
    IDENTICAL,
    IDENTICAL_CUT,
    PROMPT_FILLS,
    Pair,
    RowProblem,
)
from dpo_cli.data.tokens.encoding import TripleEncoder
from dpo_cli.data.tokens.rendering import ChatRenderer, Triple
from dpo_cli.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

_UNCUT: Final = Truncation()


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A pair in token ids, before anything is cut.

    Attributes:
        prompt: Ids that both sequences begin with, up to the end of the prompt.
        chosen: Ids of the preferred completion.
        rejected: Ids of the other completion.
        left_out: Ids at the end of the prompt, rendered alone, that the sequences do not have; empty when the
            prompt is a prefix of both, as it should be.
        unrendered: Fields of the messages that the chat template did not write, in words.
    """

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    left_out: list[int]
    unrendered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UsablePair:
    """A row that is a pair to train on.

    Attributes:
        number: Its place in the data set, from 1.
        pair: The pair.
        tokens: Its token ids; None without a tokenizer.
    """

    number: int
    pair: Pair
    tokens: TokenizedPair | None


@dataclass(frozen=True, slots=True)
class CutPair:
    """A pair in token ids as it is trained on. The prompt may be cut differently before each completion."""

    chosen_prompt: list[int]
    chosen: list[int]
    rejected_prompt: list[int]
    rejected: list[int]


class PairTokenizer:
    """Tokenises pairs as TRL does.

    Args:
        tokenizer: The policy's.
        truncation: How a sequence that is too long is cut.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, truncation: Truncation = _UNCUT) -> None:
        self.tokenizer = tokenizer
        self.truncation = truncation
        self._encoder = TripleEncoder(tokenizer)
        self._renderer = ChatRenderer(tokenizer)

    def tokenize(self, pairs: Sequence[Pair]) -> list[TokenizedPair | RowProblem]:
        """Token ids of each pair, in order, or why there are none.

        Args:
            pairs: Checked pairs, standard and conversational ones mixed as they come.

        Returns:
            One entry a pair; a problem where the chat template refuses the conversation.

        Raises:
            ModelError: A conversational pair, and the tokenizer has no chat template.
        """
        if any(pair.conversational for pair in pairs) and not self.tokenizer.chat_template:
            raise missing_template()
        chats = iter(self._renderer.render([pair for pair in pairs if pair.conversational]))
        rendered = [next(chats) if pair.conversational else self._plain(pair) for pair in pairs]
        readable = [
            (pair, text)
            for pair, text in zip(pairs, rendered, strict=True)
            if not isinstance(text, RowProblem)
        ]
        shared = iter(self._encoder.triples([triple for pair, triple in readable if pair.conversational]))
        ids = iter(
            self._encoder.plain(
                [text for pair, triple in readable if not pair.conversational for text in triple]
            )
        )
        return [
            text
            if isinstance(text, RowProblem)
            else replace(_cut_at_prompt(*next(shared)), unrendered=self._renderer.left_out(pair, text))
            if pair.conversational
            else _cut_at_prompt([], next(ids), next(ids), next(ids))
            for text, pair in zip(rendered, pairs, strict=True)
        ]

    def _plain(self, pair: Pair) -> Triple:
        """The texts of a standard pair: TRL ends completions with the EOS token where they lack it."""
        end = self.tokenizer.eos_token or ""
        prompt, chosen, rejected = str(pair.prompt), str(pair.chosen), str(pair.rejected)
        return (
            prompt,
            prompt + (chosen if chosen.endswith(end) else chosen + end),
            prompt + (rejected if rejected.endswith(end) else rejected + end),
        )

    def cut(self, tokens: TokenizedPair) -> CutPair:
        """What of a pair is left within `max_length`, as TRL's collator cuts it."""
        return CutPair(*self._cut(tokens.prompt, tokens.chosen), *self._cut(tokens.prompt, tokens.rejected))

    def _cut(self, prompt: list[int], completion: list[int]) -> tuple[list[int], list[int]]:
        most = self.truncation.max_length
        over = 0 if most is None else len(prompt) + len(completion) - most
        if most is None or over <= 0:
            return prompt, completion
        if self.truncation.mode == "keep_start":
            return prompt[:most], completion[: max(most - len(prompt), 0)]
        return prompt[over:], completion[max(over - len(prompt), 0) :]

    def problem(self, tokens: TokenizedPair) -> RowProblem | None:
        """Why a tokenised pair teaches nothing; None when it does."""
        if tokens.chosen == tokens.rejected:
            detail = "chosen and rejected have the same tokens"
            if tokens.unrendered:
                detail += f"; the chat template does not render {', '.join(tokens.unrendered)}"
            return RowProblem(IDENTICAL, detail)
        for name, ids in (("chosen", tokens.chosen), ("rejected", tokens.rejected)):
            if not ids:
                return RowProblem(EMPTY, f"{name} has no tokens", name)
        longest = len(tokens.prompt) + max(len(tokens.chosen), len(tokens.rejected))
        most = self.truncation.max_length
        return None if most is None or longest <= most else self._cut_problem(tokens, most)

    def _cut_problem(self, tokens: TokenizedPair, most: int) -> RowProblem | None:
        if self.truncation.mode == "keep_start" and len(tokens.prompt) >= most:
            return RowProblem(
                PROMPT_FILLS,
                f"the prompt has {len(tokens.prompt):,} tokens, max_length is {most:,}",
                "prompt",
            )
        cut = self.cut(tokens)
        if cut.chosen == cut.rejected and cut.chosen_prompt == cut.rejected_prompt:
            return RowProblem(
                IDENTICAL_CUT, f"chosen and rejected differ only beyond max_length, which is {most:,}"
            )
        return None


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The special tokens that a tokenizer recognises in text, named ones (EOS) and nameless (`<|im_start|>`), with ids."""
    named = dict(zip(map(str, tokenizer.all_special_tokens), tokenizer.all_special_ids, strict=True))
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return named | added


def missing_template() -> ModelError:
    """The error of a tokenizer without a chat template."""
    return ModelError(
        "The pairs are conversations, but the model's tokenizer has no chat template.",
        hint="Give one with --chat-template chatml, or --chat-template FILE (a Jinja template).",
    )


def _cut_at_prompt(
    start: list[int], prompt: list[int], chosen: list[int], rejected: list[int]
) -> TokenizedPair:
    """Cut both sequences where the first of the three differs (`trl.data_utils.common_prefix_length`).

    Args:
        start: Ids that all three begin with.
        prompt: The rest of the prompt's ids.
        chosen: The rest of the ids of prompt with chosen.
        rejected: The rest of the ids of prompt with rejected.
    """
    size = len(prompt)
    if chosen[:size] != prompt or rejected[:size] != prompt:
        size = min(_common(prompt, chosen), _common(prompt, rejected))
    return TokenizedPair(start + prompt[:size], chosen[size:], rejected[size:], prompt[size:])


def _common(one: list[int], other: list[int]) -> int:
    shorter = min(len(one), len(other))
    return next((index for index in range(shorter) if one[index] != other[index]), shorter)
