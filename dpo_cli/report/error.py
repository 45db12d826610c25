"""An error as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from dpo_cli.errors import VerdictFailed
from dpo_cli.redaction import redact
from dpo_cli.report.console import stderr, visible

if TYPE_CHECKING:
    from dpo_cli.errors import DpoError


def show_error(error: DpoError) -> None:
    """Print what is wrong and what to do next, on standard error."""
    title = "FAIL" if isinstance(error, VerdictFailed) else "Error"
    text = Text.assemble((f"{title}: ", "bold red"), visible(error.message))
    if error.hint:
        text.append(f"\n{visible(error.hint)}", style="dim")
    # Soft wrap: a path in a message stays in one piece, for a script and for copying.
    stderr().print(text, soft_wrap=True)
    show_notes(error)


def show_notes(error: BaseException) -> None:
    """Print what was noted on an error or an interruption on its way, such as where checkpoints are, on standard error."""
    for note in getattr(error, "__notes__", ()):
        stderr().print(Text(visible(redact(note))), soft_wrap=True)
