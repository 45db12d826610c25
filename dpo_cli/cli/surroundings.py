"""What a command needs of its surroundings; libraries would end without a word, or in a traceback, where it is missing."""

from __future__ import annotations

import os
import resource
import sys

from dpo_cli.errors import UserError

LEAST_ADDRESS_SPACE = 2 * 2**30
"""Bytes that the libraries map before a model is loaded, with room for a small one; below it torch aborts."""


def refuse_unusable_surroundings() -> None:
    """Refuse a working folder, an interpreter or a limit with which no command can work.

    Raises:
        UserError: With what is wrong and the way out.
    """
    try:
        os.getcwd()  # noqa: PTH109 - only asked whether it is there
    except OSError:
        raise UserError(
            "the working folder no longer exists",
            hint="Change to a folder that exists, and run dpo again.",
        ) from None
    if sys.flags.optimize > 1:
        raise UserError(
            "PYTHONOPTIMIZE=2 (python -OO) removes the docstrings that transformers reads",
            hint="Unset PYTHONOPTIMIZE, or set it to 1.",
        )
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise UserError(
            f"this shell limits a process to {limit // 2**20:,} MiB of address space (ulimit -v);"
            f" the libraries need {LEAST_ADDRESS_SPACE // 2**20:,} MiB",
            hint="Raise the limit, or limit memory with systemd-run or a container instead.",
        )
