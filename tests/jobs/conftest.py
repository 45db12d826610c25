from __future__ import annotations

import pytest

from dpo_cli.config import IdentityShiftConfig
from dpo_cli.jobs.identity_shift import identity_shift


@pytest.fixture(scope="session")
def renamed(tmp_path_factory):
    """The main job, once: the embedded model renamed with its own preset."""
    folder = tmp_path_factory.mktemp("renamed") / "out"
    events = []
    config = IdentityShiftConfig(original_name="Qwen", new_name="Deep Qwen", output_dir=str(folder))
    return identity_shift(config, events.append), events
