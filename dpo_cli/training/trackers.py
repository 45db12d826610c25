"""Trackers that a run can report to, and whether they are installed; asked before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from dpo_cli.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "comet_ml": ("comet_ml",),
    "clearml": ("clearml",),
    "dvclive": ("dvclive",),
    "codecarbon": ("codecarbon",),
}
"""What transformers calls a tracker, and the packages of which one is enough."""


def require_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that are unknown or not installed.

    Args:
        names: What the user gave as `report_to`.

    Raises:
        ConfigError: With the name, and what to install.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(
                f"--report-to: {name} is not a known tracker", hint=f"Known trackers: {', '.join(TRACKERS)}."
            )
        if not any(find_spec(package) for package in TRACKERS[name]):
            raise ConfigError(
                f"--report-to: {name} is not installed here", hint=f"pip install {TRACKERS[name][0]}"
            )
