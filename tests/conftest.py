"""What every test has: no network, a cache of this session, a tiny model."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from tiny_models import make_model, make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

_CACHE = tempfile.TemporaryDirectory(prefix="dpo-cli-tests-")


def pytest_configure():
    """Keep tests from the network, and from references of an earlier session: a test would look at nothing."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["DPO_CLI_CACHE"] = _CACHE.name


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A folder with a tiny random chat model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = make_tokenizer()
    make_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
