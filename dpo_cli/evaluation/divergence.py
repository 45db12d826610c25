"""How far the model after has moved from the model before, where the model before speaks.

At each position of an answer that the model before gave, its next-token distribution p is compared with
the distribution q of the model after, given the same tokens so far: KL(p || q) in nats (Kullback and
Leibler 1951), averaged over all positions of all answers. It is the quantity that DPO's beta holds down,
in the direction that asks whether anything the model used to say became unlikely.

The two models are never in memory together, so the distribution before is kept: its `TOP` likeliest tokens
and the probability of all others as one lump. KL over such a coarser partition is at most the full KL
(the log-sum inequality; Cover and Thomas 2006, theorem 2.7.1), never negative, and exact for vocabularies of
at most `TOP` tokens; the lump rarely holds more than a few per cent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpo_cli.batches import batches_by_length
from dpo_cli.errors import ModelError
from dpo_cli.evaluation.intervals import ratio_interval
from dpo_cli.evaluation.scores import IDENTITY, Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

TOP = 256
"""Tokens kept of each distribution."""

_TOKENS_AT_ONCE = 2048  # in one forward pass: 1.2 GB of float32 logits for a vocabulary of 150,000


@dataclass(frozen=True)
class Continuation:
    """Token ids of a prompt and of what followed it; `group` is that of the question it answers, `row` its place."""

    prompt: Sequence[int]
    tokens: Sequence[int]
    group: str = ""
    row: int = 0


@dataclass(frozen=True)
class Distributions:
    """Next-token distributions of one model at each position of one answer.

    Attributes:
        continuation: The prompt and the answer.
        tokens: Likeliest tokens, int32 [positions, top].
        log_probs: Their log-probabilities in nats, float32 [positions, top].
        vocabulary: Tokens the model knows.
        said: Log-probability of the answer itself in nats.
    """

    continuation: Continuation
    tokens: NDArray[np.int32]
    log_probs: NDArray[np.float32]
    vocabulary: int
    said: float = 0.0


@dataclass(frozen=True)
class Reading:
    """What the model after makes of the answers of the model before.

    Attributes:
        divergence: The scores that `divergence` gives.
        said: Log-probability of each answer in nats, in the order they were given; empty where the two models do not
            share a vocabulary.
    """

    divergence: tuple[Score, ...] = ()
    said: tuple[float, ...] = ()


def distributions(
    model: PreTrainedModel, continuations: Sequence[Continuation], *, batch_size: int = 32
) -> list[Distributions]:
    """Read the model's next-token distributions along its own answers.

    Args:
        model: A causal language model.
        continuations: Prompts and answers; every answer has at least one token.
        batch_size: Sequences in one forward pass at most.
    """
    from dpo_cli.models.precision import fast_weights

    found: dict[int, Distributions] = {}

    def keep(place: int, log_probs: torch.Tensor) -> None:
        top = log_probs.topk(min(TOP, log_probs.shape[-1]), dim=-1)
        found[place] = Distributions(
            continuations[place],
            top.indices.int().cpu().numpy(),
            top.values.cpu().numpy(),
            log_probs.shape[-1],
            _said(log_probs, continuations[place].tokens),
        )

    with fast_weights(model):
        _walk(model, continuations, batch_size, keep)
    return [found[place] for place in range(len(continuations))]


def divergence(
    model: PreTrainedModel, before: Sequence[Distributions], *, batch_size: int = 32
) -> list[Score]:
    """Mean KL(before || after) in nats per token, see `read_again`."""
    return list(read_again(model, before, batch_size=batch_size).divergence)


def read_again(model: PreTrainedModel, before: Sequence[Distributions], *, batch_size: int = 32) -> Reading:
    """Mean KL(before || after) in nats per token on the answers of the model before, and how likely those are.

    Args:
        model: The model after.
        before: What `distributions` read of the model before.
        batch_size: Sequences in one forward pass at most; the same as for `before`, so that a model
            compared with itself repeats the same sums and gives 0.

    Returns:
        The divergence over all questions, and where identity questions are among others, over the others; each
        with an interval over questions. Nothing where there is no answer, or the two models do not share a
        vocabulary.
    """
    import torch

    from dpo_cli.models.precision import fast_weights

    sums: dict[int, float] = {}
    said: dict[int, float] = {}
    sizes: set[int] = set()

    def compare(place: int, log_probs: torch.Tensor) -> None:
        sizes.add(log_probs.shape[-1])
        if log_probs.shape[-1] != before[place].vocabulary:
            return
        tokens = torch.from_numpy(before[place].tokens).long().to(log_probs.device)
        q = log_probs.gather(-1, tokens).double().cpu().numpy()
        sums[place] = float(coarse_kl(before[place].log_probs.astype("float64"), q).sum())
        said[place] = _said(log_probs, before[place].continuation.tokens)

    with fast_weights(model):
        _walk(model, [one.continuation for one in before], batch_size, compare)
    if not before or sizes != {one.vocabulary for one in before}:
        return Reading()
    everything = list(range(len(before)))
    other = [place for place in everything if before[place].continuation.group != IDENTITY]
    parts = [("divergence", "Divergence from before", everything)]
    if other and len(other) < len(everything):
        parts.append(("divergence_other", "Divergence from before, other questions", other))
    scores = tuple(
        _score(name, label, [(sums[place], len(before[place].continuation.tokens)) for place in places])
        for name, label, places in parts
    )
    return Reading(scores, tuple(said[place] for place in everything))


def _score(name: str, label: str, measured: Sequence[tuple[float, int]]) -> Score:
    """The mean over tokens from each question's sum and number of tokens."""
    totals, counts = [total for total, _ in measured], [float(count) for _, count in measured]
    value = sum(totals) / sum(counts)
    interval = ratio_interval(totals, counts) if math.isfinite(value) else None  # a ruined model says NaN
    return Score(name, label, value, len(measured), interval, "none", "nats/token")


