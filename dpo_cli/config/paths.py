"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpo_cli.errors import UserError


def user_path(name: str | Path, error: type[UserError]) -> Path:
    """The path of that name, `~` resolved. It may lead nowhere, but it is one that can be asked about.

    Args:
        name: As the user wrote it.
        error: What is raised, by what the path was to be.

    Raises:
        UserError: Of that class, if no such home folder, the name is no possible one (too long, a NUL
            byte), or a folder on the way must not be entered.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise error(f"{name}: no such home folder") from None
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # a new folder, or a hub id
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise error(f"{name}: is not a usable path ({reason})") from None
    return path
