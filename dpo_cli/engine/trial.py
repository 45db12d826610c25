"""The trial: TRL's forward and the engine's score the same small pairs, and must agree.

Tried is what training does, the way the trainer does it: policy and reference called from the outside, adapters
included, with TRL's own arguments; rows on both sides of `SHORT_ROW`, padding, windows and position limits that end
within a row, the backward pass, training mode, and mixed precision beside full precision. It runs before the first
step of every run, so the pairs are few and short, and of the backward pass only the gradients of the embedded tokens
are compared: they have come through every layer, and no gradient of a weight is stored.
"""

# ruff: noqa: ANN401 - transformers' models are Any to mypy

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from dpo_cli.engine.agreement import (
    COARSE_GRADIENT_TOLERANCE,
    GRADIENT_TOLERANCE,
    UNIT,
    arithmetic_of,
    for_a_while,
    gap_between,
    in_words,
    no_trace,
)
from dpo_cli.engine.length_scaled_rope import narrowed, state_kept
from dpo_cli.engine.packing import IGNORED_LABEL
from dpo_cli.engine.segment_attention import SHORT_ROW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dpo_cli.engine.packed_forward import PackedForward

PROMPT = 5
SHORT, LONG = 16, SHORT_ROW + 2
"""Tokens of the longest row of each trial; the last token is not fed, so `LONG` is just above `SHORT_ROW`."""

PADDING = 2
"""Columns of padding behind the longest row, as collators add them."""

WINDOW = 5
"""Sliding windows are tried this narrow, whatever their width: the rows of the trial are short."""

WEIGHT = 0.02
"""Standard deviation that new adapters get for the trial: as they come, they are zero and nothing of them shows."""


@dataclass(frozen=True)
class Route:
    """A way on which TRL asks for token scores.

    Attributes:
        call: What TRL calls: the outermost model.
        engine: The engine inside of it.
        contexts: Functions that return the contexts to try in, such as autocast; one that changes nothing about the
            arithmetic is passed over.
        within: A function that returns the context which makes the model a reference; None for a policy, whose
            backward pass is tried too.
        arguments: What TRL passes besides a batch.
    """

    call: Any
    engine: PackedForward
    contexts: Sequence[Callable[[], contextlib.AbstractContextManager[Any]]]
    within: Callable[[], contextlib.AbstractContextManager[Any]] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


def reason_by_trial(route: Route) -> str | None:
    """Let both forwards score made-up pairs.

    Returns:
        Why the engine cannot be used on this model, or None if it can: a difference, random numbers in the
        forward, or an error. An error of the engine's own code that no model could cause is raised.
    """
    model = route.engine.model
    modes = [(module, "training", module.training) for module in route.call.modules()]
    learns = route.within is None
    reason: str | None = None
    tried: set[torch.dtype] = set()
    try:
        with no_trace(model), route.engine.on_trial(), for_a_while(modes), contextlib.ExitStack() as stack:
            route.call.train(learns)
            stack.enter_context(_filled_with_noise(route.call) if route.within is None else route.within())
            for context in route.contexts:
                with context():
                    arithmetic = arithmetic_of(model)
                    if reason is None and arithmetic not in tried:
                        tried.add(arithmetic)
                        reason = _difference(route, coarse=arithmetic != torch.float32)
    except (TypeError, RuntimeError, ValueError, AttributeError, LookupError) as error:
        reason = in_words(error)
    return None if reason is None else f"{model.config.get_text_config().model_type}: {reason}"


def _difference(route: Route, *, coarse: bool) -> str | None:
    """What the two forwards do not agree on in the context that is active, in words."""
    engine, learns = route.engine, route.within is None
    config = engine.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or LONG
    batches = [
        _trial_batch(engine, longest) | route.arguments
        for longest in (SHORT, LONG)
        if longest <= max(positions, SHORT)
    ]
    if learns and _draws_lots(route, batches[0]):
        return "dropout or other noise in the model's code, and a shared prompt can have only one draw of it"
    trials: list[tuple[dict[str, Any], list[tuple[Any, str, Any]]]] = [(batch, []) for batch in batches]
    if isinstance(getattr(config, "sliding_window", None), int):
        trials.append((batches[0], _narrow_windows(engine.model, config)))
    if engine.length_scaled:
        trials.append((batches[0], narrowed(engine.model, SHORT - 1)))
    for batch, changes in trials:
        with for_a_while(changes):
            with engine.paused():
                expected, wanted_gradient = _scores_and_gradient(route, batch)
            before = engine.counts.packed
            found, gradient = _scores_and_gradient(route, batch)
        if engine.counts.packed == before:
            return next(reversed(engine.counts.handed_over), "the model's forward is never called")
        gap = gap_between(found, expected, coarse=coarse)
        if gap is not None:
            return f"a trial differed from TRL's forward by {gap:.2g} {UNIT}"
        error, size = float((gradient - wanted_gradient).norm()), float(wanted_gradient.norm())
        if not error <= (COARSE_GRADIENT_TOLERANCE if coarse else GRADIENT_TOLERANCE) * size:
            return f"a trial differed from TRL's backward pass by {error:.2g} in gradients of {size:.2g}"
    return None


