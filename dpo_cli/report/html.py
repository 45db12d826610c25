"""`report.html`: one file that opens from disk, asks nobody for anything, and runs no script."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from dpo_cli.evaluation.scores import IDENTITY
from dpo_cli.report.answers import notes
from dpo_cli.report.console import visible
from dpo_cli.report.differences import Piece, differing_words
from dpo_cli.report.figures import check_figure, figure, interval_figure, threshold_figure
from dpo_cli.report.plots import draw_curves, draw_margins
from dpo_cli.run_folder import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jinja2 import Environment

    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.evaluation.scores import Answer
    from dpo_cli.report.record import RunRecord

_TEMPLATES = "templates"
_HEAD = 400  # bytes: the generator is named in the second line of <head>


@dataclass(frozen=True)
class QuestionGroup:
    """Questions that stand under one heading, changed answers first."""

    title: str
    open: bool
    rows: Sequence[tuple[Answer, Answer]]


def write_html(path: Path, record: RunRecord) -> None:
    """Write the report.

    Raises:
        OSError: The file cannot be written.
    """
    write_file(path, html(record))


def is_comparison(path: Path) -> bool:
    """Whether a file is a report that `dpo compare` wrote."""
    with path.open("rb") as file:
        return b'<meta name="generator" content="dpo compare">' in file.read(_HEAD)


def html(record: RunRecord) -> str:
    """The report as HTML text."""
    style = resources.files(__package__).joinpath(_TEMPLATES, "report.css").read_text(encoding="utf-8")
    comparison = record.comparison
    margins = comparison.margins if comparison else None
    drawn = draw_margins(margins.before, margins.after) if margins else None
    return (
        _environment()
        .get_template("report.html")
        .render(
            record=record,
            comparison=comparison,
            groups=_groups(comparison) if comparison else [],
            curves=draw_curves(record.history),
            margins=drawn,
            beta=margins.beta if margins else None,
            style=Markup(style),  # noqa: S704 - our own file
            policy=_policy(style),
        )
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dpo_cli.report", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        # Every string that a template prints is made visible here, then escaped; nobody can forget either.
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        figure=figure,
        interval_figure=interval_figure,
        check_figure=check_figure,
        threshold_figure=threshold_figure,
        marked=_marked,
        notes=notes,
    )
    return environment


def _printed(value: Any) -> Any:  # noqa: ANN401 - whatever a template prints
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _policy(style: str) -> str:
    """A content security policy that allows this style sheet and nothing else, from anywhere."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _groups(comparison: Comparison) -> list[QuestionGroup]:
    parts = (
        ("Identity questions", [pair for pair in comparison.answers if pair[0].question.group == IDENTITY]),
        ("Other questions", [pair for pair in comparison.answers if pair[0].question.group != IDENTITY]),
    )
    groups = []
    for title, asked in parts:
        changed = [pair for pair in asked if pair[0].answer != pair[1].answer]
        same = [pair for pair in asked if pair[0].answer == pair[1].answer]
        if changed:
            groups.append(
                QuestionGroup(
                    f"{title}: {len(changed)} of {len(asked)} answers changed", open=True, rows=changed
                )
            )
        if same:
            groups.append(
                QuestionGroup(
                    f"{title}: {len(same)} of {len(asked)} answers unchanged", open=False, rows=same
                )
            )
    return groups


def _marked(old: Answer, new: Answer) -> tuple[Markup, Markup]:
    """Both answers, with what only the one says in <del> and what only the other says in <ins>."""
    left, right = differing_words(old.answer, new.answer)
    return _tagged(left, "del"), _tagged(right, "ins")


def _tagged(pieces: Sequence[Piece], tag: str) -> Markup:
    mark = Markup(f"<{tag}>%s</{tag}>")  # noqa: S704 - one of two tags of ours; % escapes what goes in
    return Markup("").join(
        mark % visible(piece.text)
        if piece.changed and not re.fullmatch(r"\s*", piece.text)
        else visible(piece.text)
        for piece in pieces
    )
