"""From our settings to TRL's DPOConfig and peft's LoraConfig."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from trl import DPOConfig

from dpo_cli.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from peft import LoraConfig

    from dpo_cli.config import OptimizationConfig

OTHER_MEANING = frozenset({"gradient_checkpointing"})
"""Settings whose name TRL has for something else: what we mean by it is its `activation_checkpointing`."""


def trl_arguments(
    config: OptimizationConfig, *, folder: Path, autocast: str, on_cpu: bool, evaluate: bool, precompute: bool
) -> DPOConfig:
    """Build TRL's configuration.

    Args:
        config: Our settings.
        folder: Where checkpoints go.
        autocast: "bfloat16" or "float16" for mixed precision over fp32 weights, "float32" for none.
        on_cpu: Train on the CPU even if there is another device.
        evaluate: Whether there are held-out pairs.
        precompute: Whether a pair's reference can be computed before training.

    Raises:
        ConfigError: If TRL refuses a value.
    """
    same_name = {field.name for field in fields(DPOConfig)} & type(config).model_fields.keys() - OTHER_MEANING
    values: dict[str, Any] = {name: getattr(config, name) for name in same_name}
    values |= {
        "output_dir": str(folder),
        "loss_type": list(config.loss_type),
        "loss_weights": None if config.loss_weights is None else list(config.loss_weights),
        "warmup_steps": config.warmup_steps if config.warmup_ratio is None else config.warmup_ratio,
        "max_steps": config.max_steps or -1,
        "bf16": autocast == "bfloat16",
        "fp16": autocast == "float16",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "save_strategy": "steps" if config.save_steps else "no",
        "save_steps": config.save_steps or 500,
        "eval_strategy": "steps" if evaluate and config.eval_steps else "no",
        "eval_steps": config.eval_steps,
        "precompute_ref_log_probs": precompute and not config.trl.get("sync_ref_model"),
        "report_to": list(config.report_to) or "none",
        "activation_checkpointing": config.gradient_checkpointing,
        # The base has its dropout switched off before TRL sees it; what is left is that of new adapters.
        "disable_dropout": config.lora_rank is None or not config.lora_dropout,
        # For a reference that TRL loads itself, when it is not computed beforehand.
        "trust_remote_code": config.trust_remote_code,
        "disable_tqdm": True,
        # The first line is the state before any update, where rewards are 0; a loss that is no number is shown as it is.
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
    }
    try:
        return DPOConfig(**(values | config.trl))
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"trl: {error}") from error


def lora_config(
    rank: int | None,
    *,
    alpha: float | None = None,
    dropout: float = 0.0,
    modules: Sequence[str] = ("all-linear",),
) -> LoraConfig | None:
    """Peft's configuration of new adapters.

    Args:
        rank: Their rank; None when all weights are trained.
        alpha: Their scale; twice the rank unless given.
        dropout: Dropout in them.
        modules: Layers that get one.

    Returns:
        None without a rank.
    """
    if rank is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha or 2 * rank,
        lora_dropout=dropout,
        target_modules=modules[0] if list(modules) == ["all-linear"] else list(modules),
    )
