"""A process that kills itself before one of its file operations: the points are counted, not left to chance."""

from __future__ import annotations

import os
import signal


def kill_before(point, operations):
    """Count this process's calls of functions of `os`, and kill it before the one of a number; 0 kills nothing.

    Returns:
        The count so far, in a list of one; and what makes another function count as well.
    """
    count = [0]

    def counted(operation):
        def wrapper(*args, **kwargs):
            count[0] += 1
            if count[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **kwargs)

        return wrapper

    for name in operations:
        setattr(os, name, counted(getattr(os, name)))
    return count, counted
