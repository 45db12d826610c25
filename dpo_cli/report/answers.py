"""Answers of one model in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from dpo_cli.evaluation.examination import answers_json
from dpo_cli.evaluation.scores import is_right
from dpo_cli.report.console import stdout, visible, visible_line, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from dpo_cli.evaluation.scores import Answer


def show_answers(
    model: str, answers: Sequence[Answer], console: Console | None = None, *, as_json: bool = False
) -> None:
    """Print each question with its answer, or one JSON document."""
    if as_json:
        write_json(answers_json(model, answers))
        return
    console = console or stdout()
    console.print(Text.assemble(("Model: ", "dim"), visible_line(model)))
    for one in answers:
        console.print()
        console.print(Text(visible(one.question.text), style="bold"))
        text = Text(visible(one.answer))
        for note in notes(one):
            text.append(f" ({note})", style="dim")
        console.print(text)


def right_or_wrong(answer: Answer) -> bool | None:
    """Whether the answer gives one of those expected; None where none is."""
    return is_right(answer) if answer.question.answers else None


def notes(answer: Answer) -> list[str]:
    """What a reader should know of an answer besides its text."""
    found = [
        ("cut off while thinking", answer.cut_while_thinking),
        ("empty", not answer.answer and not answer.cut_while_thinking),
        ("cut off", answer.truncated and not answer.cut_while_thinking),
        ("wrong", right_or_wrong(answer) is False),
    ]
    return [note for note, applies in found if applies]


def show_stream(pieces: Iterable[str], console: Console | None = None) -> str:
    """Print an answer while it is generated.

    Each piece is made visible on its own: no hostile character is longer than one character, so cutting a
    text into pieces hides none.

    Returns:
        The whole answer as the model gave it.
    """
    console = console or stdout()
    said: list[str] = []
    for piece in pieces:
        said.append(piece)
        console.print(Text(visible(piece)), end="", soft_wrap=True)
    console.print()
    return "".join(said)
