"""The live view at every width, in colour or not, on a terminal or not."""

import io
import re
import unicodedata

import pytest
from rich.console import Console

from dpo_cli.events import (
    Evaluated,
    ProbeAnswered,
    Progress,
    RunFinished,
    RunStarted,
    Stage,
    StepLogged,
    Warned,
)
from dpo_cli.report.live import LiveView, sparkline

RUN = """
import math
from dpo_cli.events import *
from dpo_cli.report.live import live_view
with live_view() as view:
    view(Stage("loading the model", "started"))
    view(Stage("loading the model", "finished", 0.31))
    view(Stage("asking before", "started"))
    view(Progress("asking before", 20, 100))
    view(Stage("asking before", "finished", 75.0))
    view(Stage("training", "started"))
    view(RunStarted(60, 94, 8, "shared-prefix", "cpu", "float32", "learning_rate 0.001"))
    for step in range(1, 61):
        figures = {"loss": 0.69 * math.exp(-step / 20), "rewards/accuracies": 1.0, "rewards/margins": 123456.789 * step,
                   "rewards/chosen": -step / 3, "rewards/rejected": math.nan}
        view(StepLogged(step, 60, step / 12, step * 0.5, figures, step * 8, step * 300, 4 * 10**8))
    view(ProbeAnswered(60, "Who are you, " + "really " * 20 + "?", "I am 通义千问. " * 20))
    view(Warned("both_falling", "Both rewards fall together. " * 3, "Lower --learning-rate.", 30))
    view(RunFinished(60, 30.0, {"loss": 0.03, "rewards/accuracies": 1.0}, None))
    view(Stage("training", "finished", 30.2))
print("result")
"""


def lines_of(output):
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output))


def cells(line):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_nothing_overflows_a_terminal(on_terminal, columns):
    output = on_terminal(RUN, columns)
    lines = lines_of(output)
    assert max(map(cells, lines)) <= columns
    assert "\x1b[" in output
    for text in ("training", "60/60", "loss", "rejected", "pairs/s", "▇", "result"):
        assert any(text in line for line in lines), text
    assert any("warning at step 30" in line for line in lines)


def test_no_color_means_no_colour(on_terminal):
    colours = re.findall(r"\x1b\[([0-9;]*)m", on_terminal(RUN, 80, {"NO_COLOR": "1"}))
    assert not {part for found in colours for part in found.split(";")} & {
        str(n) for n in (*range(30, 38), *range(90, 98), 38, 48)
    }


def test_a_dumb_terminal_gets_plain_lines(on_terminal):
    output = on_terminal(RUN, 80, {"TERM": "dumb"})
    assert "\x1b" not in output
    assert output.count("pairs/s") == 60


def drawn(*events, terminal=False, width=80):
    file = io.StringIO()
    with LiveView(Console(file=file, width=width, force_terminal=terminal, color_system=None)) as view:
        for event in events:
            view(event)
    return file.getvalue()


def test_each_event_is_a_plain_line_without_a_terminal():
    output = drawn(
        Stage("asking", "started"),
        Progress("asking", 1, 2),
        Stage("asking", "finished", 3.21),
        RunStarted(10, 80, 8, "trl", "cpu", "float32", "beta 0.1 (preset)"),
        StepLogged(
            5,
            10,
            0.5,
            4.0,
            {"loss": 0.5, "rewards/accuracies": 0.75, "rewards/margins": 1.25},
            40,
            1234,
            2_500_000_000,
        ),
        ProbeAnswered(5, "Who?", "Me\nor you"),
        Evaluated(5, {"eval_loss": 0.6, "eval_rewards/accuracies": 0.5}),
        Warned("x", "It burns.", "Stop it.", 5),
        RunFinished(5, 4.0, {"loss": 0.5}, "It burns."),
    )
    assert output.splitlines() == [
        "done  asking  3.2 s",
        "training on 80 pairs, 8 a step, 10 steps, engine trl, cpu, float32, beta 0.1 (preset)",
        "step 5/10  loss 0.5  accuracy 0.75  margin 1.25  4.0 s left  10.0 pairs/s  1,234 tokens  2.5 GB",
        "step 5  Who?  ->  Me\\nor you",
        "held-out pairs at step 5  loss 0.6  accuracy 0.5",
        "warning at step 5: It burns. Stop it.",
        "stopped early: It burns.",
        "5 steps in 4.0 s  loss 0.5",
    ]


def test_a_panel_before_the_first_figure_and_without_a_total():
    assert "training" in drawn(
        Stage("training", "started"), RunStarted(0, 0, 8), Progress("x", 0, 0), terminal=True
    )


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([], 5, ""),
        ([1.0], 5, "▁"),
        ([1.0, 2.0], 5, "▁█"),
        ([3.0, 3.0, 3.0], 5, "▁▁▁"),
        ([0.0, 7.0, float("nan"), 3.5], 5, "▁█ ▅"),
        ([float("nan")], 5, " "),
        ([0.0, 0.0, 7.0, 7.0], 2, "▁█"),
        ([1.0, 2.0], 0, ""),
    ],
)
def test_sparklines(values, width, expected):
    assert sparkline(values, width) == expected
