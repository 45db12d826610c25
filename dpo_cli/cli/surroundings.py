"""What a command needs of its surroundings; libraries would end without a word, or in a traceback, where it is missing."""

from __future__ import annotations

import os
import resource
import sys
from urllib.parse import urlsplit

from dpo_cli.errors import ConfigError, UserError, first_line, quoted

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
    _refuse_hub_variables()
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise UserError(
            f"this shell limits a process to {limit // 2**20:,} MiB of address space (ulimit -v);"
            f" the libraries need {LEAST_ADDRESS_SPACE // 2**20:,} MiB",
            hint="Raise the limit, or limit memory with systemd-run or a container instead.",
        )


def _refuse_hub_variables() -> None:
    """Refuse values that `huggingface_hub` would fail on when it is imported, whatever the command."""
    try:
        urlsplit(os.environ.get("HF_ENDPOINT", "")).port  # noqa: B018 - parsed when it is asked for
    except ValueError as error:
        raise ConfigError(
            f"HF_ENDPOINT is not an address ({first_line(error)})",
            hint="Unset it, or set it to one such as https://huggingface.co.",
        ) from None
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        value = os.environ.get(name, "0")
        try:
            int(value)
        except ValueError:
            raise ConfigError(
                f"{name} is {quoted(value)}, and must be a whole number of seconds",
                hint="Unset it, or correct it.",
            ) from None
