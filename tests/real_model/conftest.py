from __future__ import annotations

import os
from pathlib import Path

import pytest

MADE = Path(__file__).parents[2] / "build" / "models" / "SmolLM2-135M-Instruct"


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The folder of SmolLM2-135M-Instruct: $DPO_REAL_MODEL, else where `make real-model` puts it."""
    named = os.environ.get("DPO_REAL_MODEL")
    folder = Path(named) if named else MADE
    if not (folder / "config.json").is_file():
        if named:
            pytest.fail(f"DPO_REAL_MODEL={named}: is no folder of a model")
        pytest.skip("no real model: `make real-model` makes one (93 MB download), DPO_REAL_MODEL names one")
    return folder
