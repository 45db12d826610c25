"""`dpo test --interactive`: a conversation in the terminal, with history."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.text import Text

from dpo_cli.errors import DataError
from dpo_cli.jobs.compare import model_to_test, of_tokenizer, recorded_run
from dpo_cli.report.answers import show_stream
from dpo_cli.report.console import stderr, stdout, visible_line
from dpo_cli.report.live import live_view
from dpo_cli.text.questions import LONGEST_QUESTION

if TYPE_CHECKING:
    from dpo_cli.config import AskConfig

_PROMPT = "> "


def hold_conversation(config: AskConfig) -> None:
    """Read a line, answer it word by word, and remember both; an empty line or end of input ends it.

    Raises:
        ModelError: The model cannot be loaded.
        DataError: A line of standard input is too long, or cannot be read.
    """
    from dpo_cli.models.generate import accepted_system_prompt, conversation, stream
    from dpo_cli.models.loading import load_model_and_tokenizer
    from dpo_cli.models.templates import options_of
    from dpo_cli.models.thinking import split_thinking

    name = model_to_test(config)
    with live_view() as view:
        model, tokenizer = load_model_and_tokenizer(
            name,
            revision=config.model_revision,
            dtype=config.dtype,
            device=config.device,
            base=config.base,
            **of_tokenizer(config, recorded_run(name)),
            on_event=view,
        )
    notes, console = stderr(), stdout()
    notes.print(
        Text(f"Talking to {visible_line(name)}. Enter an empty line to end the conversation.", style="dim")
    )
    messages = conversation("", accepted_system_prompt(tokenizer, config.system_prompt))[:-1]
    while (asked := _ask(console.is_terminal)) is not None:
        messages.append({"role": "user", "content": asked})
        pieces = stream(
            model,
            tokenizer,
            messages,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=config.seed + len(messages),
        )
        said = show_stream(pieces, console)
        answer = said if options_of(tokenizer).keeps_thinking else split_thinking(said)[1]
        messages.append({"role": "assistant", "content": answer})


def _ask(terminal: bool) -> str | None:
    """A line from standard input; None at its end or when it is empty.

    Raises:
        DataError: The line is too long, or cannot be read.
    """
    try:
        line = input(_PROMPT) if terminal and sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    except EOFError:
        return None
    except OSError as error:
        raise DataError(f"--interactive: standard input cannot be read ({error.strerror})") from None
    if len(line) > LONGEST_QUESTION:
        raise DataError(
            f"--interactive: a line of standard input has {len(line):,} characters, and a question has at most"
            f" {LONGEST_QUESTION:,}"
        )
    return line if line.strip() else None
