"""Packed attention with the row of each completion spelled out: one dense call for all pairs, on any device."""

# ruff: noqa: ANN401 - autograd contexts have no type of their own

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's own documentation uses

if TYPE_CHECKING:
    from dpo_cli.engine.packing import PackedPairs


class _ToRows(torch.autograd.Function):
    """`[N, H, D]` to `[2B, L, H, D]`; its backward adds the two copies of a shared token by gathers alone."""

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, packed: PackedPairs) -> torch.Tensor:
        ctx.packed = packed
        return tokens.index_select(0, packed.row_index.flatten()).view(
            *packed.row_index.shape, *tokens.shape[1:]
        )

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        packed: PackedPairs = ctx.packed
        flat = grad.flatten(0, 1)
        tokens = flat.index_select(0, packed.owner)
        twins = flat.index_select(0, packed.shared_twin)
        tokens[packed.shared_positions] += twins
        return tokens, None


class _FromRows(torch.autograd.Function):
    """`[2B, L, H, D]` back to `[N, H, D]`, each token from the row that owns it."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, packed: PackedPairs) -> torch.Tensor:
        ctx.packed, ctx.shape = packed, rows.shape
        return rows.flatten(0, 1).index_select(0, packed.owner)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        rows = grad.new_zeros(ctx.shape)
        rows.flatten(0, 1).index_copy_(0, ctx.packed.owner, grad)
        return rows, None


def attend_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packed: PackedPairs,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attention with the row of each completion spelled out, as one dense call.

    Rows are filled from the left, so the causal rule alone keeps padding out of sight.

    Args:
        query: `[1, H, N, D]`.
        key: `[1, Hkv, N, D]`.
        value: `[1, Hkv, N, Dv]`.
        packed: The layout.
        scale: Factor on the scores.
        window: A token sees itself and the `window - 1` tokens before it; None is no limit.
        softcap: Scores become `softcap * tanh(score / softcap)` (Gemma 2); None is none.

    Returns:
        `[1, N, H, Dv]`.
    """
    heads, kv_heads = query.shape[1], key.shape[1]
    together = torch.cat((query, key, value), 1) if value.shape[-1] == query.shape[-1] else None
    if together is None:
        rows = [_ToRows.apply(x[0].transpose(0, 1), packed).transpose(1, 2) for x in (query, key, value)]  # type: ignore[no-untyped-call]
    else:
        gathered = _ToRows.apply(together[0].transpose(0, 1), packed).transpose(1, 2)  # type: ignore[no-untyped-call]
        rows = list(gathered.split((heads, kv_heads, kv_heads), 1))
    q, k, v = rows
    length = packed.longest
    if softcap is None:
        mask = None if window is None else _causal_band(length, window, q.device)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=kv_heads != heads
        )
    else:
        mask = _causal_band(length, window or length, q.device)
        k, v = (x.repeat_interleave(heads // kv_heads, 1) for x in (k, v))
        scores = torch.tanh(q @ k.transpose(2, 3) * scale / softcap) * softcap
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        out = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype) @ v
    back: torch.Tensor = _FromRows.apply(out.transpose(1, 2), packed)  # type: ignore[no-untyped-call]
    return back[None]


def _causal_band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """`[L, L]`, bool: query `i` sees key `j` when `i - window < j <= i`."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)
