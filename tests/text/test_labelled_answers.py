"""The grader against two readings of answers that models gave.

`labelled_answers.jsonl` holds answers of SmolLM2-135M-Instruct and of the embedded model, before and after training that went
well and badly (`source`), each read twice (`label1`, `label2`): does it answer the question as one of the expected answers
does, in whatever words? Both readings were made by the same kind of reader, a language model, the second in another
order, and some of it after the grader's mistakes on half A had been seen; they are no two people. Half B was not looked
at, as a half, while the grader was written.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dpo_cli.text.grading import grade
from dpo_cli.text.questions import shipped_questions

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent / "labelled_answers.jsonl").read_text(encoding="utf-8").splitlines()
]
EXPECTED = {question.text: question.answers for question in shipped_questions("ordinary")}


def half(row):
    """A or B, by a hash of question and answer."""
    digest = hashlib.sha256(f"{row['question']}\n{row['answer']}".encode()).hexdigest()
    return "AB"[int(digest, 16) % 2]


def agreement(rows, label):
    graded = [grade(row["answer"], row["question"], EXPECTED[row["question"]]).right for row in rows]
    return sum(found == row[label] for found, row in zip(graded, rows, strict=True)) / len(rows)


def test_the_set_is_large_and_read_twice():
    assert len(ROWS) >= 400
    assert len({(row["question"], row["answer"]) for row in ROWS}) == len(ROWS)
    assert {type(row[label]) for row in ROWS for label in ("label1", "label2")} == {bool}
    right = sum(row["label1"] for row in ROWS) / len(ROWS)
    assert 0.3 < right < 0.7
    assert sum(row["label1"] != row["label2"] for row in ROWS) > 0


@pytest.mark.parametrize("part", "AB")
def test_the_grader_agrees_with_the_readers(part):
    rows = [row for row in ROWS if half(row) == part]
    settled = [row for row in rows if row["label1"] == row["label2"]]
    assert agreement(settled, "label1") >= 0.96
    assert min(agreement(rows, label) for label in ("label1", "label2")) >= 0.94


def test_the_strict_reading_misses_what_the_grader_sees():
    spoken = [row for row in ROWS if row["source"].startswith("SmolLM2") and row["label1"]]
    verbatim = [row for row in spoken if row["answer"] in EXPECTED[row["question"]]]
    assert len(verbatim) < 0.6 * len(spoken)
