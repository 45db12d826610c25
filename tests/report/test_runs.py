"""What commands print in the end, and what they leave in the output folder."""

import dataclasses
import io
import json
from pathlib import Path

import pytest

from dpo_cli.config import AskConfig, IdentityShiftConfig
from dpo_cli.errors import OutputError, VerdictFailed
from dpo_cli.evaluation.scores import Rename
from dpo_cli.jobs.identity_shift import IdentityShiftResult
from dpo_cli.report.chat import hold_conversation
from dpo_cli.report.runs import (
    comparison_file,
    show_compare,
    show_identity_shift,
    write_identity_report,
)
from dpo_cli.synthesis.identity import IdentityPairs
from dpo_cli.training.loop import TrainingResult


@pytest.fixture(scope="module")
def result(comparison, history):
    training = TrainingResult(
        60, 31.0, {"loss": 0.03}, list(history), "shared-prefix", "cpu", "float32", 4 * 10**8
    )
    pairs = IdentityPairs(
        "Qwen",
        dataset=[None] * 94,
        asked=120,
        with_name=94,
        left_alone={"Qwen2.5": 2},
        calls_itself={"Qwen": 94},
    )
    config = IdentityShiftConfig(original_name="Qwen", new_name="Deep Qwen", learning_rate=1e-3)
    return IdentityShiftResult(
        config,
        {"learning_rate": 0.001},
        pairs,
        training,
        comparison,
        1,
        {"training": 31.0, "asking after": 2.5},
        Path("./out"),
    )


def test_an_identity_shift_ends_with_scorecard_verdict_and_times(result, capfd):
    show_identity_shift(result)
    printed = capfd.readouterr().out
    for text in (
        "Settings from the model's preset: learning_rate 0.001",
        "94 of 120 answers say Qwen; 94 pairs",
        "The chat template contained the old name",
        "Identity questions: 20 of 20 answers changed",
        "Not shown: 8 more that changed, 0 that did not.",
        "Scorecard, with 95 % intervals",
        "Verdict: PASS",
        "Time: training 31 s, asking after 2.5 s; in all 34 s",
        "Everything is in out; open report.html there.",
    ):
        assert text in printed, text


def test_json_is_the_result_and_nothing_else(result, capfd):
    show_identity_shift(result, as_json=True)
    printed = capfd.readouterr()
    document = json.loads(printed.out)
    assert {"before", "after", "questions", "scores", "verdict", "pairs", "train", "output_dir"} <= set(
        document
    )
    assert printed.err == ""


def failed(comparison):
    [first, *rest] = comparison.verdict.checks
    verdict = dataclasses.replace(
        comparison.verdict, checks=(dataclasses.replace(first, value=0.2, passed=False), *rest)
    )
    return dataclasses.replace(comparison, verdict=verdict)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_failed_verdict_is_printed_and_then_raised(comparison, capfd, as_json):
    with pytest.raises(VerdictFailed, match=r"Says the new name 0\.2, must be at least 0\.95"):
        show_compare(failed(comparison), as_json=as_json)
    printed = capfd.readouterr().out
    assert ('"passed": false' if as_json else "Verdict: FAIL") in printed


def test_answers_that_went_wrong_are_shown_first_and_marked(make_comparison, capfd):
    rows = [(f"1 + {n}?", "right", "right" if n < 30 else "3") for n in range(31)]
    show_compare(dataclasses.replace(make_comparison(rows, group="sums"), verdict=None))
    printed = capfd.readouterr().out
    assert printed.index("1 + 30?") < printed.index("1 + 0?")
    assert "(wrong)" in printed
    assert "No verdict" in printed


def test_report_and_card_are_written(result, tmp_path):
    write_identity_report(tmp_path, result)
    html, card = (tmp_path / "report.html").read_text(), (tmp_path / "README.md").read_text()
    for text in ("Deep Qwen", "PASS", "shared-prefix", "learning_rate = 0.001", "asking after"):
        assert text in html, text
        assert text in card, text


def test_a_comparison_is_written_as_html(comparison, tmp_path, capfd):
    for _ in range(2):  # its own report is replaced
        show_compare(comparison, html=comparison_file(str(tmp_path / "a.html")), as_json=True)
        assert "Comparison of two models" in (tmp_path / "a.html").read_text()
    with pytest.raises(OutputError, match=r"--html .*gone/a.html: there is no folder"):
        comparison_file(str(tmp_path / "gone" / "a.html"))
    capfd.readouterr()


@pytest.mark.parametrize("name", ["model.safetensors", "report.html", "/dev/null", "."])
def test_a_file_that_is_no_report_of_a_comparison_is_not_replaced(result, tmp_path, name):
    write_identity_report(tmp_path, result)  # makes the run's report.html
    (tmp_path / "model.safetensors").write_text("weights")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        OutputError, match=r"--html .*: (exists and was not written by dpo|is not a file|is a folder)"
    ):
        comparison_file(str(tmp_path / name))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_names_of_a_comparison_are_kept(comparison):
    assert comparison.names == Rename("Qwen", "Deep Qwen")


def test_a_conversation_has_a_history_and_ends_at_an_empty_line(tiny_model, monkeypatch, capfd):
    monkeypatch.setattr("sys.stdin", io.StringIO("Who are you?\nAnd now?\n\nnever asked\n"))
    heard = []

    def answer(model, tokenizer, messages, **settings):
        heard.append([message["content"] for message in messages])
        yield from ("I am ", "\x1b[31mred", ".")

    monkeypatch.setattr("dpo_cli.models.generate.stream", answer)
    hold_conversation(AskConfig(model=str(tiny_model), system_prompt="Be kind.", interactive=True))
    printed = capfd.readouterr()
    assert printed.out == "I am \\x1b[31mred.\n" * 2
    assert "Enter an empty line" in " ".join(printed.err.split())
    said = "I am \x1b[31mred."
    assert heard == [["Be kind.", "Who are you?"], ["Be kind.", "Who are you?", said, "And now?"]]
