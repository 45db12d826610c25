"""The shared-prefix engine: one forward over prompt + chosen + rejected, behind TRL's own seam.

TRL's `DPOTrainer` calls `model(**batch, labels=labels, fused_lm_head=True)` and reads per-token
`log_probs, entropy, mean_logits, is_top1, log_sum_sq_probs`. `install_shared_prefix` replaces that one
forward by one over a packed row (`packing`), with attention by segment (`segment_attention`) and an LM
head on completion tokens only (`completion_head`). TRL's loss, metrics and options run on unchanged.

How to call it::

    trainer = DPOTrainer(...)                       # TRL's own class; `SharedPrefixTrainer` does all of this by itself
    reason = install_shared_prefix(trainer)         # before trainer.train()
    if reason is not None:                          # None: the engine runs
        ...say once: "trl engine: {reason}"         # nothing was changed, TRL's forward runs

Whatever is not known to be covered is decided by trying (`trial`): both forwards score the same small
made-up pairs, and the engine is used only where they agree. Numbers never change silently.
"""

# ruff: noqa: ANN401, SLF001 - transformers' and trl's objects are Any to mypy, and the seam is not all public

from __future__ import annotations

import contextlib
import functools
import types
from typing import TYPE_CHECKING, Any, cast

import torch

from dpo_cli.engine.completion_head import score_tokens
from dpo_cli.engine.packing import PackedPairs, is_right_padded, pack_pairs
from dpo_cli.engine.segment_attention import (
    LAYOUT_ARGUMENT,
    packed_forward,
    plug_in,
    plug_out,
)
from dpo_cli.engine.trial import reason_by_trial
from dpo_cli.engine.vocabulary_tiles import HeadSettings

if TYPE_CHECKING:
    from trl import DPOTrainer

ENGINE_VERSION = 1
"""Raised whenever the engine's numbers may change; part of the key of cached reference log-probabilities."""


def install_shared_prefix(trainer: DPOTrainer) -> str | None:
    """Make a TRL trainer use the shared-prefix forward for its policy and its reference.

    Args:
        trainer: A constructed `DPOTrainer`; `train()` must not have been called.

    Returns:
        None when the engine is in place; otherwise the reason why it cannot be, in words for the user.
        The trainer is left as it was then.
    """
    reason = _reason_by_settings(trainer)
    if reason is not None:
        return reason
    policy = _base_model(trainer.model)
    models = [policy] if trainer.ref_model is None else [policy, _base_model(trainer.ref_model)]
    outputs = frozenset(
        {"entropy", "mean_logits", "is_top1"} | ({"log_sum_sq_probs"} if trainer.use_weighting else set())
    )
    autocast = trainer.accelerator.autocast
    installed: list[Any] = []
    for model in models:
        # The policy is called inside of the trainer's autocast; a reference was wrapped in its own, which is replaced here.
        reason = (
            install_forward(model, outputs, called_in=autocast)
            if model is policy
            else install_forward(model, frozenset(), autocast)
        )
        if reason is not None:
            for done in installed:
                remove_forward(done)
            return reason
        installed.append(model)
    return None


def install_forward(
    model: Any, outputs: frozenset[str], autocast: Any = contextlib.nullcontext, *, called_in: Any = None
) -> str | None:
    """Replace the fused forward of one causal LM (see `install_shared_prefix`).

    Args:
        model: A transformers causal LM that TRL has given a fused LM head, adapters inside allowed.
        outputs: The fields TRL will read besides `log_probs`.
        autocast: A function that returns the context to run the forward in.
        called_in: A function that returns the context in which the model will be called, if there is one.

    Returns:
        None, or the reason why the model stays as it was.
    """
    text_config = model.config.get_text_config()
    reason = _reason_by_config(model, text_config)
    if reason is not None:
        return reason
    before = model.forward
    plug_in(text_config)
    model.forward = types.MethodType(_forward_in_place_of(before, outputs, autocast, text_config), model)
    model._forward_before_engine = before
    reason = reason_by_trial(model, before, (autocast, called_in or autocast))
    if reason is not None:
        remove_forward(model)
    return reason


