"""Lay preference pairs out as one row without padding: `[shared | rest of chosen | rest of rejected]`.

Pure index arithmetic on integer tensors; nothing here knows a model. TRL's batch holds `2B` padded
rows, the chosen ones first. Of each pair the longest common beginning (the prompt, and whatever both
completions start with) is kept once, and the last token of each row is left out because nothing is
predicted from it. `PackedPairs` carries every index that is needed to go from one layout to the other.

Prefix sharing for DPO is published as arXiv 2410.20305.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

Derived = TypeVar("Derived")

IGNORED_LABEL = -100
"""TRL's label of a position that is not part of a completion."""


class Span(NamedTuple):
    """One pair in the packed row: where it starts and how many tokens each of its parts has."""

    start: int
    shared: int
    chosen: int
    rejected: int

    @property
    def chosen_start(self) -> int:
        """Packed position of the first token of the chosen row that is not shared."""
        return self.start + self.shared

    @property
    def rejected_start(self) -> int:
        """Packed position of the first token of the rejected row that is not shared."""
        return self.start + self.shared + self.chosen

    @property
    def end(self) -> int:
        """Packed position behind the last token of the pair."""
        return self.start + self.shared + self.chosen + self.rejected


@dataclass(frozen=True)
class PackedPairs:
    """A micro-batch of `B` pairs in one row of `N` tokens, and the way back to `[2B, T]`.

    Attributes:
        token_ids: `[N]`, int64.
        position_ids: `[N]`, int64; both continuations of a pair go on where the shared part ends.
        spans: The `B` pairs in packed order, on the host.
        longest: `L`, the number of tokens of the longest row that is fed.
        row_index: `[2B, L]`, int64: packed position of token `t` of row `r`; 0 where the row is shorter.
        owner: `[N]`, int64: `r * L + t` of the row that a packed token is read back from
            (shared tokens belong to the chosen row).
        shared_positions: Packed positions of all shared tokens, int64.
        shared_twin: Their places `r * L + t` in the rejected rows, int64.
        scored_positions: `[n]`, int64: packed positions that predict a completion token.
        scored_targets: `[n]`, int64: the token that is to be predicted there.
        scored_of: `[2B, T - 1]`, int64: which of the `n` predictions is label `t + 1` of row `r`;
            `n` where that label is ignored.
        label_mask: `[2B, T - 1]`, bool: whether label `t + 1` of row `r` counts.
    """

    token_ids: torch.Tensor
    position_ids: torch.Tensor
    spans: tuple[Span, ...]
    longest: int
    row_index: torch.Tensor
    owner: torch.Tensor
    shared_positions: torch.Tensor
    shared_twin: torch.Tensor
    scored_positions: torch.Tensor
    scored_targets: torch.Tensor
    scored_of: torch.Tensor
    label_mask: torch.Tensor
    _derived: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def derived(self, name: str, build: Callable[[PackedPairs], Derived]) -> Derived:
        """What a kernel needs to know about this layout, built by the first layer and kept for the others."""
        if name not in self._derived:
            self._derived[name] = build(self)
        return cast("Derived", self._derived[name])

    def to_rows(self, per_prediction: torch.Tensor) -> torch.Tensor:
        """Spread the `[n]` values of the predictions over TRL's `[2B, T - 1]` layout, zero where ignored."""
        padded = torch.cat((per_prediction, per_prediction.new_zeros(1)))
        return padded[self.scored_of]


def is_right_padded(attention_mask: torch.Tensor) -> bool:
    """Whether every row of a `[2B, T]` mask is a run of ones followed by zeros, and none is empty."""
    falls = bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all())
    return falls and bool((attention_mask[:, 0] == 1).all())


def pack_pairs(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, *, keep_last: bool = False
) -> PackedPairs:
    """Pack a right-padded TRL batch.

    Args:
        input_ids: `[2B, T]`, int64, chosen rows first.
        attention_mask: `[2B, T]`, ones then zeros in each row.
        labels: `[2B, T]`, int64, `IGNORED_LABEL` outside of completions.
        keep_last: Feed the last token of each row too (a router loss counts it).

    Returns:
        The layout, on the device of `input_ids`.
    """
    device = input_ids.device
    pairs = input_ids.shape[0] // 2
    lengths = attention_mask.sum(1)
    fed = lengths if keep_last else (lengths - 1).clamp(min=1)
    both = (attention_mask[:pairs] == 1) & (attention_mask[pairs:] == 1)
    common = ((input_ids[:pairs] == input_ids[pairs:]) & both).long().cumprod(1).sum(1)
    fed_chosen, fed_rejected = fed[:pairs], fed[pairs:]
    shared = torch.minimum(common, torch.minimum(fed_chosen, fed_rejected))
    sizes = fed_chosen + fed_rejected - shared
    starts = sizes.cumsum(0) - sizes

    host = torch.stack((starts, shared, fed_chosen - shared, fed_rejected - shared), 1).tolist()
    spans = tuple(Span(*row) for row in host)
    longest = max(span.shared + max(span.chosen, span.rejected) for span in spans)
    total = spans[-1].end

    time = torch.arange(longest, device=device)
    row_index = torch.cat(
        (
            starts[:, None] + time,
            starts[:, None]
            + torch.where(time < shared[:, None], time, time + (fed_chosen - shared)[:, None]),
        )
    )
    valid = time < fed[:, None]
    row_index = row_index.masked_fill(~valid, 0)
    shared_here = time < shared[:, None]
    owns = valid.clone()
    owns[pairs:] &= ~shared_here
    packed = row_index[owns]
    flat = torch.arange(2 * pairs * longest, device=device).view(2 * pairs, longest)
    token_ids = input_ids.new_empty(total).index_copy_(0, packed, input_ids[:, :longest][owns])
    positions = time.expand(2 * pairs, -1)
    position_ids = torch.empty_like(token_ids).index_copy_(0, packed, positions[owns])
    owner = torch.empty_like(token_ids).index_copy_(0, packed, flat[owns])

    label_mask = labels[:, 1:] != IGNORED_LABEL
    targets = input_ids[:, 1:]
    steps = torch.arange(label_mask.shape[1], device=device)
    # Where both rows predict the same token after the same beginning, one prediction serves both.
    twice = label_mask[:pairs] & label_mask[pairs:] & (steps + 1 < common[:, None])
    unique = label_mask.clone()
    unique[pairs:] &= ~twice
    number = unique.flatten().cumsum(0).view_as(unique) - 1
    number[pairs:] = torch.where(twice, number[:pairs], number[pairs:])
    scored = int(unique.sum())
    full_index = row_index.new_zeros(label_mask.shape)
    width = min(longest, label_mask.shape[1])
    full_index[:, :width] = row_index[:, :width]
    return PackedPairs(
        token_ids=token_ids,
        position_ids=position_ids,
        spans=spans,
        longest=longest,
        row_index=row_index,
        owner=owner,
        shared_positions=row_index[:pairs][shared_here],
        shared_twin=flat[pairs:][shared_here],
        scored_positions=full_index[unique],
        scored_targets=targets[unique],
        scored_of=number.masked_fill(~label_mask, scored),
        label_mask=label_mask,
    )
