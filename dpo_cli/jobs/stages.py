"""Stages of a job, timed, with their progress as events."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from dpo_cli.events import OnEvent, Progress, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stages:
    """Times the stages of a job.

    Args:
        on_event: Where `Stage` and `Progress` events go.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self.on_event = on_event
        self.seconds: dict[str, float] = {}
        self.current = ""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage under `name`, which reads like "asking for pairs"."""
        started = time.perf_counter()
        self.current = name
        self.on_event(Stage(name, "started"))
        yield
        self.seconds[name] = time.perf_counter() - started
        self.on_event(Stage(name, "finished", self.seconds[name]))

    def progress(self, done: int, total: int) -> None:
        """Say how much of the current stage is done."""
        self.on_event(Progress(self.current, done, total))
