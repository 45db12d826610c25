"""`dpo resume`: go on with a run that was interrupted."""

from __future__ import annotations

from importlib import import_module

from dpo_cli.config import ResumeConfig

SETTINGS = ResumeConfig
HELP = """Go on with a run that was interrupted.

The run continues from its newest whole checkpoint, with the settings it began with, and ends as if it had never
stopped. A run that is finished stays as it is.

    dpo resume
    dpo resume ./tuned
"""


def run(config: ResumeConfig, as_json: bool) -> None:
    """Go on, and print what the command prints."""
    from dpo_cli.jobs.resume import interrupted_run

    settings = interrupted_run(config)
    import_module(f"dpo_cli.cli.{settings.command.replace('-', '_')}").run(settings, as_json)
