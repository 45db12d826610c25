"""Log-probabilities of completion tokens, and what TRL logs about them, without `[n, V]` logits in fp32.

The projection runs tile by tile, and each tile is reduced while it lies in the processor's cache. What
the backward pass needs is chosen by what has to be differentiated:

- frozen head (LoRA): `d log p(y) / d h = W[y] - p W` does not depend on the loss, so it is computed in
  the forward pass and nothing of size `V` is kept;
- trained head: the unnormalised probabilities `E` are kept while they fit `KEEP_BYTES`. With
  `p = E / sum(E)` both gradients are plain matrix products, `dh = g (W[y] - E W / s)` and
  `dW = onehot' (g h) - E' (g h / s)`: the scale belongs to rows, so no pass over `[n, V]` is left to do;
- trained head, too large, or with soft-capped logits: tiles are computed again.

On CUDA TRL's own Triton function does the same work and is used as it is.
"""

# ruff: noqa: ANN401 - autograd contexts have no type of their own

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from dpo_cli.engine import vocabulary_tiles as tiles
from dpo_cli.engine.vocabulary_tiles import HeadSettings, Stats, project, tile

KEEP_BYTES = 1 << 30
"""Keep unnormalised probabilities for the backward pass up to this size; above it tiles are computed again."""

SCRATCH_BYTES = 1 << 28
"""Of a frozen head's probabilities, at most this much exists at a time."""


class TokenScores(NamedTuple):
    """Per-token results, each `[n]`, fp32 but `is_top1` (bool); None where not asked for.

    Attributes:
        log_probs: Log-probability of the target, differentiable.
        entropy: Entropy of the distribution, nats.
        log_sum_sq_probs: `log(sum_v p_v^2)` (the alignment term of WPO, arXiv 2406.11827).
        mean_logits: Mean logit over the vocabulary.
        is_top1: Whether the target is the first of the most likely tokens.
    """

    log_probs: torch.Tensor
    entropy: torch.Tensor | None = None
    log_sum_sq_probs: torch.Tensor | None = None
    mean_logits: torch.Tensor | None = None
    is_top1: torch.Tensor | None = None


def score_tokens(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    *,
    settings: HeadSettings,
    outputs: frozenset[str],
) -> TokenScores:
    """Score `n` target tokens.

    Args:
        hidden: `[n, h]`, final hidden states at the positions that predict the targets.
        weight: `[V, h]`, the LM head.
        bias: `[V]`, or None.
        targets: `[n]`, int64.
        settings: Scale and soft cap of the logits.
        outputs: Fields of `TokenScores` to compute besides `log_probs`.

    Returns:
        The scores. Under autocast the projection runs in the autocast dtype, reductions in fp32.
    """
    if hidden.device.type != "cpu":
        return _score_with_trl(hidden, weight, bias, targets, settings=settings, outputs=outputs)
    differentiate = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
    with torch.autocast("cpu", enabled=False):  # reductions stay in fp32; the projection is cast by hand
        scores = _ScoreTokens.apply(hidden, weight, bias, targets, settings, outputs, dtype, differentiate)  # type: ignore[no-untyped-call]
    return TokenScores(*scores)


def _score_with_trl(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    *,
    settings: HeadSettings,
    outputs: frozenset[str],
) -> TokenScores:
    from trl.kernels import ChunkedLogProbFunction

    wanted = ("log_probs", *sorted(outputs))
    scores = ChunkedLogProbFunction.apply(
        hidden, weight, bias, targets, 1.0, 32768, settings.softcap, settings.logit_scale, wanted
    )
    return TokenScores(*scores)


