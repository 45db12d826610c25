"""Attention over a packed row of pairs, plugged in through transformers' own registries.

In a packed row (see `packing`) a token of a continuation may look at the shared beginning of its pair
and at the earlier tokens of its own continuation, never at the sibling or at another pair. Three ways
to compute exactly that, chosen by `attend_packed`:

- `segments` (CPU, long rows): flash kernels over [shared], [chosen rest], [rejected rest], and both rests
  on the shared keys; partial results are merged by their log-sum-exp. No mask, no copied keys.
- `rows` (`row_attention`; short rows, sliding windows, soft-capping, values not as wide as keys, fp32 on
  accelerators): queries, keys and values are gathered into `[2B, L]` rows, one dense causal call does the
  work of all pairs.
- `varlen` (`varlen_attention`; CUDA, bf16 and fp16): `torch.nn.attention.varlen` with the shared keys in front
  of each continuation's.

A model is switched with `plug_in`. Calls without a packed row (generation, evaluation by others) go to
the attention the model had before.
"""

# ruff: noqa: ANN401, SLF001, D102 - autograd contexts and transformers' configs are untyped, and the parts of SDPA that can be merged have an underscore

from __future__ import annotations

import itertools
import math
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dpo_cli.engine.row_attention import attend_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dpo_cli.engine.packing import PackedPairs

PREFIX = "shared_prefix_over_"
LAYOUT_ARGUMENT = "packed_pairs"
"""Keyword under which the layout travels through the model to its attention layers."""

_KNOWN_ARGUMENTS = {
    "sliding_window", "softcap", "position_ids", "use_cache", "cache_position", "output_attentions",
    "output_router_logits", "output_hidden_states", "is_causal", "position_embeddings", "return_dict",
}  # fmt: skip
"""Keywords models pass that mean the same, or nothing, in a packed row; any other one is refused by name."""

SHORT_ROW = 64
"""Rows up to this many tokens are faster as one dense call than as kernels per segment (measured, docs/performance.md)."""

_in_packed_forward: ContextVar[bool] = ContextVar("in_packed_forward", default=False)


class PackedAttentionError(RuntimeError):
    """An attention layer asks for something that the packed row does not offer; its message names it."""


@contextmanager
def packed_forward() -> Iterator[None]:
    """While a backbone runs on a packed row, build no attention masks: the layout replaces them."""
    token = _in_packed_forward.set(True)
    try:
        yield
    finally:
        _in_packed_forward.reset(token)


def plug_in(config: Any) -> None:
    """Make every attention layer that reads `config` able to work on packed rows.

    Args:
        config: The text config of a transformers model; its `_attn_implementation` is replaced by one that
            delegates to the former for calls without a packed row.
    """
    before = config._attn_implementation or "eager"
    if before.startswith(PREFIX):
        return
    name = PREFIX + before
    AttentionInterface.register(name, _attention_over(before))
    AttentionMaskInterface.register(name, _mask_over(before))
    config._attn_implementation_internal = name


def plug_out(config: Any) -> None:
    """Undo `plug_in`."""
    config._attn_implementation_internal = config._attn_implementation.removeprefix(PREFIX)


def _mask_over(before: str) -> Callable[..., Any]:
    def mask(*args: Any, **kwargs: Any) -> Any:
        if _in_packed_forward.get():
            return None
        build = ALL_MASK_ATTENTION_FUNCTIONS.get(before)
        return None if build is None else build(*args, **kwargs)

    return mask


def _attention_over(before: str) -> Callable[..., Any]:
    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, Any]:
        packed = kwargs.pop(LAYOUT_ARGUMENT, None)
        if packed is not None:
            return attend_packed(module, query, key, value, packed, **kwargs), None
        if _in_packed_forward.get():
            raise PackedAttentionError(
                f"{type(module).__name__} does not pass keywords on to its attention function"
            )
        default = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        call = ALL_ATTENTION_FUNCTIONS.get_interface(before, default)
        result: tuple[torch.Tensor, Any] = call(module, query, key, value, attention_mask, **kwargs)
        return result

    return attention


