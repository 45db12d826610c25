"""How both training jobs begin: everything that can be checked before libraries are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpo_cli.config import DPOTrainingConfig, IdentityShiftConfig, user_path
from dpo_cli.errors import OutputError
from dpo_cli.events import Noted, OnEvent
from dpo_cli.jobs.run import C, Run
from dpo_cli.jobs.stages import Stages
from dpo_cli.models.locate import locate_policy, model_folders
from dpo_cli.run_folder import OutputFolder
from dpo_cli.training.filled import fill, recipe_file
from dpo_cli.training.preflight import preflight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def evaluates(config: DPOTrainingConfig | IdentityShiftConfig) -> bool:
    """Whether pairs are held out while training; the pairs that ship bring theirs, a new name has none."""
    if isinstance(config, IdentityShiftConfig):
        return False
    return config.dataset is None or config.eval_dataset is not None or config.eval_fraction > 0


def prepare(config: C, on_event: OnEvent, *, job: str, reads: Callable[[C], Iterable[str | None]]) -> Run[C]:
    """Check everything that can be checked before libraries are loaded.

    Args:
        config: The settings as given.
        on_event: Where events go.
        job: The table of the model's preset that applies.
        reads: Makes names of files and folders that the run reads from its settings; hub ids and None are left out.

    Raises:
        UserError: If a setting, the model or the output folder is wrong; nothing has been written then.
    """
    preflight(config, evaluate=evaluates(config))
    located = locate_policy(config)
    filled = fill(config, located, job, on_event)
    config = filled.config
    read = [*reads(config), recipe_file(config)]
    folder = OutputFolder(
        config.output_dir,
        config,
        overwrite=config.overwrite,
        inputs=model_folders(located),
        data=[path for name in read if name and (path := user_path(name, OutputError)).exists()],
        go_on=config.resume,
        anyway=config.resume_anyway,
        notes={"preset": filled.names},
        notice=lambda text: on_event(Noted(text)),
    )
    return Run(config, filled.preset, filled.recipe, located, folder, Stages(on_event))
