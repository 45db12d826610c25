"""A comparison in the terminal: answers side by side, scorecard, verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dpo_cli.evaluation.scores import IDENTITY
from dpo_cli.report.answers import notes, right_or_wrong
from dpo_cli.report.console import stdout, visible, visible_line
from dpo_cli.report.differences import Piece, differing_words
from dpo_cli.report.figures import check_figure, figure, interval_figure, threshold_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.evaluation.scores import Answer, Score, ScoreRow
    from dpo_cli.evaluation.verdict import Verdict
    from dpo_cli.text.questions import Question

SHOWN = 12
"""Questions shown of each kind unless all are wanted."""

_NARROW = 100  # columns below which answers stand under each other
_VERY_NARROW = 60  # columns below which the scorecard is a list


def show_comparison(
    comparison: Comparison, console: Console | None = None, *, limit: int | None = SHOWN
) -> None:
    """Print both answers to each question, the scorecard and the verdict.

    Args:
        comparison: What to print.
        console: Where; standard output unless given.
        limit: Questions shown of each kind, those whose answers changed first; None shows all.
    """
    console = console or stdout()
    show_answer_pairs(comparison, console, limit=limit)
    show_scorecard(comparison.scores, console)
    show_verdict(comparison.verdict, console)


def show_answer_pairs(comparison: Comparison, console: Console, *, limit: int | None = SHOWN) -> None:
    """Print both answers to each question, identity questions apart, the differing words marked."""
    for title, asked in (
        ("Identity questions", [pair for pair in comparison.answers if pair[0].question.group == IDENTITY]),
        ("Questions", [pair for pair in comparison.answers if pair[0].question.group != IDENTITY]),
    ):
        if not asked:
            continue
        shown = sorted(asked, key=_interest)[:limit]  # stable: the order of the questions is kept within
        changed = sum(old.answer != new.answer for old, new in asked)
        console.print(Text(f"{title}: {changed} of {len(asked)} answers changed", style="bold"))
        console.print(_side_by_side(comparison, shown, console))
        if len(shown) < len(asked):
            rest = len(asked) - len(shown)
            hidden = max(0, changed - len(shown))
            console.print(
                Text(f"Not shown: {hidden} more that changed, {rest - hidden} that did not.", style="dim")
            )
        console.print()


def show_scorecard(scores: Sequence[ScoreRow], console: Console) -> None:
    """Print every score with n and 95 % interval, before, after and paired difference."""
    console.print(Text("Scorecard, with 95 % intervals", style="bold"))
    console.print(
        _tall_scorecard(scores) if console.width < _VERY_NARROW else _wide_scorecard(scores, console)
    )
    console.print()


def _wide_scorecard(scores: Sequence[ScoreRow], console: Console) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("Score", overflow="fold")
    for heading in ("Before", "After", "Change", "n"):
        table.add_column(heading, justify="right", overflow="fold")
    gap = " " if console.width >= _NARROW else "\n"
    for row in scores:
        cells = [_cell(row.before, gap), _cell(row.after, gap), _cell(row.difference, gap, signed=True)]
        table.add_row(Text(row.label), *cells, Text(str(row.after.n)), style=_direction(row))
    return table


def _tall_scorecard(scores: Sequence[ScoreRow]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for row in scores:
        table.add_row(Text(f"n {row.after.n}"), Text(row.label, style="bold"))
        for name, score in (("before", row.before), ("after", row.after), ("change", row.difference)):
            if score is not None:
                table.add_row(name, _cell(score, " ", signed=name == "change"), style=_direction(row))
    return table


def show_verdict(verdict: Verdict | None, console: Console) -> None:
    """Print PASS or FAIL, and each check with its figure and what it asks for."""
    if verdict is None:
        console.print(Text("No verdict: no measured score has a threshold.", style="dim"))
        return
    console.print(Text.assemble("Verdict: ", _stamp(passed=verdict.passed)))
    for result in verdict.checks:
        line = Text.assemble(
            "  ", _stamp(passed=result.passed), f" {result.check.label}: {check_figure(result)}"
        )
        console.print(line.append(f" ({threshold_figure(result)})", style="dim"))


def marked(pieces: Sequence[Piece], style: str, marks: tuple[str, str], *, colour: bool) -> Text:
    """An answer whose changed words stand out: by colour, or by marks where there is none."""
    text = Text()
    for piece in pieces:
        shown = visible(piece.text)
        if not piece.changed or not shown.strip():
            text.append(shown)
        elif colour:
            text.append(shown, style=style)
        else:
            text.append(f"{marks[0]}{shown}{marks[1]}")
    return text


def _interest(pair: tuple[Answer, Answer]) -> int:
    """Answers that went wrong first, then the other changed ones."""
    old, new = pair
    if old.answer == new.answer:
        return 2
    return 0 if right_or_wrong(old) and right_or_wrong(new) is False else 1


def _side_by_side(
    comparison: Comparison, asked: Sequence[tuple[Answer, Answer]], console: Console
) -> RenderableType:
    if console.width < _NARROW:
        return _stacked(asked, console)
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), expand=True)
    names = (f"Before: {visible_line(comparison.before)}", f"After: {visible_line(comparison.after)}")
    for heading, ratio in zip(("Question", *names), (2, 3, 3), strict=True):
        table.add_column(Text(heading, style="bold"), ratio=ratio, overflow="fold")
    for old, new in asked:
        left, right = _answers(old, new, console)
        table.add_row(Text(_asked(old.question)), left, right)
    return table


def _stacked(asked: Sequence[tuple[Answer, Answer]], console: Console) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for old, new in asked:
        left, right = _answers(old, new, console)
        table.add_row("asked", Text(_asked(old.question), style="bold"))
        table.add_row("before", left)
        table.add_row("after", right)
    return table


def _asked(question: Question) -> str:
    return visible(f"{question.text} ({question.how})" if question.how else question.text)


def _answers(old: Answer, new: Answer, console: Console) -> tuple[Text, Text]:
    left, right = differing_words(old.answer, new.answer)
    colour = console.color_system is not None and not console.no_color
    before = marked(left, "red strike", ("[-", "-]"), colour=colour)
    after = marked(right, "bold green", ("{+", "+}"), colour=colour)
    for text, answer in ((before, old), (after, new)):
        for note in notes(answer):
            text.append(f" ({note})", style="dim")
    return before, after


def _cell(score: Score | None, gap: str, *, signed: bool = False) -> Text:
    if score is None:
        return Text("-", style="dim")
    text = Text(figure(score.value, score.unit, signed=signed))
    interval = interval_figure(score.interval, score.unit)
    return text.append(f"{gap}{interval}", style="dim") if interval else text


def _direction(row: ScoreRow) -> str:
    """Red for a change for the worse and green for the better, where the interval excludes no change."""
    change = row.difference
    if (
        change is None
        or change.interval is None
        or row.better == "none"
        or change.interval[0] <= 0 <= change.interval[1]
    ):
        return ""
    return "green" if (change.value > 0) == (row.better == "higher") else "red"


def _stamp(*, passed: bool) -> tuple[str, str]:
    return ("PASS", "bold green") if passed else ("FAIL", "bold red")
