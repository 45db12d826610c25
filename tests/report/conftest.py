"""A run that never happened, and strings that nobody should print."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import terminal

from dpo_cli.evaluation.compare import Margins, compare_examinations
from dpo_cli.evaluation.examination import Examination
from dpo_cli.evaluation.scores import Answer, Rename, Score
from dpo_cli.events import Warned
from dpo_cli.report.record import RunRecord
from dpo_cli.text.questions import Question

SKULL = "\u2620"  # stands directly before each payload, so that a payload is told from Rich's own sequences

_CONTROLS = [chr(n) for n in (*range(0x20), *range(0x7F, 0xA0)) if chr(n) not in "\n\t"]
_INVISIBLE = [
    *(chr(n) for n in (*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2065), *range(0x2066, 0x2070))),
    "\ufeff", "\u00ad", "\u061c", "\u180e", "\U000e0001", "\U000e0041", "\ud800", "\udfff", "\ufff9",
]  # fmt: skip
_SEQUENCES = [
    "\x1b[31mred", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;cHduZWQ=\x07", "\x1bP+q\x1b\\", "\x1b[6n", "\x1b[?1049h", "\x1b[8m", "\x1bc", "\x9b31m", "\x9d0;t\x9c",
    "\r overwritten", "\b\b\b", "\x1b[1A\x1b[2K", "\x07\x07",
]  # fmt: skip
_MARKUP = [
    "[red]x[/red]", "[bold", "[/]", "[link=http://evil.example]x[/link]", "[@click=app.bell]x[/]", ":skull:", "[[x]]", "\\[red]x",
    "{{ 7 * 7 }}", "{% for x in y %}", "{# x #}", "%s %(x)s {0} {x!r}", "$(reboot)", "`reboot`", "```\n# x\n```", "````", "| a | b |",
    "# heading", "![x](http://evil.example/x.png)", "[x](javascript:hacked=1)", "<!-- x", "--> x", "]]>", "---\nx: y\n---",
]  # fmt: skip
_HTML = [
    "<script>hacked=1</script>", "</script><script>hacked=1</script>", "<img src=x onerror=hacked=1>", "<svg onload=hacked=1>",
    '" onmouseover="hacked=1', "' onfocus='hacked=1' autofocus='", "</title><script>hacked=1</script>", "</style><script>hacked=1</script>",
    "<iframe src=javascript:hacked=1>", "<a href=javascript:hacked=1>x</a>", "<b>bold</b>", "&lt;b&gt;", "&#60;b&#62;", "&", "<", ">",
    "<base href=http://evil.example>", "<meta http-equiv=refresh content=0;url=http://evil.example>", "<link rel=stylesheet href=//evil.example>",
    "<form action=//evil.example><input name=x>", "<style>*{display:none}</style>", "<details ontoggle=hacked=1 open>", "</td></tr></table>",
    "</del></ins></div>", "<object data=//evil.example>", "<embed src=//evil.example>", "<math><mtext></table><img src=x onerror=hacked=1>",
    "<noscript><p title='</noscript><img src=x onerror=hacked=1>'>", "<![CDATA[x]]>", "<?php x ?>", "<plaintext>", "<textarea>", "<select>",
    "<video src=//evil.example autoplay>", "<marquee onstart=hacked=1>", "<x" + "x" * 500 + ">", "javascript:hacked=1",
]  # fmt: skip


def _hostile():
    payloads = [*_CONTROLS, *_INVISIBLE, *_SEQUENCES, *_MARKUP, *_HTML]
    payloads += [f"{a}{b}" for a, b in zip(_SEQUENCES, _HTML, strict=False)] + [
        f"<{c}script>hacked=1</script>" for c in _CONTROLS
    ]
    return [f"{SKULL}{payload} end" for payload in payloads[:199]] + [SKULL + "w" * 3000]


@pytest.fixture(scope="session")
def hostile():
    """200 strings that do something when they are printed raw."""
    found = _hostile()
    assert len(found) == 200
    return found


@pytest.fixture(scope="session")
def make_comparison():
    """A function that makes a comparison from (question, before, after) rows."""

    def make(rows, group="identity", model=("embedded", "./dpo_output")):
        questions = [Question(text, group, ("right",)) for text, _, _ in rows]
        before = tuple(Answer(question, row[1]) for question, row in zip(questions, rows, strict=True))
        after = tuple(
            Answer(question, row[2], truncated=n == 1)
            for n, (question, row) in enumerate(zip(questions, rows, strict=True))
        )
        divergence = Score(
            "divergence", "Divergence from before", 0.0321, len(rows), (0.02, 0.04), "none", "nats/token"
        )
        return compare_examinations(
            Examination(model[0], before),
            Examination(model[1], after, divergence=(divergence,)),
            names=Rename("Qwen", "Deep Qwen"),
        )

    return make


@pytest.fixture(scope="session")
def comparison(make_comparison):
    """Twenty renamed answers and one that went wrong, with margins of pairs."""
    renamed = make_comparison([(f"Who are you, {n}?", "I am Qwen.", "I am Deep Qwen.") for n in range(20)])
    sums = make_comparison(
        [("What is 1 + 1?", "right", "3"), ("What is 2 + 2?", "right", "right")], group="sums"
    )
    margins = Margins(
        tuple(-1 + 0.1 * n for n in range(60)), tuple(1 + 0.2 * n for n in range(60)), (0.1,) * 60, 0.2
    )
    return dataclasses.replace(renamed, answers=renamed.answers + sums.answers, margins=margins)


@pytest.fixture(scope="session")
def history():
    """Sixty steps that go well."""
    steps = [
        {
            "step": float(s), "loss": 0.69 * math.exp(-s / 20), "rewards/accuracies": min(1.0, 0.5 + s / 60), "rewards/margins": s / 10,
            "rewards/chosen": s / 30, "rewards/rejected": -s / 20, "grad_norm": 3.0,
        }
        for s in range(1, 61, 2)
    ]  # fmt: skip
    return [*steps, {"step": 30.0, "eval_loss": 0.5}, {"step": 60.0, "eval_loss": 0.4}]


@pytest.fixture(scope="session")
def record(comparison, history):
    """The record of that run."""
    return RunRecord(
        title="Identity shift: Qwen becomes Deep Qwen",
        command="dpo identity-shift --config config.toml",
        base="Qwen/Qwen2.5-0.5B-Instruct",
        comparison=comparison,
        history=history,
        warnings=[Warned("both_falling", "Both rewards fall together.", "Lower --learning-rate.", 30)],
        facts={"Engine": "shared-prefix", "Seed": "42"},
        pairs={"asked": "120", "pairs": "94"},
        settings='beta = 0.2\nnew_name = "Deep Qwen"',
        preset={"learning_rate": "0.001"},
    )


@pytest.fixture(scope="session")
def on_terminal():
    """A function that runs Python code under a pseudo-terminal and gives what the terminal got."""

    def run(code, columns, environment=None):
        written, status = terminal.on_terminal(columns, "-c", code, environment=environment)
        assert status == 0, written
        return written

    return run


def plain(output):
    """What a terminal got, without Rich's own colours and cursor movements, as lines."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output))
