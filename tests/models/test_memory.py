"""Peak memory is this process's own; running out of it is said in words."""

import pytest
import torch

from dpo_cli.errors import TrainingError
from dpo_cli.models.memory import out_of_memory_in_words, peak_memory_bytes


def test_peak_memory_is_that_of_this_process():
    before = peak_memory_bytes("cpu")
    block = torch.ones(30_000_000)
    assert peak_memory_bytes("cpu") >= before
    assert peak_memory_bytes("cpu") > block.numel() * 4


def test_peak_memory_of_a_run_on_the_cpu_is_not_that_of_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    assert peak_memory_bytes("cpu") > 7
    assert peak_memory_bytes("cuda") == 7


def raise_in_words(error):
    with out_of_memory_in_words():
        raise error


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (MemoryError(), "this machine"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "this machine"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "the device"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17 GiB)"), "the device"),
        (RuntimeError("CUDA error: out of memory"), "the device"),
    ],
)  # fmt: skip
def test_memory_that_runs_out_is_said_with_what_to_lower(error, where):
    with pytest.raises(TrainingError, match=f"{where} does not have enough memory") as said:
        raise_in_words(error)
    assert "--per-device-train-batch-size" in said.value.hint


def test_another_error_is_left_as_it_is():
    with pytest.raises(RuntimeError, match="shapes"):
        raise_in_words(RuntimeError("shapes cannot be multiplied"))
