"""What is known about a run, in one shape for report and model card."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dpo_cli.config import to_toml
from dpo_cli.report.figures import duration, size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dpo_cli.config import Settings
    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.events import Warned
    from dpo_cli.jobs.identity_shift import IdentityShiftResult
    from dpo_cli.jobs.train import TrainResult

_PACKAGES = ("dpo-cli", "torch", "transformers", "trl", "peft", "datasets")


@dataclass(frozen=True)
class RunRecord:
    """A run, or a comparison without one.

    Attributes:
        title: What was done, in a line.
        command: The command as it can be typed again.
        base: The model before.
        comparison: Before and after; None where nothing was held out.
        history: Records of logged steps and evaluations, as in `metrics.jsonl`.
        warnings: What looked wrong on the way.
        stopped_early: Why the run ended before its last step; None when it did not.
        learning: How a new name was learnt, in a sentence; empty where that was not watched.
        facts: What it ran on and how long it took: name to text.
        pairs: What became of the data: name to text.
        settings: The settings as TOML; empty for a comparison alone.
        preset: Settings that came with the model rather than from the user: name to text.
        recipe: The recipe that supplied settings, in a line; empty without one.
        adapter: Whether the output is a LoRA adapter.
    """

    title: str
    command: str
    base: str
    comparison: Comparison | None
    history: Sequence[Mapping[str, float]] = ()
    warnings: Sequence[Warned] = ()
    stopped_early: str | None = None
    learning: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""
    preset: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""
    adapter: bool = False


def identity_record(result: IdentityShiftResult) -> RunRecord:
    """The record of an identity shift."""
    config = result.config
    return RunRecord(
        title=f"Identity shift: {config.original_name} becomes {config.new_name}",
        command="dpo identity-shift --config config.toml",
        base=config.model,
        pairs={"Answers and pairs": result.pairs.summary()} | _counts("", result.pairs.to_json()),
        **_training(result),
    )


def train_record(result: TrainResult) -> RunRecord:
    """The record of training on preference pairs."""
    return RunRecord(
        title="Preference training",
        command="dpo train --config config.toml",
        base=result.config.model,
        pairs=_counts("", result.data.to_json()),
        **_training(result),
    )


def comparison_record(comparison: Comparison) -> RunRecord:
    """The record of two models compared without a run."""
    return RunRecord(
        title="Comparison of two models",
        command="dpo compare",
        base=comparison.before,
        comparison=comparison,
        facts=_machine(),
    )


def _training(result: IdentityShiftResult | TrainResult) -> dict[str, Any]:
    config, training, seconds = result.config, result.training, result.seconds
    facts = {
        "Steps": f"{training.steps}",
        "Training time": duration(training.seconds),
        "Engine": training.engine,
        "Device": training.device,
        "Arithmetic": training.dtype,
        "Peak memory": size(training.peak_memory_bytes),
        "Seed": f"{config.seed}",
    }
    if training.resumed_at:
        steps = ", ".join(map(str, training.resumed_at))
        facts["Interrupted"] = f"after step {steps}; continued from there"
    facts |= {f"Stage: {name}": duration(spent) for name, spent in seconds.items()}
    return {
        "comparison": result.comparison,
        "history": training.history,
        "warnings": training.warnings,
        "stopped_early": training.stopped_early,
        "learning": "" if training.learning is None else training.learning.sentence(),
        "facts": facts | _machine(),
        "settings": _toml(config),
        "preset": {name: f"{value}" for name, value in result.preset.items()},
        "recipe": "" if result.recipe is None else result.recipe.sentence(),
        "adapter": config.lora_rank is not None,
    }


def _toml(config: Settings) -> str:
    return to_toml(config, f"dpo {config.command}").strip()


def _counts(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Nested counts as flat names and texts; what is empty is left out."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            flat |= _counts(f"{name}: ", value)
        elif isinstance(value, (int, float, str)) and value != "":
            flat[name] = f"{value:,}" if isinstance(value, int) else f"{value}"
    return flat


def _machine() -> dict[str, str]:
    facts = {"Machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"}
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            facts["Accelerator"] = torch.cuda.get_device_name()
    facts["Python"] = platform.python_version()
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:  # run from a checkout, or an optional package
            continue
    return facts
