"""Silence around TRL: what matters goes out as events."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBRARIES = ("transformers", "trl", "accelerate", "peft")


@contextlib.contextmanager
def quiet_trl() -> Iterator[None]:
    """Silence progress bars and log lines of datasets, transformers and trl; both are as they were afterwards."""
    levels = {name: logging.getLogger(name).level for name in _LIBRARIES}
    bars = is_progress_bar_enabled()
    disable_progress_bar()
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            enable_progress_bar()
