"""Files that every run's folder has, and how a folder of ours is known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dpo_cli.config import DPOTrainingConfig, IdentityShiftConfig, Settings, load_settings, to_toml
from dpo_cli.run_folder.disk import write_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MARK = "# Written by dpo"
"""First words of `config.toml` in a folder of ours; only such a folder is ever replaced."""


def is_ours(folder: Path) -> bool:
    """Whether dpo made a folder."""
    config = folder / "config.toml"
    try:
        if not config.is_file():  # a named pipe would be waited for
            return False
        with config.open(encoding="utf-8", errors="replace") as file:
            return file.read(len(MARK)) == MARK
    except OSError:
        return False


def write_settings(folder: Path, settings: Settings) -> None:
    """Write `config.toml`, which `--config` reads back."""
    write_file(folder / "config.toml", to_toml(settings, f"{MARK[2:]} {settings.command}."))


def command_of(folder: Path) -> str:
    """The command that a folder of ours is of, from its `config.toml`."""
    with (folder / "config.toml").open(encoding="utf-8", errors="replace") as file:
        return file.readline(100).strip().removeprefix(MARK).strip().rstrip(".")


def recorded_settings(folder: Path) -> DPOTrainingConfig | IdentityShiftConfig | None:
    """The settings of the training that a folder of ours records; None if it is of another command.

    Raises:
        ConfigError: If they are wrong now, each named.
    """
    command = command_of(folder)
    known: tuple[type[DPOTrainingConfig | IdentityShiftConfig], ...] = DPOTrainingConfig, IdentityShiftConfig
    cls = next((one for one in known if one.command == command), None)
    return None if cls is None else load_settings(cls, {}, str(folder / "config.toml"), recorded=True)


def history_text(history: Iterable[dict[str, float]]) -> str:
    """The text of `metrics.jsonl`, one logged step a line."""
    return "\n".join([*(json.dumps(record) for record in history), ""])