def _draws_lots(route: Route, batch: dict[str, Any]) -> bool:
    """Whether TRL's forward depends on random numbers in training mode: dropout that is no `nn.Dropout`, for instance."""
    device = route.engine.model.device

    def score() -> torch.Tensor:
        with state_kept(route.engine.model):
            scores: torch.Tensor = route.call(**batch, fused_lm_head=True).log_probs
        return scores

    with torch.no_grad(), route.engine.paused():
        state = _random_state(device)
        once = score()
        if torch.equal(state, _random_state(device)):
            return False
        # Numbers were drawn; some models draw them and then drop nothing.
        return not torch.equal(once, score())


def _random_state(device: torch.device) -> torch.Tensor:
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return torch.cat(states)


def _scores_and_gradient(route: Route, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of a batch, and the gradient of a weighted sum of them.

    Args:
        route: The way to call the model.
        batch: From `_trial_batch`.

    Returns:
        `[n]`, fp32, of the completion tokens in TRL's order; and `[m, h]`, fp32, with respect to what is added to the
        embedding of each of the `m` distinct tokens. Of a reference the gradient is empty.
    """
    model, learns = route.engine.model, route.within is None
    embedding = model.get_input_embeddings()
    tokens = batch["input_ids"].unique()
    added: list[torch.Tensor] = []

    def add(_: Any, given: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
        ids = next(iter((*given, *named.values())))
        added.append(torch.zeros(len(tokens), output.shape[-1], device=output.device, requires_grad=learns))
        return output + added[0][torch.searchsorted(tokens, ids)].to(output.dtype)

    handle = embedding.register_forward_hook(add, with_kwargs=True)
    try:
        with torch.set_grad_enabled(learns), state_kept(model):
            log_probs = route.call(**batch, fused_lm_head=True).log_probs
            scores = log_probs[batch["labels"][:, 1:] != IGNORED_LABEL].float()
            if not learns:
                return scores, scores.new_zeros(0)
            weights = torch.linspace(-1, 2, len(scores), device=scores.device)
            (gradient,) = torch.autograd.grad((scores * weights).sum(), added[0])
    finally:
        handle.remove()
    return scores.detach(), gradient


@contextlib.contextmanager
def _filled_with_noise(model: torch.nn.Module) -> Iterator[None]:
    """Give trained weights that are all zero a value, so that it shows what they would do."""
    empty = [p for p in model.parameters() if p.requires_grad and p.dim() > 1 and not bool(p.any())]
    with torch.no_grad():
        for parameter in empty:
            parameter.normal_(std=WEIGHT)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter in empty:
                parameter.zero_()


def _narrow_windows(model: Any, config: Any) -> list[tuple[Any, str, Any]]:
    """The attributes to set for sliding windows of `WINDOW` tokens."""
    layers = [m for m in model.modules() if isinstance(getattr(m, "sliding_window", None), int)]
    less = config.sliding_window - WINDOW  # a few layers count the window from one on
    return [(holder, "sliding_window", holder.sliding_window - less) for holder in (config, *layers)]


def _trial_batch(engine: PackedForward, longest: int) -> dict[str, Any]:
    """Two pairs of 9 to `longest` arbitrary tokens: a common beginning, none at all, different lengths, padding."""
    model = engine.model
    vocabulary = model.get_output_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (4, longest), generator=generator)
    ids[2, : longest // 2 + 1] = ids[0, : longest // 2 + 1]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or longest + PADDING
    padding = 0 if engine.length_scaled else max(0, min(PADDING, positions - longest))
    ids = torch.nn.functional.pad(ids, (0, padding))
    lengths, places = torch.tensor([longest, 9, longest - 3, 15]), torch.arange(longest + padding)
    mask = (places < lengths[:, None]).long()
    labels = ids.masked_fill((places < PROMPT) | (mask == 0), IGNORED_LABEL)
    device = model.get_input_embeddings().weight.device
    return {
        "input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device), "use_cache": False,
    }  # fmt: skip
