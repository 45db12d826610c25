"""The settings of an interrupted run, read back from its folder."""

from __future__ import annotations

import os
from pathlib import Path

from dpo_cli.config import DPOTrainingConfig, IdentityShiftConfig, ResumeConfig, user_path
from dpo_cli.errors import OutputError, listed
from dpo_cli.run_folder.files import is_ours, recorded_settings
from dpo_cli.run_folder.resume import find_left, place_of, read_notes


def interrupted_run(config: ResumeConfig) -> DPOTrainingConfig | IdentityShiftConfig:
    """The settings that go on with a run, as it was started; the working folder becomes that of then.

    Raises:
        OutputError: If there is no run in the folder, or nothing to go on from.
        ConfigError: If its settings cannot be read.
    """
    named = user_path(config.folder, OutputError).absolute()
    place = place_of(named)
    left = find_left(place)
    folder = place if left is None else left.folder
    if not is_ours(folder):
        raise OutputError(f"{named}: there is no run of dpo", hint="Give the --output-dir of the run.")
    settings = recorded_settings(folder)
    if settings is None:
        trains = DPOTrainingConfig.command, IdentityShiftConfig.command
        raise OutputError(f"{folder}: is not of a run that trains ({listed(trains)})")
    notes = read_notes(folder)
    there = notes.get("working_folder")
    if isinstance(there, str) and Path(there).is_dir():
        os.chdir(there)
    same = Path(settings.output_dir).expanduser().absolute() == place  # else it was moved
    update = {
        "output_dir": settings.output_dir if same else str(place),
        "overwrite": notes.get("overwrite") is True,
        "resume": True,
        "resume_anyway": config.resume_anyway,
    }
    preset = notes.get("preset")
    filled = set(preset) if isinstance(preset, list) else set()
    given = {name: getattr(settings, name) for name in settings.model_fields_set - filled}
    return type(settings).model_construct(
        _fields_set=set(given | update), **(settings.model_dump() | given | update)
    )
