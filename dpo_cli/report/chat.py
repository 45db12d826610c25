"""`dpo test --interactive`: a conversation in the terminal, with history, streamed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.text import Text

from dpo_cli.report.answers import show_stream
from dpo_cli.report.text import stderr, stdout, visible_line

if TYPE_CHECKING:
    from dpo_cli.config import TestConfig

_COMMANDS = "/reset begins anew, /exit or Ctrl-D ends."


def hold_conversation(config: TestConfig) -> None:
    """Talk with a model until the input ends.

    Args:
        config: The model, the system prompt and how answers are drawn.

    Raises:
        ModelError: If the model cannot be loaded or has no chat template.
    """
    from dpo_cli.jobs.compare import model_to_test, open_conversation

    with stderr().status("loading the model"):
        talk = open_conversation(config)
    notes, answers = stderr(), stdout()
    notes.print(Text(f"{visible_line(model_to_test(config))}. {_COMMANDS}", style="dim"))
    while True:
        said = _read_line()
        if said is None or said == "/exit":
            return
        if said == "/reset":
            talk.reset()
        elif said:
            show_stream(talk.answer(said), answers)


def _read_line() -> str | None:
    """A line of the user's, or None at the end of the input; the prompt shows on a terminal only."""
    if sys.stdin.isatty():
        stderr().print(Text("> ", style="bold"), end="")
    line = sys.stdin.readline()
    return line.strip() if line else None
