"""Implicit rewards on held-out preference pairs: does the model after prefer what it should?

DPO's implicit reward of a completion y to a prompt x is beta * (log p_policy(y|x) - log p_reference(y|x))
(Rafailov et al. 2023, section 4, up to a term of x alone that cancels in a pair). Here the model after is
the policy and the model before the reference; each is asked on its own, never both at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.config import Truncation
from dpo_cli.data.pairs import Pair, RowProblem
from dpo_cli.data.tokens.tokenizer import PairTokenizer
from dpo_cli.evaluation.divergence import Continuation, token_log_probs
from dpo_cli.evaluation.scores import ScoreRow, lone_row, paired_row, summarise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_UNCUT: Final = Truncation()


@dataclass(frozen=True)
class PairTokens:
    """A preference pair as its tokens are scored.

    Attributes:
        chosen: The preferred completion after its prompt.
        rejected: The other completion after its prompt, which truncation may have cut elsewhere.
        row: Number of the pair among those that were given, from 1.
    """

    chosen: Continuation
    rejected: Continuation
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
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterable[Mapping[str, Any]],
    truncation: Truncation = _UNCUT,
) -> list[PairTokens]:
    """Tokenize and cut pairs as training does; those that training would drop are left out.

    Args:
        tokenizer: With a chat template where the pairs are conversations.
        pairs: Rows with `prompt`, `chosen`, `rejected` and perhaps `tools`, in TRL's layout.
        truncation: How a pair that is too long is cut.

    Raises:
        ModelError: A conversational pair, and the tokenizer has no chat template.
    """
    reader = PairTokenizer(tokenizer, truncation)
    encoded: list[PairTokens] = []
    for row, tokens in enumerate(reader.tokenize([Pair.from_row(pair) for pair in pairs]), start=1):
        if isinstance(tokens, RowProblem) or reader.problem(tokens) is not None:
            continue
        cut = reader.cut(tokens)
        encoded.append(
            PairTokens(
                _scored(cut.chosen_prompt, cut.chosen), _scored(cut.rejected_prompt, cut.rejected), row
            )
        )
    return encoded


def _scored(prompt: list[int], completion: list[int]) -> Continuation:
    """What is scored of a completion: where nothing is left of the prompt, no token predicts the first one."""
    return Continuation(prompt, completion) if prompt else Continuation(completion[:1], completion[1:])


def pair_log_probs(
    model: PreTrainedModel, pairs: Sequence[PairTokens], *, batch_size: int = 32
) -> list[PairLogProbs]:
    """Sum the log-probabilities of each pair's completions under one model."""
    sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
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
