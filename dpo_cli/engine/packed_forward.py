"""The forward that stands in for TRL's fused one: packed where the engine covers a batch, TRL's where it does not.

Every request of TRL's for token scores is counted under the forward that answered it, so that a run can say what it
was computed with. The first batch of each kind is scored by both forwards on its shortest pair: what is switched on
only when training starts (noise, patched layers) is on no list and in no trial.
"""

# ruff: noqa: ANN401 - transformers' and trl's objects are Any to mypy

from __future__ import annotations

import contextlib
import functools
import types
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from dpo_cli.engine.agreement import first_difference
from dpo_cli.engine.completion_head import score_tokens
from dpo_cli.engine.length_scaled_rope import length_scaled_modules
from dpo_cli.engine.packing import IGNORED_LABEL, PackedPairs, is_right_padded, pack_pairs
from dpo_cli.engine.segment_attention import LAYOUT_ARGUMENT, packed_forward, plug_in, plug_out
from dpo_cli.engine.vocabulary_tiles import HeadSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dpo_cli.engine.accumulation import Accumulation

KEYWORDS = {"input_ids", "attention_mask", "use_cache", "output_router_logits"}
"""What a batch may carry; peft passes more names than that, with nothing behind them."""


@dataclass
class ForwardCounts:
    """Who answered TRL's requests for token scores.

    Attributes:
        packed: Requests that the engine answered.
        handed_over: Requests that went to TRL's forward, by reason.
        on_handover: Called when a reason occurs for the first time, with the reason, and with whether all later
            requests go the same way.
    """

    packed: int = 0
    handed_over: Counter[str] = field(default_factory=Counter)
    on_handover: Callable[[str, bool], None] = field(default=lambda _reason, _for_good: None, repr=False)

    def hand_over(self, reason: str, *, for_good: bool) -> None:
        """Count a request that goes to TRL's forward."""
        self.handed_over[reason] += 1
        if self.handed_over[reason] == 1:
            self.on_handover(reason, for_good)


