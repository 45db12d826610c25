from __future__ import annotations

import pytest
import torch

from dpo_cli.errors import ModelError
from dpo_cli.models.devices import choose_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("wanted", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_a_device_that_is_there_is_taken(two_gpus, wanted):
    assert choose_device(wanted) == torch.device(wanted)


def test_auto_takes_a_gpu_where_there_is_one(two_gpus):
    assert choose_device("auto").type == "cuda"


@pytest.mark.parametrize("wanted", ["cuda:2", "xpu", "meta"])
def test_one_that_is_not_there_is_named(two_gpus, wanted):
    with pytest.raises(ModelError, match=f"--device {wanted}: is not available here"):
        choose_device(wanted)


@pytest.mark.parametrize("wanted", ["", "gpu", "cuda:", "cuda:one", "cuda:-1"])
def test_what_is_no_device_is_named(wanted):
    with pytest.raises(ModelError, match=f"--device {wanted}: is not a device"):
        choose_device(wanted)