def coarse_kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p || q) over some tokens and the lump of all others.

    sum_i p_i (log p_i - log q_i) + P (log P - log Q), with P and Q the probabilities of the lump.

    Args:
        p: Log-probabilities of the listed tokens in nats, float64 [positions, listed].
        q: Log-probabilities of the same tokens under the other model, same shape.

    Returns:
        Nats, float64 [positions], at least 0.
    """
    import numpy as np

    listed = (np.exp(p) * (p - q)).sum(axis=-1)
    rest_p, rest_q = (np.clip(1 - np.exp(one).sum(axis=-1), 1e-12, None) for one in (p, q))
    # Below 1e-6 the lump is what rounding in float32 left of 1, not a probability.
    lump = np.where(rest_p > 1e-6, rest_p * (np.log(rest_p) - np.log(rest_q)), 0.0)  # noqa: PLR2004 - said above
    total: NDArray[np.float64] = np.clip(listed + lump, 0, None)
    return total


def token_log_probs(
    model: PreTrainedModel, continuations: Sequence[Continuation], *, batch_size: int = 32
) -> list[float]:
    """Sum of log-probabilities of each continuation's tokens given its prompt, in nats; 0 where there are none."""
    found: dict[int, float] = {}

    def add(place: int, log_probs: torch.Tensor) -> None:
        found[place] = _said(log_probs, continuations[place].tokens)

    _walk(model, continuations, batch_size, add)
    return [found.get(place, 0.0) for place in range(len(continuations))]


def unlikeliness(read: Sequence[Continuation], log_probs: Sequence[float]) -> dict[int, float]:
    """Place of a question to minus the log-probability per token of what was read there; nothing without log-probabilities."""
    return {one.row: -value / len(one.tokens) for one, value in zip(read, log_probs, strict=False)}


def _said(log_probs: torch.Tensor, tokens: Sequence[int]) -> float:
    """Log-probability of tokens in nats, from the distributions at their positions."""
    import torch

    ids = torch.tensor(list(tokens), device=log_probs.device)
    return float(log_probs.gather(-1, ids[:, None]).double().sum())


def _walk(
    model: PreTrainedModel,
    continuations: Sequence[Continuation],
    batch_size: int,
    visit: Callable[[int, torch.Tensor], None],
) -> None:
    """Visit each continuation's log-probabilities, float32 [positions, vocabulary], in batches by length."""
    import torch

    from dpo_cli.models.generate import evaluating

    _require_positions(model, continuations)
    with evaluating(model), torch.no_grad():
        for batch in _batches(continuations, batch_size):
            rows = [list(continuations[place].prompt) + list(continuations[place].tokens) for place in batch]
            longest = max(map(len, rows))
            # Padding on the right: a causal model never sees it, so no position shifts.
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
            mask = torch.tensor(
                [[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device
            )
            logits = model(input_ids=ids, attention_mask=mask).logits
            for row, place in enumerate(batch):
                start = len(continuations[place].prompt) - 1
                stop = start + len(continuations[place].tokens)
                visit(place, _log_probs(logits[row, start:stop]))
            del logits


def _require_positions(model: PreTrainedModel, continuations: Sequence[Continuation]) -> None:
    from dpo_cli.models.positions import positions_in

    positions = positions_in(model)
    longest = max((len(one.prompt) + len(one.tokens) for one in continuations), default=0)
    if positions is not None and longest > positions:
        raise ModelError(
            f"a prompt and its answer have {longest:,} tokens, and the model learned {positions:,} positions",
            hint="Lower --max-length or --max-new-tokens.",
        )


def _log_probs(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(dim=-1)


def _batches(continuations: Sequence[Continuation], batch_size: int) -> Iterator[list[int]]:
    """Places of continuations with an answer, of like length together, few enough tokens at a time."""
    places = [place for place, one in enumerate(continuations) if one.tokens]
    lengths = [len(continuations[place].prompt) + len(continuations[place].tokens) for place in places]
    for batch in batches_by_length(lengths, batch_size, _TOKENS_AT_ONCE):
        yield [places[i] for i in batch]