class PackedForward:
    """The engine of one causal LM.

    Args:
        model: A transformers causal LM that TRL has given a fused LM head, adapters inside allowed.
        outputs: The fields TRL will read besides `log_probs`.
        autocast: A function that returns the context to run the packed forward in.
        counts: Where requests are counted.

    Attributes:
        model: The model.
        before: The forward it had before, TRL's.
        counts: Where requests are counted.
        off: Why every request goes to TRL's forward; None while the engine answers.
        length_scaled: Whether positions depend on the length of the batch.
        accumulation: The micro-batches of a step, where they are scored together.
    """

    accumulation: Accumulation | None = None

    def __init__(self, model: Any, outputs: frozenset[str], autocast: Any, counts: ForwardCounts) -> None:
        self.model, self.before, self.counts = model, model.forward, counts
        self.off: str | None = None
        self.length_scaled = bool(length_scaled_modules(model))
        self._outputs, self._autocast = outputs, autocast
        self._text_config = model.config.get_text_config()
        self._settings = head_settings(self._text_config)
        self._compared: set[tuple[bool, bool]] = set()

    def install(self) -> None:
        """Replace the model's forward and its attention."""
        before, engine = self.before, self

        @functools.wraps(before)
        def forward(
            model: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any
        ) -> Any:
            if not fused_lm_head:
                return before(*args, **kwargs) if labels is None else before(*args, labels=labels, **kwargs)
            reason = engine.off or engine.reason_against(args, kwargs, labels)
            if reason is None:
                reason = engine.off = engine.compare_once(model, kwargs, labels)
            if reason is None:
                engine.counts.packed += 1
                return engine.score_accumulated(model, labels) or engine.score(model, labels=labels, **kwargs)
            engine.counts.hand_over(reason, for_good=engine.off is not None)
            return before(*args, fused_lm_head=True, labels=labels, **kwargs)

        plug_in(self._text_config)
        forward.is_shared_prefix = True  # type: ignore[attr-defined]
        self.model.forward = types.MethodType(forward, self.model)

    def remove(self) -> None:
        """Give the model back the forward and the attention it had."""
        self.model.forward = self.before
        plug_out(self._text_config)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let TRL's forward answer for a while."""
        self.off, before = "paused", self.off
        try:
            yield
        finally:
            self.off = before

    @contextlib.contextmanager
    def on_trial(self) -> Iterator[ForwardCounts]:
        """Count apart, and compare nothing, for a while."""
        counts, compared = self.counts, self._compared
        self.counts, self._compared = ForwardCounts(), {(a, b) for a in (True, False) for b in (True, False)}
        try:
            yield self.counts
        finally:
            self.counts, self._compared = counts, compared

    def reason_against(self, args: tuple[Any, ...], kwargs: dict[str, Any], labels: Any) -> str | None:
        """Why the engine cannot answer this request; None if it can."""
        more = sorted(name for name, given in kwargs.items() if name not in KEYWORDS and given is not None)
        if args or more:
            return f"a batch with {', '.join(more) or 'arguments without a name'}"
        ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
        if ids is None or mask is None or labels is None:
            return "a batch without token ids, attention mask or labels"
        if mask.shape != ids.shape or len(ids) % 2:
            return "a batch that is not rows of chosen and rejected completions"
        checks: tuple[tuple[Callable[[], bool], str], ...] = (
            (lambda: not is_right_padded(mask), "a batch that is not padded on the right"),
            (
                lambda: bool(((labels != IGNORED_LABEL) & ((labels != ids) | (mask == 0))).any()),
                "labels that are not the tokens of their rows",
            ),
            (
                lambda: self.length_scaled and int(mask.sum(1).max()) < mask.shape[1],
                "padding beyond the longest row, and the model scales positions by the length of a batch",
            ),
        )
        return next((reason for applies, reason in checks if applies()), None)

    def compare_once(self, model: Any, kwargs: dict[str, Any], labels: torch.Tensor) -> str | None:
        """Score the shortest pair of the first batch of its kind by both forwards: a difference in words, or None."""
        kind = (model.training, torch.is_grad_enabled())
        if kind in self._compared:
            return None
        self._compared.add(kind)
        lengths = kwargs["attention_mask"].sum(1).view(2, -1)
        # Where the length of the batch scales positions, the longest row has to be there.
        pair = int(lengths.amax(0).argmax() if self.length_scaled else lengths.sum(0).argmin())
        rows = torch.tensor([pair, pair + lengths.shape[1]], device=labels.device)
        batch = {name: x[rows] if isinstance(x, torch.Tensor) else x for name, x in kwargs.items()}
        batch["labels"] = labels[rows]
        return first_difference(
            model,
            lambda: self.before(**batch, fused_lm_head=True).log_probs,
            lambda: self.score(model, **batch).log_probs,
            self._autocast,
        )

    def score_accumulated(self, model: Any, labels: torch.Tensor) -> Any | None:
        """Scores of a micro-batch that is trained on together with others; None where it is alone."""
        if self.accumulation is None or self.length_scaled or not torch.is_grad_enabled():
            return None

        def score(batch: dict[str, torch.Tensor]) -> Any | None:
            given = {name: tensor for name, tensor in batch.items() if name != "labels"}
            if self.reason_against((), given, batch["labels"]) is not None:
                return None
            return self.score(model, **batch)

        return self.accumulation.scores(labels, score)

    def score(
        self,
        model: Any,
        *,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        **kwargs: Any,
    ) -> Any:
        """TRL's `FusedCausalLMOutput` for a batch that nothing is against."""
        from trl.trainer.utils import FusedCausalLMOutput

        routed = bool(kwargs.get("output_router_logits"))
        packed = pack_pairs(input_ids, attention_mask, labels, keep_last=routed or self.length_scaled)
        with self._autocast():
            run = _run_backbone(model, packed, routed=routed)
            hidden = run.last_hidden_state[0].index_select(0, packed.scored_positions)
            head = model.get_output_embeddings()
            scores = score_tokens(
                hidden,
                head.weight,
                getattr(head, "bias", None),
                packed.scored_targets,
                settings=self._settings,
                outputs=self._outputs,
            )
            aux_loss = (
                _router_loss(self._text_config, run.router_logits, packed, attention_mask) if routed else None
            )
        rows = {name: None if x is None else packed.to_rows(x) for name, x in scores._asdict().items()}
        return FusedCausalLMOutput(**rows, label_mask=packed.label_mask, aux_loss=aux_loss)


def is_installed(model: Any) -> bool:
    """Whether a model's forward is the engine's."""
    return getattr(model.forward, "is_shared_prefix", False)


def head_settings(text_config: Any) -> HeadSettings:
    """How a model turns hidden states into logits; the same reading of the config as TRL's `add_fused_lm_head`."""
    scale = getattr(text_config, "logit_scale", None)
    for name in ("output_multiplier", "lm_head_multiplier"):
        scale = getattr(text_config, name, None) if scale is None else scale
    divisor = getattr(text_config, "logits_scaling", None)
    if scale is None and divisor is not None:
        scale = divisor if text_config.model_type == "hyperclovax" else 1 / divisor
    return HeadSettings(
        1.0 if scale is None else scale, getattr(text_config, "final_logit_softcapping", None)
    )


def _run_backbone(model: Any, packed: PackedPairs, *, routed: bool) -> Any:
    arguments: dict[str, Any] = {LAYOUT_ARGUMENT: packed, "use_cache": False}
    if routed:
        arguments["output_router_logits"] = True
    with packed_forward():
        return model.base_model(
            input_ids=packed.token_ids[None],
            attention_mask=torch.ones_like(packed.token_ids)[None],
            position_ids=packed.position_ids[None],
            **arguments,
        )


def _router_loss(
    text_config: Any, router_logits: Any, packed: PackedPairs, mask: torch.Tensor
) -> torch.Tensor:
    """The load-balancing loss over TRL's rows: shared tokens count twice there, padding not at all."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    index = packed.row_index.flatten()
    rows = tuple(layer.index_select(0, index) for layer in router_logits)
    loss: torch.Tensor = load_balancing_loss_func(
        rows, text_config.num_experts, text_config.num_experts_per_tok, mask[:, : packed.longest]
    )
    return loss
