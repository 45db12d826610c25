"""One pass over the vocabulary, tile by tile: each tile of logits is reduced while it lies in the processor's cache.

Nothing here knows autograd; `completion_head` calls it in the forward pass, and for tiles that are computed again
in the backward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

TOKENS, COLUMNS = 1024, 2048
"""Tile of the projection: 8 MiB in fp32, so that its reductions run from cache."""

LOG2_E = 1.0 / math.log(2.0)
"""Exponentials are taken as powers of two: `exp2` is vectorised on every processor, `exp` is several times slower."""

SAFE_RISE = 30.0
"""How far a logit may lie above a row's reference level before the row is rescaled (exp(88) overflows fp32)."""


@dataclass(frozen=True)
class HeadSettings:
    """How hidden states become logits: `softcap * tanh(logit_scale * (h W' + b) / softcap)`."""

    logit_scale: float = 1.0
    softcap: float | None = None

    def logits(self, raw: torch.Tensor) -> torch.Tensor:
        """Apply scale and soft cap to raw fp32 products, in place."""
        if self.logit_scale != 1.0:
            raw.mul_(self.logit_scale)
        if self.softcap is not None:
            raw.div_(self.softcap).tanh_().mul_(self.softcap)
        return raw

    def slope(self, logits: torch.Tensor) -> torch.Tensor | float:
        """Derivative of the final logits with respect to the raw products."""
        if self.softcap is None:
            return self.logit_scale
        return (1 - (logits / self.softcap).square()) * self.logit_scale


class Stats:
    """Running reductions over the vocabulary for one chunk of rows, all `[c]` fp32."""

    def __init__(self, rows: int) -> None:
        self.level = torch.zeros(rows)
        self.highest = torch.full((rows,), -math.inf)
        self.total = torch.zeros(rows)
        self.weighted = torch.zeros(rows)
        self.squares = torch.zeros(rows)
        self.target_logit = torch.zeros(rows)
        self.logit_sum = torch.zeros(rows)
        self.is_top1 = torch.zeros(rows, dtype=torch.bool)

    def see_target(self, logits: torch.Tensor, targets: torch.Tensor, start: int, *, top1: bool) -> None:
        """Take in the highest logit and the target's, from one tile of raw fp32 logits `[c, v]`."""
        tile_high = logits.amax(-1)
        if top1:
            # An earlier equal logit beats the target, a later higher one beats what led so far.
            self.is_top1 &= tile_high <= self.highest
        local = targets - start
        rows = ((local >= 0) & (local < logits.shape[1])).nonzero().flatten()
        if len(rows):
            columns = local[rows]
            found = logits[rows, columns]
            self.target_logit[rows] = found
            if top1:
                leads = (found >= tile_high[rows]) & (found > self.highest[rows])
                rows, columns, found = rows[leads], columns[leads], found[leads]
                earlier = torch.arange(logits.shape[1]) < columns[:, None]
                self.is_top1[rows] = ~((logits[rows] == found[:, None]) & earlier).any(-1)
        self.highest = torch.maximum(self.highest, tile_high)

    def add(self, shifted: torch.Tensor, exp: torch.Tensor, outputs: frozenset[str]) -> None:
        """Add one tile: `shifted = (logits - level) log2(e)`, overwritten, and `exp = 2^shifted`, both `[c, v]` fp32."""
        self.total += exp.sum(-1)
        if "entropy" in outputs:
            self.weighted += shifted.mul_(exp).sum(-1).mul_(1 / LOG2_E)
        if "log_sum_sq_probs" in outputs:
            self.squares += torch.mul(exp, exp, out=shifted).sum(-1)

    def scores(self, outputs: frozenset[str], vocabulary: int) -> tuple[torch.Tensor | None, ...]:
        """The fields of `completion_head.TokenScores` in order."""
        log_total = self.total.log()
        return (
            self.target_logit - self.level - log_total,
            log_total - self.weighted / self.total if "entropy" in outputs else None,
            self.squares.log() - 2 * log_total if "log_sum_sq_probs" in outputs else None,
            self.logit_sum / vocabulary if "mean_logits" in outputs else None,
            self.is_top1 if "is_top1" in outputs else None,
        )


def project(
    hidden: torch.Tensor,
    head: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    *,
    settings: HeadSettings,
    outputs: frozenset[str],
    store: torch.Tensor | None,
) -> Stats:
    """Reduce the logits of `c` rows.

    Args:
        hidden: `[c, h]`, in the format to multiply in.
        head: `[V, h]`, in the same.
        bias: `[V]`, or None.
        targets: `[c]`, int64.
        settings: Scale and soft cap of the logits.
        outputs: What to reduce besides the log-probability of the target.
        store: `[c, V]` to write `e^(logit - level)` into, or None.
    """
    rows, vocabulary = len(hidden), len(head)
    stats = Stats(rows)
    product = torch.empty(rows, min(COLUMNS, vocabulary), dtype=hidden.dtype)
    exps = torch.empty(rows, min(COLUMNS, vocabulary))
    for start in range(0, vocabulary, COLUMNS):
        stop = min(start + COLUMNS, vocabulary)
        logits = tile(hidden, head, bias, settings=settings, columns=(start, stop), product=product)
        if "mean_logits" in outputs:
            stats.logit_sum += logits.sum(-1)
        stats.see_target(logits, targets, start, top1="is_top1" in outputs)
        if start == 0:
            stats.level = stats.highest.clone()
        elif bool((stats.highest - stats.level).max() > SAFE_RISE):
            _lift(stats, store, start)
        shifted = torch.add(stats.level.mul(-LOG2_E)[:, None], logits, alpha=LOG2_E, out=logits)
        direct = store is not None and store.dtype == torch.float32
        exp = store[:, start:stop] if direct and store is not None else exps[:, : stop - start]
        torch.exp2(shifted, out=exp)
        stats.add(shifted, exp, outputs)
        if store is not None and not direct:
            store[:, start:stop] = exp
    return stats


def tile(
    hidden: torch.Tensor,
    head: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    settings: HeadSettings,
    columns: tuple[int, int],
    product: torch.Tensor,
) -> torch.Tensor:
    """Final logits of some rows for some columns of the vocabulary.

    Args:
        hidden: `[c, h]`, in the format to multiply in.
        head: `[V, h]`, in the same.
        bias: `[V]`, or None.
        settings: Scale and soft cap of the logits.
        columns: First column, and the one behind the last.
        product: Scratch of at least `[c, v]`, in the format to multiply in.

    Returns:
        `[c, v]`, fp32, safe to overwrite.
    """
    start, stop = columns
    raw = product[: len(hidden), : stop - start]
    torch.mm(hidden, head[start:stop].t(), out=raw)
    if bias is not None:
        raw.add_(bias[start:stop].to(raw.dtype))
    return settings.logits(raw.float())


def _lift(stats: Stats, store: torch.Tensor | None, seen: int) -> None:
    """Raise the reference level of rows whose logits rose far above it, and rescale what was summed."""
    level = torch.where(stats.highest - stats.level > SAFE_RISE, stats.highest, stats.level)
    drop = stats.level - level
    factor = drop.exp()
    stats.weighted = (stats.weighted + stats.total * drop) * factor
    stats.total *= factor
    stats.squares *= factor.square()
    stats.level = level
    if store is not None:
        store[:, :seen] *= factor[:, None].to(store.dtype)
