"""The memory of the process: kept between training steps instead of given back to the system."""

from __future__ import annotations

import ctypes
import platform


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
