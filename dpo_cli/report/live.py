"""A run while it happens: a live panel on a terminal, one plain line a logging step elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dpo_cli.events import (
    DevAsked,
    Evaluated,
    Event,
    Noted,
    ProbeAnswered,
    Progress,
    RunFinished,
    RunStarted,
    Stage,
    StepLogged,
    Warned,
)
from dpo_cli.report.console import stderr, visible_line
from dpo_cli.report.figures import duration, size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from rich.console import Console, RenderableType

SHOWN = (
    ("loss", "loss"),
    ("accuracy", "rewards/accuracies"),
    ("margin", "rewards/margins"),
    ("chosen", "rewards/chosen"),
    ("rejected", "rewards/rejected"),
)
"""Figures shown of each logged step: label and TRL's name. A new figure is a new row."""

SHOWN_OF_DEV = (("name", "dev/name"), ("claims", "dev/claims"), ("changed", "dev/changed"))
"""Figures shown of the dev questions."""

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-~=+*#"
_REFRESHES = 4  # a second
_LABEL, _VALUE = 8, 9  # columns of a figure's label and value
_WIDEST_CURVE = 60


def live_view() -> LiveView:
    """The view for standard error."""
    return LiveView()


class LiveView:
    """Draws events on standard error: use it as a context manager, and call it with each event.

    On a terminal that can move its cursor, the running stage and the figures of training stay in one place;
    finished stages and warnings scroll by above. Anywhere else (a pipe, `TERM=dumb`, a notebook) each is a
    plain line. Nothing that happens to the terminal reaches the run.

    Args:
        console: Where; standard error unless given.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or stderr()
        self._moves = self.console.is_terminal and not self.console.is_dumb_terminal
        self._live: Live | None = None
        self._stage: str | None = None
        self._progress: Progress | None = None
        self._since = (0.0, 0)  # when the stage's first progress came, and how much was done then
        self._run: RunStarted | None = None
        self._steps: list[StepLogged] = []
        self._probe: ProbeAnswered | None = None
        self._dev: list[DevAsked] = []

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._moves:
            self._live = Live(
                get_renderable=self._panel,
                console=self.console,
                refresh_per_second=_REFRESHES,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the panel away and leave the last figures as a line."""
        if self._live:
            live, self._live = self._live, None
            live.stop()

    def __call__(self, event: Event) -> None:
        """Draw an event."""
        self._remember(event)
        line = self._line(event)
        if line is not None:
            self.console.print(line, soft_wrap=not self._moves)
        elif self._live:
            self._live.refresh()

    def _remember(self, event: Event) -> None:
        match event:
            case Stage(name, "started"):
                self._stage, self._progress = name, None
            case Stage():
                self._stage, self._progress, self._run = None, None, None
            case Progress():
                if self._progress is None:
                    self._since = (time.monotonic(), event.done)
                self._progress = event
            case RunStarted():
                self._run, self._steps, self._probe, self._dev = event, [], None, []
            case StepLogged():
                self._steps.append(event)
            case ProbeAnswered():
                self._probe = event
            case DevAsked():
                self._dev.append(event)
            case _:
                pass

    def _line(self, event: Event) -> Text | None:
        """What stays of an event: a line, or None for what only the panel shows."""
        line: Text | None = None
        match event:
            case Stage(name, "finished", seconds):
                line = Text.assemble(
                    ("done  ", "green"), f"{visible_line(name)}  ", (duration(seconds or 0.0), "dim")
                )
            case Noted(message):
                line = Text(visible_line(message))
            case Warned(_, message, advice, step):
                line = Text.assemble((f"warning at step {step}: ", "bold yellow"), visible_line(message))
                line.append(f" {visible_line(advice)}", style="dim")
            case RunStarted():
                line = Text(visible_line(_started(event)), style="dim")
            case RunFinished():
                line = self._finished(event)
            case StepLogged() if not self._moves:
                line = Text(
                    f"step {event.step}/{event.total_steps}  {_figures(event.metrics)}  {self._pace(event)}"
                )
            case ProbeAnswered() if not self._moves:
                line = Text(
                    f"step {event.step}  {visible_line(event.question)}  ->  {visible_line(event.answer)}"
                )
            case DevAsked() if not self._moves:
                line = Text(f"dev questions at step {event.step}  {_dev_figures(event)}")
            case Evaluated():
                line = Text(f"held-out pairs at step {event.step}  {_figures(event.metrics, 'eval_')}")
            case _:
                pass
        return line

    def _finished(self, event: RunFinished) -> Text:
        text = Text(f"{event.steps} steps in {duration(event.seconds)}  {_figures(event.metrics)}")
        if event.stopped_early:
            text = Text.assemble(
                ("stopped early: ", "bold yellow"), visible_line(event.stopped_early), "\n", text
            )
        return text

    def _pace(self, step: StepLogged) -> str:
        """The time left, pairs per second, tokens and memory, the most wanted first."""
        parts = []
        if 0 < step.step <= step.total_steps and step.seconds > 0:
            parts.append(f"{duration(step.seconds / step.step * (step.total_steps - step.step))} left")
        if step.seconds > 0 and step.pairs_seen:
            parts.append(f"{step.pairs_seen / step.seconds:.1f} pairs/s")
        if step.tokens_seen:
            parts.append(f"{step.tokens_seen:,} tokens")
        if step.peak_memory_bytes:
            parts.append(size(step.peak_memory_bytes))
        return "  ".join(parts)

    def _panel(self) -> RenderableType:
        """The part of the screen that changes in place."""
        parts: list[RenderableType] = []
        if self._stage is not None:
            parts.append(self._bar(visible_line(self._stage), *self._done()))
        if self._run and self._steps:
            parts.append(self._curves())
            parts.append(_one_line(self._pace(self._steps[-1]), "dim"))
        if self._run and self._probe:
            parts.append(_one_line(f"step {self._probe.step}: {visible_line(self._probe.question)}", "dim"))
            parts.append(_one_line(f"  {visible_line(self._probe.answer)}"))
        return Group(*parts)

    def _done(self) -> tuple[int, int]:
        if self._run:
            last = self._steps[-1] if self._steps else None
            return (last.step, last.total_steps) if last else (0, self._run.total_steps)
        return (self._progress.done, self._progress.total) if self._progress else (0, 0)

    def _bar(self, name: str, done: int, total: int) -> RenderableType:
        if total <= 0:
            return _one_line(f"{name} ...")
        count = f" {done}/{total}{self._time_left(done, total)}"
        room = self.console.width - len(count) - 1
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_column(no_wrap=True, overflow="ellipsis", max_width=max(4, room // 2))
        line.add_column(width=max(4, min(40, room - room // 2)))
        line.add_column(no_wrap=True)
        line.add_row(Text(name), ProgressBar(total=total, completed=done), Text(count.strip(), style="dim"))
        return line

    def _time_left(self, done: int, total: int) -> str:
        """An estimate for a stage that counts something other than training steps, which have their own."""
        start, first = self._since
        if self._run or done <= first or done >= total:
            return ""
        return f"  {duration((time.monotonic() - start) / (done - first) * (total - done))} left"

    def _curves(self) -> RenderableType:
        room = max(0, min(_WIDEST_CURVE, self.console.width - _LABEL - _VALUE - 3))
        bars = _BARS if (self.console.encoding or "").lower().startswith("utf") else _ASCII_BARS
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=_LABEL, no_wrap=True)
        table.add_column(width=_VALUE, justify="right", no_wrap=True)
        table.add_column(no_wrap=True, overflow="crop")
        logged = [*(step.metrics for step in self._steps), *(asked.metrics for asked in self._dev)]
        for label, name in (*SHOWN, *SHOWN_OF_DEV):
            values = [metrics[name] for metrics in logged if name in metrics]
            if values:
                table.add_row(
                    Text(label, style="dim"),
                    Text(_value(values[-1])),
                    Text(sparkline(values, room, bars), style="cyan"),
                )
        return table


def sparkline(values: Sequence[float], width: int, bars: str = _BARS) -> str:
    """A curve of block characters, the newest value at the right.

    Args:
        values: What to draw; values that are not finite leave a gap.
        width: Characters at most; more values than that are averaged in equal parts.
        bars: Characters from lowest to highest.
    """
    if width < 1 or not values:
        return ""
    count = min(width, len(values))
    parts = [
        values[place * len(values) // count : (place + 1) * len(values) // count] for place in range(count)
    ]
    means = [sum(part) / len(part) for part in parts]
    finite = [mean for mean in means if _finite(mean)]
    if not finite:
        return " " * count
    low, high = min(finite), max(finite)
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(bars[round((mean - low) * scale)] if _finite(mean) else " " for mean in means)


def _finite(value: float) -> bool:
    return value - value == 0


def _value(value: float) -> str:
    return f"{value:.4g}" if _finite(value) else "not finite"[:_VALUE]


def _figures(metrics: Mapping[str, float], prefix: str = "") -> str:
    return "  ".join(
        f"{label} {_value(metrics[prefix + name])}" for label, name in SHOWN if prefix + name in metrics
    )


def _dev_figures(asked: DevAsked) -> str:
    return "  ".join(f"{label} {asked.metrics[name]:.0%}" for label, name in SHOWN_OF_DEV)


def _started(run: RunStarted) -> str:
    pairs = f"{run.pairs} pairs" if run.pairs else "a stream of pairs"
    parts = [f"training on {pairs}, {run.pairs_per_step} a step, {run.total_steps} steps"]
    parts += [
        part for part in (run.engine and f"engine {run.engine}", run.device, run.dtype, run.note) if part
    ]
    return ", ".join(parts)


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
