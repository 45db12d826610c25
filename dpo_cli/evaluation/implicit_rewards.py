"""Implicit rewards on held-out preference pairs: does the model after prefer what it should?

DPO's implicit reward of a completion y to a prompt x is beta * (log p_policy(y|x) - log p_reference(y|x))
(Rafailov et al. 2023, section 4, up to a term of x alone that cancels in a pair). Here the model after is
the policy and the model before the reference; each is asked on its own, never both at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from dpo_cli.evaluation.divergence import Continuation, token_log_probs
from dpo_cli.evaluation.scores import ScoreRow, lone_row, paired_row, summarise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PairTokens:
    """Token ids of a preference pair, and its number among the pairs that were given, from 1."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    row: int = field(default=0, compare=False)


@dataclass(frozen=True)
class PairLogProbs:
    """What one model gives the completions of a pair: summed log-probabilities in nats."""

    chosen: float
    rejected: float

    @property
    def margin(self) -> float:
        """How much likelier the chosen completion is, in nats."""
        return self.chosen - self.rejected


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Iterable[Mapping[str, Any]], *, max_length: int = 1024
) -> list[PairTokens]:
    """Tokenize pairs by the rule of TRL 1.16's DPO trainer, `keep_start` included.

    The completion starts where the tokens of prompt and prompt + completion part; a pair whose prompt fills
    `max_length`, or of whose completion nothing is left, is left out.

    Args:
        tokenizer: With a chat template where the pairs are conversations.
        pairs: Rows with `prompt`, `chosen`, `rejected` and perhaps `tools`, in TRL's layout.
        max_length: Longest prompt plus completion, in tokens.
    """
    encoded = (_encode(tokenizer, pair, max_length, row) for row, pair in enumerate(pairs, start=1))
    return [pair for pair in encoded if pair.prompt and pair.chosen and pair.rejected]


def _encode(
    tokenizer: PreTrainedTokenizerBase, pair: Mapping[str, Any], max_length: int, row: int
) -> PairTokens:
    prompt = _ids(tokenizer, pair["prompt"], pair, add_generation_prompt=True)
    texts = [pair["prompt"] + pair[side] for side in ("chosen", "rejected")]
    sides = [_ids(tokenizer, _ended(text, tokenizer), pair) for text in texts]
    start = min(_shared(prompt, side) for side in sides)
    chosen, rejected = (tuple(side[start:max_length]) for side in sides)
    return PairTokens(tuple(prompt[:start]), chosen, rejected, row)


def _ended(text: Any, tokenizer: PreTrainedTokenizerBase) -> Any:  # noqa: ANN401 - text or messages, returned alike
    """Plain text with the EOS token that TRL trains it with; a chat template ends messages itself."""
    end = tokenizer.eos_token or ""
    return text if not isinstance(text, str) or text.endswith(end) else text + end


def _ids(
    tokenizer: PreTrainedTokenizerBase,
    text: str | list[dict[str, Any]],
    pair: Mapping[str, Any],
    *,
    add_generation_prompt: bool = False,
) -> list[int]:
    if isinstance(text, str):
        return list(tokenizer(text)["input_ids"])
    tools = pair.get("tools")
    found = tokenizer.apply_chat_template(
        list(text),
        tools=json.loads(tools) if isinstance(tools, str) else tools,
        add_generation_prompt=add_generation_prompt,
        tokenize=True,
        return_dict=True,
    )
    return list(found["input_ids"])


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))


def pair_log_probs(
    model: PreTrainedModel, pairs: Sequence[PairTokens], *, batch_size: int = 32
) -> list[PairLogProbs]:
    """Sum the log-probabilities of each pair's completions under one model."""
    sides = [Continuation(pair.prompt, side) for pair in pairs for side in (pair.chosen, pair.rejected)]
    found = token_log_probs(model, sides, batch_size=batch_size)
    return [PairLogProbs(chosen, rejected) for chosen, rejected in zip(found[::2], found[1::2], strict=True)]


def reward_margins(before: Sequence[PairLogProbs], after: Sequence[PairLogProbs], beta: float) -> list[float]:
    """Implicit reward of the chosen completion minus that of the rejected one, for each pair."""
    return [beta * (new.margin - old.margin) for old, new in zip(before, after, strict=True)]


def reward_records(
    tokens: Sequence[PairTokens], before: Sequence[PairLogProbs], after: Sequence[PairLogProbs], beta: float
) -> list[dict[str, float]]:
    """The implicit rewards of each pair, in nats: what `dpo train --save-rewards` writes, one a line.

    Args:
        tokens: The pairs that were scored.
        before: Their log-probabilities under the reference.
        after: Their log-probabilities under the policy.
        beta: Beta of the implicit reward.

    Returns:
        For each pair `row` (its number among the pairs that were given, from 1), `chosen`, `rejected` and `margin`.
    """
    records: list[dict[str, float]] = []
    for pair, old, new in zip(tokens, before, after, strict=True):
        chosen, rejected = beta * (new.chosen - old.chosen), beta * (new.rejected - old.rejected)
        records.append({"row": pair.row, "chosen": chosen, "rejected": rejected, "margin": chosen - rejected})
    return records


def reward_rows(before: Sequence[PairLogProbs], after: Sequence[PairLogProbs], beta: float) -> list[ScoreRow]:
    """Rows of the scorecard for held-out pairs; none without pairs.

    A pair whose rewards tie counts half for accuracy, so that a model compared with itself stands at one half,
    as a coin does.
    """
    if not before:
        return []
    margins = reward_margins(before, after, beta)
    wins = [0.5 if margin == 0 else float(margin > 0) for margin in margins]
    accuracy = summarise("reward_accuracy", "Reward accuracy, held-out pairs", "higher", "rate", wins)
    margin = summarise("reward_margin", "Reward margin, held-out pairs", "higher", "nats", margins)
    old, new = ([float(one.margin > 0) for one in side] for side in (before, after))
    likelier = paired_row(
        "chosen_likelier", "Chosen answer likelier, held-out pairs", "higher", "rate", (old, new)
    )
    return [lone_row(accuracy), lone_row(margin), likelier]
