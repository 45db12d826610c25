"""Whether two ways to score the same pairs agree: what the trial asks before training, and the engine of real batches."""

# ruff: noqa: ANN401 - transformers' models are Any to mypy

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING, Any

import torch

from dpo_cli.engine.length_scaled_rope import state_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3
"""In full precision: of each log-probability (absolute and relative), and of the gradients' norm (relative)."""

COARSE_TOLERANCE, COARSE_GRADIENT_TOLERANCE, COARSE_SHARE = 5e-2, 0.5, 0.1
"""The same in lower precision, where a share of the tokens may differ more: rounding can choose another expert."""

UNIT = "in a token's log-probability"


def first_difference(
    model: Any,
    theirs: Callable[[], torch.Tensor],
    ours: Callable[[], torch.Tensor],
    autocast: Callable[[], contextlib.AbstractContextManager[Any]],
) -> str | None:
    """Whether two ways to score a batch give the same log-probabilities here and now.

    Args:
        model: The model that both call.
        theirs: TRL's way.
        ours: The engine's.
        autocast: A function that returns the context which both ways make for themselves.

    Returns:
        The difference in words, or None. Nothing is left behind: no random number is drawn, no gradient kept.
    """
    try:
        with no_trace(model), torch.no_grad():
            with state_kept(model):
                expected = theirs()
            with state_kept(model):
                found = ours()
        with autocast():
            coarse = arithmetic_of(model) != torch.float32
        gap = gap_between(found.float(), expected.float(), coarse=coarse)
    except (TypeError, RuntimeError, ValueError, AttributeError, LookupError) as error:
        return in_words(error)
    return None if gap is None else f"the first batch differed from TRL's forward by {gap:.2g} {UNIT}"


def gap_between(found: torch.Tensor, expected: torch.Tensor, *, coarse: bool) -> float | None:
    """The largest difference of log-probabilities if there are too many or too large ones, else None."""
    gap = (found - expected).abs()
    tolerance = COARSE_TOLERANCE if coarse else TOLERANCE
    # Written so that a NaN on either side is a difference.
    off = ~(gap <= tolerance * (1 + expected.abs()))
    return float(gap.max()) if off.float().mean() > (COARSE_SHARE if coarse else 0) else None


def matmul_precision(device: str) -> str:
    """How factors of fp32 products are rounded on a type of device: "ieee" (not at all), "tf32" or "bf16"."""
    backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    chosen = str(backend.matmul.fp32_precision)
    return "ieee" if chosen == "none" else chosen


def arithmetic_of(model: Any) -> torch.dtype:
    """The number format that products are computed in, here and now."""
    kind = model.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    dtype: torch.dtype = model.dtype
    return torch.bfloat16 if dtype == torch.float32 and matmul_precision(kind) in ("tf32", "bf16") else dtype


def in_words(error: Exception) -> str:
    """An error as a reason; one that a line of this package raised, and no model could cause, is raised again."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    package = str(frames[-1].f_globals.get("__name__", "")).partition(".")[0]
    if package == __name__.partition(".")[0] and not isinstance(error, (TypeError, RuntimeError)):
        raise error
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def no_trace(model: Any) -> Iterator[None]:
    """Draw no random number that training would draw, and checkpoint nothing.

    Reentrant checkpointing cannot be asked for one gradient; what it changes is memory, not numbers.
    """
    devices = [model.device] if model.device.type == "cuda" else []
    checkpointed = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    with (
        torch.random.fork_rng(devices=devices),
        for_a_while([(module, "gradient_checkpointing", False) for module in checkpointed]),
    ):
        yield


@contextlib.contextmanager
def for_a_while(changes: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Set attributes, given as object, name and value, and set them back."""
    before = [(holder, name, getattr(holder, name)) for holder, name, _ in changes]
    try:
        for holder, name, value in changes:
            setattr(holder, name, value)
        yield
    finally:
        for holder, name, value in reversed(before):
            setattr(holder, name, value)