def remove_forward(model: Any) -> None:
    """Give a model back the forward and the attention it had before `install_forward`."""
    model.forward = model._forward_before_engine
    del model._forward_before_engine
    plug_out(model.config.get_text_config())


def _base_model(model: Any) -> Any:
    from accelerate.utils import is_peft_model

    return model.get_base_model() if is_peft_model(model) else model


def _forward_in_place_of(before: Any, outputs: frozenset[str], autocast: Any, text_config: Any) -> Any:
    """A forward that packs when TRL asks for token scores, and is the former one for everything else."""
    from trl.trainer.utils import FusedCausalLMOutput

    settings = head_settings(text_config)

    @functools.wraps(before)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        ids, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
        known = not args and set(kwargs) <= {
            "input_ids",
            "attention_mask",
            "use_cache",
            "output_router_logits",
        }
        if not fused_lm_head or not known or labels is None or mask is None or not is_right_padded(mask):
            if fused_lm_head:
                kwargs["fused_lm_head"] = True
            if labels is not None:
                kwargs["labels"] = labels
            return before(*args, **kwargs)
        routed = kwargs.get("output_router_logits", False)
        packed = pack_pairs(cast("torch.Tensor", ids), mask, labels, keep_last=routed)
        with autocast():
            run = _run_backbone(self, packed, routed=routed)
            positions = packed.scored_positions
            hidden = run.last_hidden_state[0].index_select(0, positions)
            head = self.get_output_embeddings()
            bias = getattr(head, "bias", None)
            scores = score_tokens(
                hidden, head.weight, bias, packed.scored_targets, settings=settings, outputs=outputs
            )
            aux_loss = _router_loss(text_config, run.router_logits, packed, mask) if routed else None
        rows = {name: None if x is None else packed.to_rows(x) for name, x in scores._asdict().items()}
        return FusedCausalLMOutput(**rows, label_mask=packed.label_mask, aux_loss=aux_loss)

    return forward


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


def _reason_by_settings(trainer: Any) -> str | None:
    """What of the trainer's settings the engine does not cover."""
    args, config = trainer.args, trainer.model.config.get_text_config()
    adapters = getattr(trainer.model, "peft_config", {})
    parallel = trainer.accelerator.parallelism_config
    dropping = [m for m in trainer.model.modules() if isinstance(m, torch.nn.Dropout) and m.p > 0]
    checks = (
        (trainer._is_vlm or trainer._is_vision_dataset, "vision-language models"),
        (
            any(a.is_prompt_learning for a in adapters.values()),
            "prompt-learning adapters prepend tokens of their own",
        ),
        (bool(dropping), "dropout is on, and a shared prompt can have only one dropout mask"),
        (bool(getattr(config, "attention_dropout", 0.0)), "the model's config has attention dropout"),
        (bool(getattr(config, "layerdrop", 0.0)), "the model's config drops layers at random"),
        (trainer.is_fsdp_enabled, "FSDP shards the weights"),
        (trainer.is_deepspeed_enabled, "DeepSpeed wraps the model"),
        (parallel is not None and parallel.total_size > 1, "tensor, context or sequence parallelism"),
        (args.torch_compile, "torch.compile"),
    )
    return next((reason for applies, reason in checks if applies), None)


def _reason_by_config(model: Any, config: Any) -> str | None:
    """What of a model's architecture the engine does not cover, as far as its config tells."""
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    checks = (
        (config.is_encoder_decoder, "encoder-decoder models"),
        (not getattr(config, "is_causal", True), "attention that is not causal"),
        (getattr(config, "use_bidirectional_attention", False) is True, "bidirectional attention"),
        (bool(kinds), f"layers of type {', '.join(sorted(kinds))}"),
        (getattr(config, "attention_chunk_size", None) is not None, "chunked attention"),
        (
            not type(model)._can_set_attn_implementation(),
            "attention outside of transformers' attention interface",
        ),
    )
    return next((f"{config.model_type}: {reason}" for applies, reason in checks if applies), None)