class _ScoreTokens(torch.autograd.Function):
    """`score_tokens` on CPU; only `log_probs` is differentiable."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd's signature
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        settings: HeadSettings,
        outputs: frozenset[str],
        dtype: torch.dtype,
        differentiate: bool,
    ) -> tuple[torch.Tensor | None, ...]:
        narrow, head = hidden.to(dtype), weight.to(dtype)
        count, vocabulary = len(targets), len(weight)
        trained = differentiate and weight.requires_grad
        size = count * vocabulary * dtype.itemsize
        keeps = trained and settings.softcap is None and size <= KEEP_BYTES
        direct = differentiate and not trained and settings.softcap is None
        kept = torch.empty(count, vocabulary, dtype=dtype) if keeps else None
        chunk = (
            min(tiles.TOKENS, max(1, SCRATCH_BYTES // (vocabulary * dtype.itemsize)))
            if direct
            else tiles.TOKENS
        )
        scratch = torch.empty(min(chunk, count), vocabulary, dtype=dtype) if direct else None
        slopes = torch.empty_like(hidden) if direct else None
        parts: list[tuple[torch.Tensor | None, ...]] = []
        log_total = torch.empty(count)
        for begin in range(0, count, chunk):
            rows = slice(begin, min(begin + chunk, count))
            store = (
                kept[rows] if kept is not None else None if scratch is None else scratch[: rows.stop - begin]
            )
            stats = project(
                narrow[rows], head, bias, targets[rows], settings=settings, outputs=outputs, store=store
            )
            parts.append(stats.scores(outputs, vocabulary))
            log_total[rows] = stats.level + stats.total.log()
            if kept is not None:
                # From here on only sum(E) matters: p = E / total.
                log_total[rows] = stats.total
            if slopes is not None and store is not None:
                expected = (store @ head).to(slopes.dtype).div_(stats.total[:, None])
                slopes[rows] = (weight[targets[rows]] - expected).mul_(settings.logit_scale)
        scores = tuple(
            None if column[0] is None else torch.cat([c for c in column if c is not None])
            for column in zip(*parts, strict=True)
        ) or _nothing(outputs)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(x for x in scores[1:] if x is not None))
        ctx.settings, ctx.dtype = settings, dtype
        if differentiate:
            ctx.save_for_backward(hidden, weight, bias, targets, log_total, kept, slopes)
        return scores

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor | None, *_: Any) -> tuple[torch.Tensor | None, ...]:
        if grad is None:
            return (None,) * 8
        hidden, weight, bias, targets, total, kept, slopes = ctx.saved_tensors
        needs_bias = bias is not None and ctx.needs_input_grad[2]
        if slopes is not None and not needs_bias:
            return slopes * grad[:, None].to(slopes.dtype), None, None, None, None, None, None, None
        if kept is None:
            grads = _backward_again(ctx.settings, ctx.dtype, grad, (hidden, weight, bias, targets, total))
        else:
            grads = _backward_kept(
                ctx.settings, grad, (hidden, weight, targets, total, kept), bias=needs_bias
            )
        return (*grads, None, None, None, None, None)


def _nothing(outputs: frozenset[str]) -> tuple[torch.Tensor | None, ...]:
    """The scores of no tokens at all."""
    return Stats(0).scores(outputs, 1)


def _backward_kept(
    settings: HeadSettings, grad: torch.Tensor, saved: tuple[torch.Tensor, ...], *, bias: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients from kept `E`: `dh = g (W[y] - E W / s)`, `dW = onehot' (g h) - E' (g h / s)`."""
    hidden, weight, targets, total, kept = saved
    dtype = kept.dtype
    grad = grad * settings.logit_scale
    share = (grad / total)[:, None]
    to_hidden = (kept @ weight.to(dtype)).to(hidden.dtype).mul_(-share)
    to_hidden.add_(weight[targets].to(hidden.dtype) * grad[:, None])
    to_weight = (kept.t() @ (hidden * -share).to(dtype)).to(weight.dtype)
    to_weight.index_add_(0, targets, (hidden * grad[:, None]).to(weight.dtype))
    to_bias = None
    if bias:
        to_bias = -(kept.t() @ share.to(dtype)).flatten().float()
        to_bias.index_add_(0, targets, grad)
    return to_hidden, to_weight, to_bias


def _backward_again(
    settings: HeadSettings, dtype: torch.dtype, grad: torch.Tensor, saved: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients with every tile computed a second time; `saved` holds `log sum_v e^logit` as its last entry."""
    hidden, weight, bias, targets, log_total = saved
    narrow, head = hidden.to(dtype), weight.to(dtype)
    to_hidden = torch.zeros_like(hidden, dtype=torch.float32)
    to_weight = torch.zeros_like(weight, dtype=torch.float32) if weight.requires_grad else None
    to_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
    product = torch.empty(min(tiles.TOKENS, len(hidden)), tiles.COLUMNS, dtype=dtype)
    for begin in range(0, len(hidden), tiles.TOKENS):
        rows = slice(begin, min(begin + tiles.TOKENS, len(hidden)))
        for start in range(0, len(weight), tiles.COLUMNS):
            stop = min(start + tiles.COLUMNS, len(weight))
            logits = tile(narrow[rows], head, bias, settings=settings, columns=(start, stop), product=product)
            slope = settings.slope(logits)
            error = torch.add(
                log_total[rows].mul(-tiles.LOG2_E)[:, None], logits, alpha=tiles.LOG2_E, out=logits
            )
            error = error.exp2_().mul_(-grad[rows, None])
            local = targets[rows] - start
            here = ((local >= 0) & (local < stop - start)).nonzero().flatten()
            error[here, local[here]] += grad[rows][here]
            error = error.mul_(slope)
            narrowed = error.to(dtype)
            to_hidden[rows] += narrowed @ head[start:stop]
            if to_weight is not None:
                to_weight[start:stop] += narrowed.t() @ narrow[rows]
            if to_bias is not None:
                to_bias[start:stop] += error.sum(0)
    return (
        to_hidden.to(hidden.dtype),
        None if to_weight is None else to_weight.to(weight.dtype),
        None if to_bias is None or bias is None else to_bias.to(bias.dtype),
    )
