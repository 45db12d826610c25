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
made-up pairs, and the engine is used only where they agree. A batch that it does not cover is counted and
goes to TRL's forward (`packed_forward`). Numbers never change silently.
"""

# ruff: noqa: ANN401, SLF001 - transformers' and trl's objects are Any to mypy, and the seam is not all public

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import use_adapter

from dpo_cli.engine.accumulation import accumulate_together
from dpo_cli.engine.packed_forward import ForwardCounts, PackedForward, is_installed
from dpo_cli.engine.packing import IGNORED_LABEL
from dpo_cli.engine.trial import Route, reason_by_trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trl import DPOTrainer

NOT_FOR_THE_MODEL = {"completion_mask", "ref_chosen_logps", "ref_rejected_logps"}
"""What TRL takes out of a batch before it calls the model."""

ENGINE_VERSION = 2
"""Raised whenever the engine's numbers may change; part of the key of cached reference log-probabilities."""


def install_shared_prefix(trainer: DPOTrainer, counts: ForwardCounts | None = None) -> str | None:
    """Make a TRL trainer use the shared-prefix forward for its policy and its reference.

    Args:
        trainer: A constructed `DPOTrainer`; `train()` must not have been called.
        counts: Where it is counted which forward answered.

    Returns:
        None when the engine is in place; otherwise the reason why it cannot be, in words for the user.
        The trainer is left as it was then.
    """
    if any(map(is_installed, _models(trainer))):
        return None
    reason = _reason_by_settings(trainer)
    if reason is not None:
        return reason
    counts = ForwardCounts() if counts is None else counts
    installed: list[PackedForward] = []
    for model in _models(trainer):
        reason = _reason_by_config(model, model.config.get_text_config())
        if reason is None:
            outputs, autocast = _as_called(trainer, model)
            installed.append(PackedForward(model, outputs, autocast, counts))
            installed[-1].install()
            reason = _reason_by_collator(trainer, installed[-1])
    for route in _routes(trainer, installed):
        reason = reason or reason_by_trial(route)
    if reason is not None:
        for engine in reversed(installed):
            engine.remove()
    else:
        installed[0].accumulation = accumulate_together(trainer)
    return reason


def install_forward(model: Any, outputs: frozenset[str]) -> str | None:
    """Replace the fused forward of one causal LM without a trainer (see `install_shared_prefix`).

    Args:
        model: A transformers causal LM that TRL has given a fused LM head.
        outputs: The fields that will be read besides `log_probs`.

    Returns:
        None, or the reason why the model stays as it was.
    """
    reason = _reason_by_config(model, model.config.get_text_config())
    if reason is not None:
        return reason
    engine = PackedForward(model, outputs, contextlib.nullcontext, ForwardCounts())
    engine.install()
    reason = reason_by_trial(Route(model, engine, [contextlib.nullcontext]))
    if reason is not None:
        engine.remove()
    return reason


def _reason_by_collator(trainer: Any, engine: PackedForward) -> str | None:
    """What of the batches that a collator of the user's own makes the engine does not cover, by the first two pairs."""
    collator, pairs = trainer.data_collator, trainer.train_dataset
    if type(collator) is DataCollatorForPreference or not isinstance(pairs, Dataset):
        return None
    with torch.random.fork_rng(devices=[]):
        batch = collator([pairs[i] for i in range(min(2, len(pairs)))])
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED_LABEL)
    given = {name: value for name, value in batch.items() if name not in NOT_FOR_THE_MODEL}
    reason = engine.reason_against((), given, labels)
    return None if reason is None else f"{type(collator).__name__} makes {reason}"


def _models(trainer: Any) -> list[Any]:
    """The bare policy, and the bare reference where it is a model of its own."""
    given = [trainer.model] if trainer.ref_model is None else [trainer.model, trainer.ref_model]
    return [model.get_base_model() if is_peft_model(model) else model for model in given]


def _as_called(trainer: Any, model: Any) -> tuple[frozenset[str], Any]:
    """The fields that TRL reads of a model's scores, and the context that its forward makes for itself.

    The policy is called inside of the trainer's autocast; a reference was wrapped in its own, which is replaced.
    """
    if model is not _models(trainer)[0]:
        return frozenset(), trainer.accelerator.autocast
    outputs = {"entropy", "mean_logits", "is_top1"} | (
        {"log_sum_sq_probs"} if trainer.use_weighting else set()
    )
    return frozenset(outputs), contextlib.nullcontext


def _routes(trainer: Any, engines: Sequence[PackedForward]) -> Iterator[Route]:
    """The ways on which TRL will call these models."""
    if len(engines) < len(_models(trainer)):
        return
    autocast, policy = trainer.accelerator.autocast, trainer.model
    routed = {"output_router_logits": True} if trainer.aux_loss_enabled else {}
    yield Route(policy, engines[0], [contextlib.nullcontext, autocast], arguments=routed)
    if trainer.ref_model is not None:
        yield Route(trainer.ref_model, engines[1], [autocast], within=contextlib.nullcontext)
    elif is_peft_model(policy):
        reference = "ref" if "ref" in policy.peft_config else None
        yield Route(policy, engines[0], [autocast], within=lambda: use_adapter(policy, reference))


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
        (
            any(getattr(a, "alora_invocation_tokens", None) for a in adapters.values()),
            "activated LoRA starts at a different position in each row",
        ),
        (
            bool(args.neftune_noise_alpha),
            "NEFTune noise is on, and a shared prompt can have only one draw of it",
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
