"""Training takes one process: several would fill the same folder and wait for each other's references."""

from __future__ import annotations

import os

from dpo_cli.errors import ConfigError, quoted

_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes they have started; those that accelerate looks at."""


def refuse_several_processes() -> None:
    """Refuse to run as one of several processes, before anything is read or written.

    Raises:
        ConfigError: If torchrun, accelerate or mpirun has started more than one, or says so in no number.
    """
    for name in _SIZES:
        size = os.environ.get(name, "")
        if size and not size.isdecimal():
            raise ConfigError(
                f"{name} is {quoted(size)}, which is no number of processes", hint=f"Unset {name}."
            )
        if size.isdigit() and int(size) > 1:
            raise ConfigError(
                f"{name} is {size}: dpo trains in one process, and this is one of {size}",
                hint="Start it without torchrun, accelerate launch or mpirun.",
            )
