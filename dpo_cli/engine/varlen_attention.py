"""Packed attention on CUDA in bf16 and fp16, with `torch.nn.attention.varlen` (torch 2.10 or later).

Three sequences a pair: the shared tokens on themselves, and each rest with its queries at the end of
`shared + rest` keys (the kernel aligns the causal rule at the bottom right, which is what is needed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch

if TYPE_CHECKING:
    from dpo_cli.engine.packing import PackedPairs


class VarlenIndex(NamedTuple):
    """Where the kernel finds its sequences.

    Attributes:
        gather: `[K]`, int64: packed position of each key, the shared ones once per sequence that sees them.
        query_ends: `[S + 1]`, int32, cumulative query counts.
        key_ends: `[S + 1]`, int32, cumulative key counts.
        longest_query: Tokens of the longest query sequence.
        longest_key: Tokens of the longest key sequence.
    """

    gather: torch.Tensor
    query_ends: torch.Tensor
    key_ends: torch.Tensor
    longest_query: int
    longest_key: int


def varlen_index(packed: PackedPairs) -> VarlenIndex:
    """The key gather and the cumulative lengths of a packed row, on its device."""
    pieces: list[torch.Tensor] = []
    queries, keys = [0], [0]
    for span in packed.spans:
        front = torch.arange(span.start, span.chosen_start)
        if span.shared:
            pieces.append(front)
            queries.append(span.shared)
            keys.append(span.shared)
        for start, count in ((span.chosen_start, span.chosen), (span.rejected_start, span.rejected)):
            if count:
                pieces += [front, torch.arange(start, start + count)]
                queries.append(count)
                keys.append(span.shared + count)
    device = packed.token_ids.device
    return VarlenIndex(
        gather=torch.cat(pieces).to(device),
        query_ends=torch.tensor(queries).cumsum(0).int().to(device),
        key_ends=torch.tensor(keys).cumsum(0).int().to(device),
        longest_query=max(queries),
        longest_key=max(keys),
    )


def attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packed: PackedPairs,
    *,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """Attention over a packed row with one kernel call.

    Args:
        query: `[1, H, N, D]`, bf16 or fp16, on CUDA.
        key: `[1, Hkv, N, D]`.
        value: `[1, Hkv, N, D]`.
        packed: The layout.
        scale: Factor on the scores.
        window: A token sees itself and the `window - 1` tokens before it; None is no limit.

    Returns:
        `[1, N, H, D]`.
    """
    from torch.nn.attention.varlen import varlen_attn

    index = packed.derived("varlen", varlen_index)
    by_token = [x[0].transpose(0, 1) for x in (query, key, value)]
    out = varlen_attn(
        by_token[0].contiguous(),
        by_token[1].index_select(0, index.gather),
        by_token[2].index_select(0, index.gather),
        index.query_ends,
        index.key_ends,
        index.longest_query,
        index.longest_key,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return cast("torch.Tensor", out)[None]
