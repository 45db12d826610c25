"""The trial: TRL's forward and the engine's score the same small made-up pairs, and must agree.

Tried is what training does: rows on both sides of `SHORT_ROW`, a window that ends within a row, the
backward pass, training mode, and mixed precision beside full precision. It runs before the first step
of every run, so the pairs are few and short, and of the backward pass only the gradients of the
embedded tokens are compared: they have come through every layer, and no gradient of a weight is stored.
"""

# ruff: noqa: ANN401 - transformers' models are Any to mypy

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING, Any

import torch

from dpo_cli.engine.packing import IGNORED_LABEL
from dpo_cli.engine.segment_attention import SHORT_ROW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PROMPT = 5
SHORT, LONG = 16, SHORT_ROW + 2
"""Tokens of the longest row of each trial; the last token is not fed, so `LONG` is just above `SHORT_ROW`."""

WINDOW = 5
"""Sliding windows are tried this narrow, whatever their width: the rows of the trial are short."""

TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3
"""In full precision: of each log-probability (absolute and relative), and of the gradients' norm (relative)."""

COARSE_TOLERANCE, COARSE_GRADIENT_TOLERANCE, COARSE_SHARE = 5e-2, 0.5, 0.1
"""The same in lower precision, where a share of the tokens may differ more: rounding can choose another expert."""