def attend_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packed: PackedPairs,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> torch.Tensor:
    """Attention of one layer over a packed row.

    Args:
        module: The attention layer, for error messages and its own idea of a window.
        query: `[1, H, N, D]`.
        key: `[1, Hkv, N, D]`; `Hkv` divides `H` (grouped queries), keys are never expanded.
        value: `[1, Hkv, N, Dv]`.
        packed: The layout of the row.
        scaling: Factor on the scores; `1/sqrt(D)` when None.
        dropout: Must be 0: two forwards of the same prefix cannot share a dropout mask with TRL's.
        **kwargs: What else the model passes; refused by name unless it is known to mean nothing here.

    Returns:
        `[1, N, H, Dv]`, in the dtype of `value`, or the autocast dtype under autocast.

    Raises:
        PackedAttentionError: For an argument that would change the numbers.
    """
    window, softcap = kwargs.get("sliding_window"), kwargs.get("softcap")
    unknown = sorted(
        name for name, given in kwargs.items() if name not in _KNOWN_ARGUMENTS and given is not None
    )
    if unknown:
        raise PackedAttentionError(
            f"{type(module).__name__} passes {', '.join(unknown)} to its attention function"
        )
    if dropout:
        raise PackedAttentionError(f"{type(module).__name__} applies attention dropout (p={dropout})")
    _check_window(module, window)
    device = query.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if window is not None and packed.longest <= window:
        window = None
    scale = 1.0 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    # Latent attention (DeepSeek, MiniCPM3) has values of another width than its keys; the kernels take only one width.
    by_kernel = softcap is None and value.shape[-1] == query.shape[-1]
    if by_kernel and window is None and device == "cpu" and packed.longest > SHORT_ROW:
        return SegmentAttention.apply(query, key, value, packed, scale)  # type: ignore[no-any-return, no-untyped-call]
    if by_kernel and device == "cuda" and query.dtype in (torch.bfloat16, torch.float16):
        from dpo_cli.engine.varlen_attention import attend_varlen

        return attend_varlen(query, key, value, packed, scale=scale, window=window)
    return attend_rows(query, key, value, packed, scale=scale, window=window, softcap=softcap)


def _check_window(module: torch.nn.Module, given: int | None) -> None:
    """Refuse a layer whose config says "window" while its call does not: its mask would be lost silently."""
    config, layer = getattr(module, "config", None), getattr(module, "layer_idx", None)
    types = getattr(config, "layer_types", None)
    if types is not None and layer is not None and layer < len(types):
        if types[layer] == "sliding_attention" and given is None:
            raise PackedAttentionError(f"{type(module).__name__} does not pass its sliding window on")
        if types[layer] not in ("sliding_attention", "full_attention"):
            raise PackedAttentionError(f"layer {layer} is of type {types[layer]}")


class SegmentAttention(torch.autograd.Function):
    """Attention by segment with CPU flash kernels; partial softmaxes are merged by log-sum-exp.

    The backward kernel needs only the final output and log-sum-exp of a query, whichever keys it is
    given, so the two parts of a continuation are differentiated apart and added (as in ring attention).
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd's signature
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        packed: PackedPairs,
        scale: float,
    ) -> torch.Tensor:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        heads, tokens = query.shape[1], query.shape[2]
        out = query.new_empty(1, tokens, heads, value.shape[-1])
        lse = query.new_empty(1, heads, tokens, dtype=torch.float32)
        by_head = out.transpose(1, 2)

        def causal(a: int, b: int) -> None:
            if b > a:
                q, k, v = query[:, :, a:b], key[:, :, a:b], value[:, :, a:b]
                by_head[:, :, a:b], lse[:, :, a:b] = flash(q, k, v, is_causal=True, scale=scale)

        for span in packed.spans:
            causal(span.start, span.chosen_start)
            causal(span.chosen_start, span.rejected_start)
            causal(span.rejected_start, span.end)
            rest = slice(span.chosen_start, span.end)
            if span.shared and span.end > span.chosen_start:
                front = slice(span.start, span.chosen_start)
                part, part_lse = flash(query[:, :, rest], key[:, :, front], value[:, :, front], scale=scale)
                total = torch.logaddexp(lse[:, :, rest], part_lse)
                own = by_head[:, :, rest]
                own.mul_((lse[:, :, rest] - total).exp()[..., None])
                own.add_(part * (part_lse - total).exp()[..., None])
                lse[:, :, rest] = total
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.packed, ctx.scale = packed, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        grad, out = grad.transpose(1, 2), out.transpose(1, 2)
        to_query = torch.empty_like(query)
        to_key, to_value = torch.empty_like(key), torch.empty_like(value)

        def part(q: slice, k: slice, *, causal: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            grads: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = back(
                grad[:, :, q], query[:, :, q], key[:, :, k], value[:, :, k], out[:, :, q], lse[:, :, q],
                0.0, causal, scale=ctx.scale,
            )  # fmt: skip
            return grads

        for span in ctx.packed.spans:
            edges = (span.start, span.chosen_start, span.rejected_start, span.end)
            for a, b in itertools.pairwise(edges):
                if b > a:
                    here = slice(a, b)
                    to_query[:, :, here], to_key[:, :, here], to_value[:, :, here] = part(
                        here, here, causal=True
                    )
            front, rest = slice(span.start, span.chosen_start), slice(span.chosen_start, span.end)
            if span.shared and span.end > span.chosen_start:
                dq, dk, dv = part(rest, front, causal=False)
                to_query[:, :, rest] += dq
                to_key[:, :, front] += dk
                to_value[:, :, front] += dv
        return to_query, to_key, to_value, None, None
