"""What the user did not set, filled in: from the model's preset, from a recipe, from the positions that it learned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from dpo_cli.config import OptimizationConfig, Recipe, apply_preset
from dpo_cli.config.recipes import IDENTITY_JOB, beside, read_recipe, shipped_recipe, too_fast
from dpo_cli.events import Noted, OnEvent
from dpo_cli.models.folder import count_parameters
from dpo_cli.models.locate import LocatedModel, read_preset
from dpo_cli.models.positions import length_within_positions

C = TypeVar("C", bound=OptimizationConfig)

NO_RECIPE, OF_THE_TABLE = "none", "auto"
"""Words that `--recipe` takes besides files."""


@dataclass(frozen=True)
class Filled(Generic[C]):
    """Settings, complete.

    Attributes:
        config: The settings.
        preset: Those of them that came from the model's preset.
        recipe: Those that came from a recipe; None without one.
    """

    config: C
    preset: dict[str, Any]
    recipe: Recipe | None

    @property
    def names(self) -> list[str]:
        """The settings that were filled in."""
        return sorted([*self.preset, *(self.recipe.settings if self.recipe else ())])


def fill(config: C, located: LocatedModel, job: str, on_event: OnEvent) -> Filled[C]:
    """Fill what the user did not set, and say what a recipe set.

    A recipe that was asked for goes before the model's preset; the one that `identity-shift` takes by itself is only
    for models without.

    Args:
        config: The settings as given.
        located: The model.
        job: The table of the model's preset, and of the recipes, that applies.
        on_event: Told of the recipe, and of a learning rate far above published ones.

    Raises:
        ConfigError: If a recipe or a preset does not fit the settings, or more tokens are asked for than the model has
            positions for.
        ModelError: If the preset cannot be read.
    """
    given = config.model_fields_set
    lora = config.lora_rank is not None
    preset, origin = read_preset(located, job, lora=lora)
    recipe = _recipe(config, located, job, has_preset=bool(preset))
    of_recipe = {} if recipe is None else dict(recipe.settings)
    values = beside(preset, of_recipe) | of_recipe
    filled, used = apply_preset(config, values, origin or (recipe.source if recipe else ""))
    of_preset = {key: value for key, value in used.items() if key not in of_recipe}
    if of_recipe and recipe is not None:
        on_event(Noted(recipe.sentence()))
    if job != IDENTITY_JOB and "learning_rate" not in used:
        size = count_parameters(located.weights.folder)
        if line := too_fast(filled.learning_rate, size, lora=lora):
            on_event(Noted(line))
    longest = length_within_positions(
        filled.max_length, located, given="max_length" in given, on_event=on_event
    )
    return Filled(filled.model_copy(update={"max_length": longest}), of_preset, recipe)


def recipe_file(config: OptimizationConfig) -> str | None:
    """The file that `--recipe` names, if it names one."""
    return None if config.recipe in {None, NO_RECIPE, OF_THE_TABLE} else config.recipe


def _recipe(
    config: OptimizationConfig, located: LocatedModel, job: str, *, has_preset: bool
) -> Recipe | None:
    """The recipe that applies, without what the user has set."""
    file = recipe_file(config)
    by_itself = job == IDENTITY_JOB and not has_preset
    if file is not None:
        recipe = read_recipe(file)
    elif config.recipe == OF_THE_TABLE or (config.recipe is None and by_itself):
        parameters = count_parameters(located.weights.folder)
        table = IDENTITY_JOB if job == IDENTITY_JOB else "train"
        recipe = shipped_recipe(table, parameters, lora=config.lora_rank is not None)
    else:
        return None
    given = {key: getattr(config, key) for key in config.model_fields_set}
    known = {key: value for key, value in recipe.settings.items() if key in type(config).model_fields}
    return replace(recipe, settings=beside(known, given))
