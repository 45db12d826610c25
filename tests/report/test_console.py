"""200 hostile strings through every printing path: nothing that acts is left."""

import io
import json
import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dpo_cli.errors import DataError, VerdictFailed
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
from dpo_cli.report.answers import show_answers, show_stream
from dpo_cli.report.comparison import show_comparison
from dpo_cli.report.console import json_text, visible, visible_line, write_json
from dpo_cli.report.error import show_error
from dpo_cli.report.live import LiveView
from dpo_cli.report.model_card import model_card

ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def acting(text):
    return {c for c in text if unicodedata.category(c) in ACTING} - set("\n\t")


def console(*, terminal, width=80):
    """A console whose output is text; a terminal without colours, so that any escape in it is not Rich's."""
    file = io.StringIO()
    made = Console(
        file=file,
        width=width,
        force_terminal=terminal,
        color_system=None,
        markup=False,
        highlight=False,
        emoji=False,
    )
    return made, file


@given(st.text())
def test_visible_text_acts_on_nothing_and_can_be_encoded(text):
    shown = visible(text)
    assert not acting(shown)
    shown.encode()
    assert visible(shown) == shown
    assert "\n" not in visible_line(text)
    assert "\t" not in visible_line(text)


def test_what_is_made_visible_can_be_read():
    assert visible("a\x1b[31m\u202eb\n\tc\ud800") == "a\\x1b[31m\\u202eb\n\tc\\ud800"
    assert visible_line("a\nb\tc") == "a\\nb\\tc"
    assert visible("Ñandú 通义千问 👋 \u00a0é") == "Ñandú 通义千问 👋 \u00a0é"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_text_is_harmless_and_reads_back(value):
    text = json_text(value)
    assert not acting(text)
    text.encode()
    assert json.loads(text) == value


@pytest.mark.parametrize("terminal", [True, False])
def test_answers(hostile, make_comparison, terminal):
    rows = [(text, text, text[::-1]) for text in hostile]
    compared = make_comparison(rows, model=(hostile[0], hostile[40]))
    for width in (40, 80, 200):
        out, file = console(terminal=terminal, width=width)
        show_comparison(compared, out, limit=None)
        show_answers(hostile[100], [old for old, _ in compared.answers], out)
        printed = file.getvalue()
        assert not acting(printed)
        assert "[red]x[/red]" in printed.replace("\n", "")
        assert max(map(len, printed.split("\n"))) <= width


def test_a_question_says_which_system_prompt_it_had(make_comparison, hostile):
    import dataclasses

    compared = make_comparison([("Who are you?", "I am Qwen.", "I am Deep Qwen.")])
    [(old, new)] = compared.answers
    for prompt, says in (("", "(without system prompt)"), ("Be brief.", "(system prompt: Be brief.)")):
        question = old.question.asked("other", prompt)
        asked = dataclasses.replace(compared, answers=((dataclasses.replace(old, question=question), new),))
        out, file = console(terminal=True, width=200)
        show_comparison(asked, out, limit=None)
        assert f"Who are you? {says}" in " ".join(file.getvalue().split())
    for text in hostile:
        question = old.question.asked("other", text)
        dirty = dataclasses.replace(compared, answers=((dataclasses.replace(old, question=question), new),))
        out, file = console(terminal=True)
        show_comparison(dirty, out, limit=None)
        assert not acting(file.getvalue())


def test_streamed_answers(hostile):
    for text in hostile:
        out, file = console(terminal=True)
        assert show_stream(iter(text), out) == text
        assert not acting(file.getvalue())


def events(text):
    yield Stage(text, "started")
    yield Progress(text, 1, 2)
    yield RunStarted(10, 80, 8, engine=text, device=text, dtype=text, note=text)
    yield StepLogged(1, 10, 0.1, 1.0, {"loss": 0.7, text: 1.0}, 8, 100, 10**9)
    yield ProbeAnswered(1, text, text)
    yield Evaluated(1, {"eval_loss": 0.6})
    yield Warned(text, text, text, 1)
    yield RunFinished(10, 2.0, {"loss": 0.1}, text)
    yield Stage(text, "finished", 2.0)


def test_the_live_view_without_a_terminal(hostile):
    for text in hostile:
        out, file = console(terminal=False)
        with LiveView(out) as view:
            for event in events(text):
                view(event)
        assert not acting(file.getvalue())


def test_the_live_view_on_a_terminal(hostile):
    for text in hostile:
        out, file = console(terminal=True)
        with LiveView(out) as view:
            for event in events(text):
                view(event)
        printed = file.getvalue()
        assert acting(printed) <= {"\x1b", "\r"}  # Rich moves the cursor
        assert "\u2620\x1b" not in printed  # no payload does
        assert "\u2620\r" not in printed


@pytest.mark.parametrize("kind", [DataError, VerdictFailed])
def test_errors(hostile, capfd, kind):
    for text in hostile:
        show_error(kind(text, hint=text))
    printed = capfd.readouterr()
    assert printed.out == ""
    assert not acting(printed.err)
    assert printed.err.count("FAIL" if kind is VerdictFailed else "Error") >= 200


def test_json_on_standard_output(hostile, capfd):
    write_json({"answers": hostile})
    printed = capfd.readouterr()
    assert not acting(printed.out)
    assert json.loads(printed.out)["answers"] == hostile
    assert json.loads(json_text({"x": [float("nan"), (float("-inf"), 1.5)]})) == {"x": [None, [None, 1.5]]}


def test_model_cards(hostile, make_comparison, record):
    import dataclasses

    for text in hostile:
        dirty = dataclasses.replace(
            record, title=text, base=text, comparison=make_comparison([(text, text, text + "!")]), stopped_early=text,
            warnings=[Warned(text, text, text, 1)], facts={text: text}, pairs={text: text}, settings=text,
        )  # fmt: skip
        assert not acting(model_card(dirty))


PRINTS = "import sys; from rich.text import Text; from dpo_cli.report.console import stdout, stderr\n"


def run(code, *, close, **environment):
    """Run code whose standard output or error goes to a reader that is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {close: writer}
        return subprocess.run(
            [sys.executable, "-c", PRINTS + code], env=os.environ | environment, check=False, **streams
        )
    finally:
        os.close(writer)


def test_a_reader_of_errors_that_goes_away_stops_nothing():
    done = run("e = stderr()\nfor n in range(2000): e.print(Text('x' * 500))\nprint('done')", close="stderr")
    assert done.stdout == b"done\n"


def test_a_reader_of_results_that_goes_away_is_told_to_the_caller():
    done = run(
        "o = stdout()\ntry:\n    for n in range(2000): o.print(Text('x' * 500))\nexcept BrokenPipeError: print('gone', file=sys.stderr)\n"
        "sys.stdout = None",
        close="stdout",
    )
    assert b"gone" in done.stderr


def test_a_terminal_without_the_characters_gets_escapes_and_no_error():
    done = subprocess.run(
        [sys.executable, "-c", PRINTS + "stdout().print(Text('é通'))"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == b"\\xe9\\u901a"
