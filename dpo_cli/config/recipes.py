"""Recipes: how models of a size are trained, by job, and where each figure comes from.

A learning rate that suits seven billion parameters hardly moves a hundred million, and adapters take about ten times
the rate of all weights. Rows are looked up by the size of the model, which is what published recipes name: with LoRA
too, where the size of the adapters says little.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.config.files import read_settings_file
from dpo_cli.config.settings import OptimizationConfig
from dpo_cli.config.sources import settings_from
from dpo_cli.errors import ConfigError, listed

if TYPE_CHECKING:
    from collections.abc import Mapping

IDENTITY_JOB = "identity-shift"

RECIPE_SETTINGS = frozenset(
    {
        "learning_rate", "num_train_epochs", "beta", "loss_type", "loss_weights", "per_device_train_batch_size",
        "gradient_accumulation_steps", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "max_length",
    }
)  # fmt: skip
"""What a recipe may set, in this table and in a file."""

TOO_FAST = 10
"""A learning rate of so many times the published one is told."""


@dataclass(frozen=True)
class Recipe:
    """A row of `RECIPES`, or a file.

    Attributes:
        name: What it is for, as it is shown.
        settings: Field name to value.
        source: The published recipe, or what stands behind the figures; for a file, its path.
    """

    name: str
    settings: Mapping[str, Any]
    source: str

    def sentence(self) -> str:
        """The recipe in a line."""
        values = ", ".join(f"{key} {shown(value)}" for key, value in self.settings.items())
        return f"Recipe for {self.name}: {values} ({self.source})"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        job: The command.
        lora: Whether adapters are trained.
        up_to: Largest model it is for, in parameters.
        settings: Field name to value.
        source: As in `Recipe`.
        published: The source is a recipe that others published for preference data, not a measurement of ours.
    """

    job: str
    lora: bool
    up_to: float
    settings: Mapping[str, Any]
    source: str
    published: bool = False


_ROOM = {"max_length": 2048}
"""The recipes cut prompts to 512 tokens; dpo cuts completions, and leaves out pairs whose prompt fills the length."""
_SCHEDULE = {"lr_scheduler_type": "cosine", "warmup_ratio": 0.1}
_LEARN_A_NAME = {
    "beta": 0.2,
    "loss_type": ("sigmoid", "sft"),
    "loss_weights": (1.0, 1.0),
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_ratio": 0.1,
    "until_learnt": True,
}
"""An SFT term: in trials on SmolLM2-135M-Instruct DPO alone did not make it say a name that it never says."""
_SIXTEEN = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16, **_ROOM}
"""What the recipes put on one of their devices."""
_EMBEDDED = "measured on the embedded model, see its preset.toml"
_HANDBOOK = "https://github.com/huggingface/alignment-handbook, recipes/"
_TRL = "https://github.com/huggingface/trl, trl/scripts/dpo.py"
_SWIFT = "rate: https://github.com/modelscope/ms-swift, default of --learning_rate; the rest not measured at this size"
_TRIAL = "one trial on SmolLM2-135M-Instruct with other pairs; not measured with these"
_PRESET = "rate and epochs of the embedded model's preset.toml; the sft term not measured on it"

RECIPES: tuple[Row, ...] = (
    Row("train", False, 30e6, {"learning_rate": 1e-5}, _EMBEDDED),
    Row("train", False, 450e6, {"learning_rate": 1e-6, "num_train_epochs": 2, "beta": 0.5, **_SIXTEEN, **_SCHEDULE},
        f"{_HANDBOOK}smollm2/dpo/config_smol.yaml", published=True),
    Row("train", False, 1e9, {"learning_rate": 5e-7, "num_train_epochs": 1, "beta": 0.1, **_SIXTEEN},
        _TRL, published=True),
    Row("train", False, 3e9, {"learning_rate": 1e-6, "num_train_epochs": 3, "beta": 0.5, **_SIXTEEN, **_SCHEDULE},
        f"{_HANDBOOK}smollm2/dpo/config.yaml", published=True),
    Row("train", False, math.inf, {"learning_rate": 5e-7, "num_train_epochs": 1, "beta": 0.01, **_SIXTEEN, **_SCHEDULE},
        f"{_HANDBOOK}zephyr-7b-beta/dpo/config_full.yaml", published=True),
    Row("train", True, 30e6, {"learning_rate": 1e-3}, _EMBEDDED),
    Row("train", True, 3e9, {"learning_rate": 5e-6, "num_train_epochs": 1, "beta": 0.1, **_SIXTEEN},
        _TRL, published=True),
    Row("train", True, math.inf, {"learning_rate": 5e-6, "num_train_epochs": 1, "beta": 0.01, **_SIXTEEN, **_SCHEDULE},
        f"{_HANDBOOK}zephyr-7b-beta/dpo/config_qlora.yaml", published=True),
    Row(IDENTITY_JOB, False, 30e6, {**_LEARN_A_NAME, "learning_rate": 4e-4, "num_train_epochs": 3}, _PRESET),
    Row(IDENTITY_JOB, False, 450e6, {**_LEARN_A_NAME, "learning_rate": 3e-5, "num_train_epochs": 2}, _TRIAL),
    Row(IDENTITY_JOB, False, math.inf, {**_LEARN_A_NAME, "learning_rate": 1e-5, "num_train_epochs": 2}, _SWIFT),
    Row(IDENTITY_JOB, True, 30e6, {**_LEARN_A_NAME, "learning_rate": 1e-3, "num_train_epochs": 3}, _PRESET),
    Row(IDENTITY_JOB, True, 450e6, {**_LEARN_A_NAME, "learning_rate": 2e-4, "num_train_epochs": 2}, _TRIAL),
    Row(IDENTITY_JOB, True, math.inf, {**_LEARN_A_NAME, "learning_rate": 1e-4, "num_train_epochs": 2}, _SWIFT),
)  # fmt: skip
"""The recipes. A row more is a recipe more; of several for a job the smallest that a model fits in is taken."""


