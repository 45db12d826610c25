"""What `dpo check` prints: the rows, the findings, a length histogram, and a pair as the model will see it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from dpo_cli.report.console import stdout, visible, visible_line, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dpo_cli.data.audit.findings import Finding
    from dpo_cli.data.check import DataReport
    from dpo_cli.data.tokens.view import Kind, Span

_STYLES: Final[dict[Kind, str]] = {
    "prompt": "dim",
    "completion": "green",
    "special prompt": "dim reverse",
    "special completion": "bold reverse green",
}
"""How each kind of token is drawn."""

_ROWS_SHOWN: Final = 8
_BAR: Final = 40
_TOKENS_SHOWN: Final = 160


def show_check(result: DataReport, *, as_json: bool = False, console: Console | None = None) -> None:
    """Print the result of `dpo check`.

    Raises:
        UserError: The data cannot be trained on as it is; printed all the same.
    """
    if as_json:
        write_json(result.to_json())
    else:
        console = console or stdout()
        _show_rows(result, console)
        _show_findings(result.findings, console)
        _show_lengths(result.lengths, console)
        if result.view is not None:
            _show_view(result, console)
    if result.problem is not None:
        raise result.problem


def _show_rows(result: DataReport, console: Console) -> None:
    console.print(Text.assemble(("Format: ", "dim"), (result.title, "bold"), f" ({result.format})"))
    for table in result.assays:
        rows = table.rows
        counts = f"{rows.read:,} rows read = {rows.kept:,} measured + {rows.dropped_rows:,} dropped"
        _show_count(console, rows.source, f"{counts}, {table.pairs:,} pairs made")
    read = "pairs" if result.assays else "rows read"
    for accounting in (result.accounting, result.eval_accounting):
        if accounting is None:
            continue
        kept = f"{accounting.kept:,} pairs kept + {accounting.dropped_rows:,} dropped"
        _show_count(console, accounting.source, f"{accounting.read:,} {read} = {kept}")


def _show_count(console: Console, source: str, counts: str) -> None:
    console.print(Text.assemble((f"{visible_line(source)}: ", "dim"), counts), soft_wrap=True)


def _show_findings(findings: Sequence[Finding], console: Console) -> None:
    console.print()
    if not findings:
        console.print(Text("No findings.", style="green"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("finding", min_width=20)
    table.add_column("what to do")
    for finding in findings:
        about = Text(finding.advice)
        if finding.detail:
            about.append(f"\n{visible_line(finding.detail)}", style="dim")
        if finding.rows:
            shown = ", ".join(f"{row:,}" for row in finding.rows[:_ROWS_SHOWN])
            more = ", ..." if finding.count > _ROWS_SHOWN else ""
            about.append(f"\nrows {shown}{more}", style="dim")
        table.add_row(f"{finding.count:,}", Text(finding.name, style="yellow"), about)
    console.print(table)


def _show_lengths(lengths: dict[str, Any], console: Console) -> None:
    histogram = lengths.get("histogram")
    if histogram is None:
        return
    console.print()
    unit = lengths["unit"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(unit)
    for name in ("median", "mean", "95 %", "longest"):
        table.add_column(name, justify="right")
    for part in ("prompt", "chosen", "rejected"):
        figures = lengths[part]
        values = (figures["median"], figures["mean"], figures["p95"], figures["max"])
        table.add_row(part, *(f"{value:,.0f}" for value in values))
    console.print(table)
    if lengths["cut"]:
        console.print(
            Text(
                f"{lengths['cut']:,} pairs are longer than max_length {lengths['max_length']:,} and are truncated."
            )
        )
    console.print()
    console.print(_histogram(histogram, unit))


def _histogram(histogram: dict[str, list[int]], unit: str) -> Table:
    """A bar a bin for chosen and rejected, side by side."""
    edges = histogram["edges"]
    most = max(*histogram["chosen"], *histogram["rejected"], 1)
    width = _BAR // 2
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(unit, justify="right", no_wrap=True)
    table.add_column("chosen", width=width)
    table.add_column("rejected", width=width)
    bins = list(zip(itertools.pairwise(edges), histogram["chosen"], histogram["rejected"], strict=True))
    while len(bins) > 1 and not bins[-1][1] and not bins[-1][2]:
        bins.pop()
    for (low, high), chosen, rejected in bins:
        table.add_row(
            f"{low:,}-{high - 1:,}",
            Text(_bar(chosen, most, width), style="green"),
            Text(_bar(rejected, most, width), style="red"),
        )
    return table


def _bar(count: int, most: int, width: int) -> str:
    size = round(count / most * width)
    return "#" * size if size or not count else "."


def _show_view(result: DataReport, console: Console) -> None:
    view = result.view
    if view is None:
        return
    console.print()
    cut = ", cut at max_length" if view.cut else ""
    console.print(Text(f"Row {view.row} as the model sees it{cut}: one box per token", style="dim"))
    rejected = {kind: style.replace("green", "red") for kind, style in _STYLES.items()}
    for name, spans, styles in (
        ("chosen", view.chosen, _STYLES),
        ("rejected", view.rejected, rejected),
    ):
        console.print()
        console.print(Text(name, style="bold"))
        console.print(_tokens(spans, styles))


def _tokens(spans: Sequence[Span], styles: dict[Any, str]) -> Text:
    """Tokens one after the other, a thin mark between them; the middle of a long prompt or completion is left out."""
    text = Text()
    for is_prompt, group in itertools.groupby(spans, lambda span: span[1].endswith("prompt")):
        tokens = list(group)
        hidden = len(tokens) - _TOKENS_SHOWN
        start, end = (
            (tokens, []) if hidden <= 0 else (tokens[: _TOKENS_SHOWN // 2], tokens[-_TOKENS_SHOWN // 2 :])
        )
        _append(text, start, styles)
        if hidden > 0:
            text.append(f" ... {hidden:,} more tokens ... ", style="italic dim")
            _append(text, end, styles)
        if is_prompt:
            text.append("\u2016", style="bold")
    return text


def _append(text: Text, spans: Sequence[Span], styles: dict[Any, str]) -> None:
    for token, kind in spans:
        shown = visible(token, keep="").replace("\\n", "\\n\n") if "\n" in token else visible(token)
        text.append(shown, style=styles[kind])
        text.append("\u00b7", style="bright_black")
