"""Memory of the process: kept between training steps, how much it has been, and what is said when there is none left."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dpo_cli.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

LESS_TO_TRAIN = (
    "Lower --per-device-train-batch-size, --generation-batch-size or --max-length, train adapters with --lora-rank 16, "
    "or give --gradient-checkpointing."
)
LESS_TO_ASK = "Lower --generation-batch-size or --max-length."


def keep_memory() -> bool:
    """Tell glibc to keep freed memory instead of giving it back to the system and faulting it in again.

    A training step frees and takes the same gigabytes every time; page faults cost a quarter to 40 % of
    it (docs/performance.md). Called at the start of training only: the process holds on to its peak.

    Returns:
        Whether the C library took both settings (False where it is not glibc).
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of <malloc.h>
    largest = 2**31 - 1
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, largest))


def peak_memory_bytes(device: str) -> int:
    """Highest memory of this process so far, in bytes: the device's on CUDA, resident memory elsewhere.

    Args:
        device: Where the work was done, as torch spells it.
    """
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8", errors="replace").splitlines() if status.exists() else []
    highest = next((line.split()[1] for line in lines if line.startswith("VmHWM")), None)
    if highest is not None:  # ru_maxrss counts the parent's memory too: it is inherited over fork
        return int(highest) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


@contextlib.contextmanager
def out_of_memory_in_words(hint: str = LESS_TO_TRAIN) -> Iterator[None]:
    """Turn what torch and Python raise when memory runs out into an error that says what to lower.

    Args:
        hint: What to lower.

    Raises:
        TrainingError: If memory ran out inside of the block.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        where = _short_of_memory(error)
        if where is None:
            raise
        raise TrainingError(f"{where} does not have enough memory for this run", hint=hint) from error


def _short_of_memory(error: MemoryError | RuntimeError) -> str | None:
    """Who has no memory left; None where the error is another one. Torch has an error of its own for CUDA only."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "this machine"
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
        return "the device"
    return None