def reason_by_trial(
    model: Any, before: Any, contexts: Sequence[Callable[[], contextlib.AbstractContextManager[Any]]]
) -> str | None:
    """Let both forwards score made-up pairs.

    Args:
        model: A causal LM with the engine's forward in place.
        before: The forward it had before, TRL's.
        contexts: Functions that return the contexts to try in, such as autocast; one that changes nothing about
            the arithmetic is passed over.

    Returns:
        Why the engine cannot be used on this model, or None if it can: a difference, random numbers in the
        forward, or an error. An error of the engine's own code that no model could cause is raised.
    """
    training, devices = model.training, [model.device] if model.device.type == "cuda" else []
    reason: str | None = None
    # Reentrant checkpointing cannot be asked for one gradient; what it changes is memory, not numbers.
    checkpointed = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    tried: set[torch.dtype] = set()
    model.train()
    try:
        with (
            torch.random.fork_rng(devices=devices),
            _for_a_while([(module, "gradient_checkpointing", False) for module in checkpointed]),
        ):
            for context in contexts:
                with context():
                    arithmetic = _arithmetic(model)
                    if reason is None and arithmetic not in tried:
                        tried.add(arithmetic)
                        reason = _difference(model, before, coarse=arithmetic != torch.float32)
    except (TypeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
    except (ValueError, AttributeError, LookupError) as error:
        if _is_ours(error):
            raise
        reason = f"{type(error).__name__}: {error}"
    finally:
        model.train(training)
    return None if reason is None else f"{model.config.get_text_config().model_type}: {reason}"


def matmul_precision(device: str) -> str:
    """How factors of fp32 products are rounded on a type of device: "ieee" (not at all), "tf32" or "bf16"."""
    backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    chosen = str(backend.matmul.fp32_precision)
    return "ieee" if chosen == "none" else chosen


def _is_ours(error: BaseException) -> bool:
    """Whether an error was raised by a line of this package, not by one of the model's."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")).partition(".")[0] == __name__.partition(".")[0]


def _arithmetic(model: Any) -> torch.dtype:
    """The number format that products are computed in, here and now."""
    kind = model.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    dtype: torch.dtype = model.dtype
    return torch.bfloat16 if dtype == torch.float32 and matmul_precision(kind) in ("tf32", "bf16") else dtype


def _difference(model: Any, before: Any, *, coarse: bool) -> str | None:
    """What the two forwards do not agree on in the context that is active, in words."""
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or LONG
    batches = [_trial_batch(model, longest) for longest in (SHORT, LONG) if longest <= max(positions, SHORT)]
    if _draws_lots(model, before, batches[0]):
        return "dropout or other noise in the model's code, and a shared prompt can have only one draw of it"
    trials: list[tuple[dict[str, Any], int | None]] = [(batch, None) for batch in batches]
    if isinstance(getattr(config, "sliding_window", None), int):
        trials.append((batches[0], WINDOW))
    for batch, window in trials:
        with _for_a_while(_narrow_windows(model, config, window)):
            expected, wanted_gradient = _scores_and_gradient(model, before, batch)
            found, gradient = _scores_and_gradient(model, model.forward, batch)
        gap = (found - expected).abs()
        tolerance = COARSE_TOLERANCE if coarse else TOLERANCE
        # Written so that a NaN on either side is a difference.
        off = ~(gap <= tolerance * (1 + expected.abs()))
        if off.float().mean() > (COARSE_SHARE if coarse else 0):
            return (
                f"a trial differed from TRL's forward by {float(gap.max()):.2g} in a token's log-probability"
            )
        error, size = float((gradient - wanted_gradient).norm()), float(wanted_gradient.norm())
        if not error <= (COARSE_GRADIENT_TOLERANCE if coarse else GRADIENT_TOLERANCE) * size:
            return f"a trial differed from TRL's backward pass by {error:.2g} in gradients of {size:.2g}"
    return None


def _draws_lots(model: Any, before: Any, batch: dict[str, Any]) -> bool:
    """Whether TRL's forward depends on random numbers in training mode: dropout that is no `nn.Dropout`, for instance."""
    with torch.no_grad():
        state = _random_state(model.device)
        once = before(**batch, fused_lm_head=True).log_probs
        if torch.equal(state, _random_state(model.device)):
            return False
        # Numbers were drawn; some models draw them and then drop nothing.
        return not torch.equal(once, before(**batch, fused_lm_head=True).log_probs)


def _random_state(device: torch.device) -> torch.Tensor:
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return torch.cat(states)


def _scores_and_gradient(
    model: Any, forward: Any, batch: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of a batch, and the gradient of a weighted sum of them.

    Args:
        model: The model.
        forward: The forward to call.
        batch: From `_trial_batch`.

    Returns:
        `[n]`, fp32, of the completion tokens in TRL's order; and `[m, h]`, fp32, with respect to what is added to the
        embedding of each of the `m` distinct tokens.
    """
    embedding = model.get_input_embeddings()
    tokens = batch["input_ids"].unique()
    added = torch.zeros(len(tokens), embedding.weight.shape[1], device=tokens.device, requires_grad=True)

    def add(_: Any, given: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
        ids = next(iter((*given, *named.values())))
        return output + added[torch.searchsorted(tokens, ids)].to(output.dtype)

    handle = embedding.register_forward_hook(add, with_kwargs=True)
    try:
        with torch.enable_grad():
            log_probs = forward(**batch, fused_lm_head=True).log_probs
            scores = log_probs[batch["labels"][:, 1:] != IGNORED_LABEL].float()
            weights = torch.linspace(-1, 2, len(scores), device=scores.device)
            (gradient,) = torch.autograd.grad((scores * weights).sum(), added)
    finally:
        handle.remove()
    return scores.detach(), gradient


def _narrow_windows(model: Any, config: Any, window: int | None) -> list[tuple[Any, str, Any]]:
    """The attributes to set for sliding windows of `window` tokens; none for None."""
    if window is None:
        return []
    layers = [m for m in model.modules() if isinstance(getattr(m, "sliding_window", None), int)]
    less = config.sliding_window - window  # a few layers count the window from one on
    return [(holder, "sliding_window", holder.sliding_window - less) for holder in (config, *layers)]


@contextlib.contextmanager
def _for_a_while(changes: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Set attributes, given as object, name and value, and set them back."""
    before = [(holder, name, getattr(holder, name)) for holder, name, _ in changes]
    try:
        for holder, name, value in changes:
            setattr(holder, name, value)
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)


def _trial_batch(model: Any, longest: int) -> dict[str, Any]:
    """Two pairs of 9 to `longest` arbitrary tokens: a common beginning, none at all, different lengths."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (4, longest), generator=generator)
    ids[2, : longest // 2 + 1] = ids[0, : longest // 2 + 1]
    lengths, places = torch.tensor([longest, 9, longest - 3, 15]), torch.arange(longest)
    mask = (places < lengths[:, None]).long()
    labels = ids.masked_fill((places < PROMPT) | (mask == 0), IGNORED_LABEL)
    device = model.get_input_embeddings().weight.device
    return {
        "input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device), "use_cache": False,
    }  # fmt: skip