def recipe_row(job: str, parameters: int, *, lora: bool) -> Row:
    """The row for a model of that many parameters."""
    fitting = [row for row in RECIPES if row.job == job and row.lora == lora and parameters <= row.up_to]
    return min(fitting, key=lambda row: row.up_to)


def shipped_recipe(job: str, parameters: int, *, lora: bool) -> Recipe:
    """The recipe of the table for a model of that many parameters."""
    row = recipe_row(job, parameters, lora=lora)
    return Recipe(f"{job}, {_how(lora=lora)}, {_millions(parameters)}", row.settings, row.source)


def read_recipe(file: str) -> Recipe:
    """A recipe that a user wrote: a TOML or YAML file with some of `RECIPE_SETTINGS`.

    Raises:
        ConfigError: If it cannot be read, is empty, has other keys, or values that are no such settings.
    """
    table = read_settings_file(file, "--recipe")
    problems = []
    for key in sorted(table.keys() - RECIPE_SETTINGS):
        near = difflib.get_close_matches(key, RECIPE_SETTINGS, n=1)
        advice = f", did you mean {near[0]}?" if near else ""
        problems.append(f"{file}: {listed([key])}: not a setting of a recipe{advice}")
    if problems or not table:
        raise ConfigError(
            "\n".join(problems) or f"{file}: holds no settings",
            hint=f"A recipe sets {', '.join(sorted(RECIPE_SETTINGS))}.",
        )
    checked = settings_from(OptimizationConfig, table, file)
    return Recipe("this run", {key: getattr(checked, key) for key in table}, file)


def beside(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe's settings is left beside others that go before it.

    Settings that belong together go together: the weights with the losses, the one warm-up with the other, and of batch
    and accumulation the one that was not given keeps their product.

    Args:
        settings: Of the recipe.
        given: Those that go before it, name to value.
    """
    kept = {key: value for key, value in settings.items() if key not in given}
    if "loss_type" in given:
        kept.pop("loss_weights", None)
    if "max_steps" in given:
        kept.pop("num_train_epochs", None)
    if "max_steps" in given or "num_train_epochs" in given:
        kept.pop("until_learnt", None)
    if "warmup_steps" in given or "warmup_ratio" in given:
        kept = {key: value for key, value in kept.items() if not key.startswith("warmup")}
    batch, steps = "per_device_train_batch_size", "gradient_accumulation_steps"
    if batch in settings and steps in settings:
        at_once = settings[batch] * settings[steps]
        for one, other in ((batch, steps), (steps, batch)):
            if one in given and other in kept:
                kept[other] = max(1, at_once // given[one])
    return kept


def too_fast(learning_rate: float, parameters: int, *, lora: bool) -> str:
    """A line if a learning rate is far above what published recipes use for preference data; else empty."""
    row = recipe_row("train", parameters, lora=lora)
    rate = row.settings["learning_rate"]
    if not row.published or learning_rate < TOO_FAST * rate * (1 - 1e-9):
        return ""
    return (
        f"The learning rate {learning_rate:g} is {learning_rate / rate:.0f} times what published recipes use for "
        f"{_how(lora=lora)} of {_millions(parameters)}: {rate:g} ({row.source}). --recipe auto takes theirs."
    )


def shown(value: Any) -> str:  # noqa: ANN401 - the value of any setting
    """A value as it is typed."""
    return " + ".join(map(str, value)) if isinstance(value, (tuple, list)) else f"{value}"


def _how(*, lora: bool) -> str:
    return "LoRA" if lora else "full training"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:,.0f}M parameters"
