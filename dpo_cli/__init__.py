"""Direct Preference Optimization on any preference data, with evidence after every run.

The public names are loaded when they are first used (PEP 562): `import dpo_cli` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpo_cli.config import DPOTrainingConfig, IdentityShiftConfig
    from dpo_cli.data.load import load_dpo_dataset
    from dpo_cli.errors import DpoError
    from dpo_cli.jobs.compare import compare
    from dpo_cli.jobs.identity_shift import identity_shift
    from dpo_cli.models.loading import load_model_and_tokenizer
    from dpo_cli.synthesis.answers import build_dpo_dataset
    from dpo_cli.synthesis.identity import build_identity_shift_dataset
    from dpo_cli.synthesis.rename import build_rename_dataset
    from dpo_cli.training.loop import TrainingResult
    from dpo_cli.training.trainer import DPOTrainerWrapper

__version__ = "0.1.0"

_WHERE = {
    "DPOTrainerWrapper": "training.trainer",
    "DPOTrainingConfig": "config",
    "DpoError": "errors",
    "IdentityShiftConfig": "config",
    "TrainingResult": "training.loop",
    "build_dpo_dataset": "synthesis.answers",
    "build_identity_shift_dataset": "synthesis.identity",
    "build_rename_dataset": "synthesis.rename",
    "compare": "jobs.compare",
    "identity_shift": "jobs.identity_shift",
    "load_dpo_dataset": "data.load",
    "load_model_and_tokenizer": "models.loading",
}

__all__ = [
    "DPOTrainerWrapper",
    "DPOTrainingConfig",
    "DpoError",
    "IdentityShiftConfig",
    "TrainingResult",
    "build_dpo_dataset",
    "build_identity_shift_dataset",
    "build_rename_dataset",
    "compare",
    "identity_shift",
    "load_dpo_dataset",
    "load_model_and_tokenizer",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _WHERE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"dpo_cli.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
