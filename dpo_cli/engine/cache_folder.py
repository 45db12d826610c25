"""Where dpo keeps what it can compute again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """`$DPO_CLI_CACHE`, else `~/.cache/dpo-cli`; beside the temporary files for a user without a home."""
    given = os.environ.get("DPO_CLI_CACHE")
    if given:
        return Path(given)
    try:
        return Path.home() / ".cache" / "dpo-cli"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "dpo-cli"
