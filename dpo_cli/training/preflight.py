"""What is asked of a run before anything is read: one process, a plain environment, trackers, values that TRL takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dpo_cli.config.sources import flag_name
from dpo_cli.errors import ConfigError
from dpo_cli.training.one_process import refuse_several_processes
from dpo_cli.training.trackers import require_trackers

if TYPE_CHECKING:
    from dpo_cli.config import OptimizationConfig

_ENVIRONMENT = {
    "ACCELERATE_DYNAMO_BACKEND": "--trl torch_compile=true",
    "ACCELERATE_MIXED_PRECISION": "--dtype",
    "ACCELERATE_TORCH_DEVICE": "--device",
    "ACCELERATE_USE_CPU": "--device cpu",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "--gradient-accumulation-steps",
    "ACCELERATE_GRADIENT_CLIPPING": "--max-grad-norm",
    "ACCELERATE_USE_FSDP": "",
    "ACCELERATE_USE_DEEPSPEED": "",
    "ACCELERATE_USE_MEGATRON_LM": "",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "",
    "ACCELERATE_USE_SAGEMAKER": "",
}
"""Variables by which accelerate changes how a model is trained, and our setting for it; empty where there is none."""

_NOTHING = {"", "0", "no", "none", "false", "f", "n", "off"}

_OF_HELDOUT_PAIRS = ("eval_steps", "min_reward_accuracy")
"""Settings that say what is done with held-out pairs."""

_USUAL_SCHEDULES = {"linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"}


def preflight(config: OptimizationConfig, *, evaluate: bool) -> None:
    """Refuse a run that cannot go well, before anything is read or written.

    Args:
        config: Its settings.
        evaluate: Whether there are held-out pairs.

    Raises:
        ConfigError: With the setting or variable, and what to do.
    """
    refuse_several_processes()
    _refuse_environment()
    require_trackers(config.report_to)
    if not evaluate and (given := [name for name in _OF_HELDOUT_PAIRS if _is_given(config, name)]):
        raise ConfigError(
            "\n".join(f"{flag_name(name)}: has no effect without held-out pairs" for name in given),
            hint="Give --eval-dataset or --eval-fraction.",
        )
    unusual = config.optim != "adamw_torch" or config.lr_scheduler_type not in _USUAL_SCHEDULES
    if config.trl or unusual:
        from dpo_cli.training.rehearsal import rehearse

        rehearse(config, evaluate=evaluate)


def _is_given(config: OptimizationConfig, name: str) -> bool:
    field = type(config).model_fields.get(name)
    return field is not None and getattr(config, name) != field.default


def _refuse_environment() -> None:
    for name, ours in _ENVIRONMENT.items():
        value = os.environ.get(name, "")
        neutral = _NOTHING | {"1"} if name == "ACCELERATE_GRADIENT_ACCUMULATION_STEPS" else _NOTHING
        if value.lower() not in neutral:
            raise ConfigError(
                f"{name} is set to {value}: it would change the training without being recorded",
                hint=f"Unset it; the setting is {ours}." if ours else "Unset it; dpo trains in one process.",
            )
