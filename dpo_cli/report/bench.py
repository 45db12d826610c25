"""What `dpo bench` prints."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dpo_cli.report.console import stdout, visible_line, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dpo_cli.bench.generation import GenerationBench
    from dpo_cli.bench.training import BenchResult


def show_bench(result: BenchResult, *, as_json: bool = False) -> None:
    """Print the result of `dpo bench`."""
    if as_json:
        write_json(result.to_json())
        return
    console = stdout()
    table = Table(
        title=f"{result.pairs} pairs, {result.batch_size} a step, {result.dtype}", title_justify="left"
    )
    for column in ("engine", "pairs/s", "against trl", "peak memory", "against trl"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for name, figures in result.engines.items():
        table.add_row(
            Text(name),
            f"{statistics.median(figures.pairs_per_second):.3g}",
            spread(result.ratios(name)),
            f"{statistics.median(figures.peak_memory_bytes) / 2**30:.2f} GiB",
            spread(result.memory_ratios(name)),
        )
    console.print(table)
    losses = Table(title="Loss by step, the first one being the warm-up", title_justify="left")
    losses.add_column("engine")
    losses.add_column("loss")
    for name, figures in result.engines.items():
        losses.add_row(Text(name), Text(" ".join(f"{loss:.6f}" for loss in figures.loss)))
    console.print(losses)
    console.print(
        Text(
            f"Matrix products reach {result.rate / 1e9:,.0f} GFLOP/s here in {result.dtype}; "
            f"shared-prefix takes {1 / result.floor_fraction:.2f} times as long as its useful products would alone "
            f"({result.floor_fraction:.0%} of the floor)."
        )
    )
    for name, figures in result.engines.items():
        if figures.note:
            console.print(Text(visible_line(f"{name}: TRL's own forward ran: {figures.note}")))


def show_generation(result: GenerationBench, *, as_json: bool = False) -> None:
    """Print the result of `dpo bench --generate`."""
    if as_json:
        write_json(result.to_json())
        return
    table = Table(
        title=f"{result.questions} questions, {result.tokens} tokens answered", title_justify="left"
    )
    for column in ("way", "answers/s"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, speeds in result.answers_per_second.items():
        table.add_row(name, spread(speeds, times=False))
    console = stdout()
    console.print(table)
    console.print(
        Text(f"Batched is {spread(result.ratios)} as fast; {result.same:.0%} of the answers are the same.")
    )


def spread(values: Sequence[float], *, times: bool = True) -> str:
    """A median with the smallest and the largest value."""
    unit = "x" if times else ""
    middle = f"{statistics.median(values):.2f}{unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"
