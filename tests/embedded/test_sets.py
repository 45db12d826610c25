"""The shipped question sets and preference pairs: layout, sizes, and nothing held out is trained on."""

import json
from itertools import chain
from pathlib import Path

import pytest

import dpo_cli
from dpo_cli.text.questions import shipped_questions
from embedded_model import corpus, shipped_sets
from embedded_model.text import normal_form

PACKAGE = Path(dpo_cli.__file__).parent
QUESTION_SETS = ("identity_train", "identity_heldout", "ordinary")
FULL = 416_000


def rows(name):
    return [json.loads(line) for line in (PACKAGE / name).read_text(encoding="utf-8").splitlines()]


def asked(name):
    return [normal_form(row["question"]) for row in rows(f"text/questions/{name}.jsonl")]


def prompts(name):
    return [normal_form(row["prompt"][-1]["content"]) for row in rows(f"data/preferences/{name}.jsonl")]


@pytest.mark.parametrize(
    ("name", "least"), [("identity_train", 120), ("identity_heldout", 60), ("ordinary", 150)]
)
def test_a_question_set_is_large_enough_and_holds_no_question_twice(name, least):
    questions = asked(name)
    assert len(questions) >= least
    assert len(questions) == len(set(questions))


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_a_question_set_has_the_documented_layout(name):
    for row in rows(f"text/questions/{name}.jsonl"):
        assert set(row) <= {"question", "group", "answers"}
        assert row["question"].strip() == row["question"] != ""
        assert (row["group"] == "identity") == name.startswith("identity")
        assert name != "ordinary" or row["answers"]


def test_held_out_identity_questions_are_no_training_questions():
    assert not set(asked("identity_heldout")) & set(asked("identity_train"))


def trained_on(count):
    return {normal_form(example.question) for example in corpus.examples(0, count)}


def held_out():
    return set(chain(asked("identity_heldout"), asked("ordinary"), prompts("heldout")))


def test_no_held_out_question_is_in_the_training_text():
    seen = trained_on(40_000)
    assert not held_out() & seen
    # The control: the questions that pairs are made of are in it.
    assert len(set(asked("identity_train")) & seen) > 150


@pytest.mark.slow
def test_no_held_out_question_is_in_the_whole_training_text():
    assert not held_out() & trained_on(FULL)


def test_every_group_is_asked_and_qwen_as_a_third_party_too():
    groups = {question.group for question in shipped_questions("ordinary")}
    assert groups >= {
        "capitals",
        "sums",
        "colours",
        "opposites",
        "days",
        "months",
        "definitions",
        "greetings",
        "third-party",
    }
    about_qwen = [q for q in shipped_questions("ordinary") if q.group == "third-party" and "Qwen" in q.text]
    assert len(about_qwen) >= 8


def test_a_sum_is_right_as_a_sentence_and_as_a_number():
    sums = {q.text: q.answers for q in shipped_questions("ordinary") if q.group == "sums" and "+" in q.text}
    for question, answers in sums.items():
        left, right = (int("".join(filter(str.isdigit, part))) for part in question.split("+"))
        assert f"{left} + {right} = {left + right}." in answers
        assert f"{left + right}." in answers


def test_preference_pairs_differ_only_in_their_answer_and_prefer_the_shorter():
    for row in rows("data/preferences/train.jsonl") + rows("data/preferences/heldout.jsonl"):
        assert set(row) == {"prompt", "chosen", "rejected"}
        assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
        (chosen,), (rejected,) = row["chosen"], row["rejected"]
        assert chosen["role"] == rejected["role"] == "assistant"
        assert len(chosen["content"]) < len(rejected["content"])


def test_preference_pairs_are_enough_and_held_out_ones_ask_something_else():
    train, heldout = prompts("train"), prompts("heldout")
    assert len(train) == len(set(train)) >= 200
    assert len(heldout) == len(set(heldout)) >= 60
    assert not set(train) & set(heldout)


def test_the_shipped_files_are_what_the_code_writes(tmp_path):
    for written in shipped_sets.write_sets(tmp_path):
        shipped = PACKAGE / written.relative_to(tmp_path)
        assert written.read_text(encoding="utf-8") == shipped.read_text(encoding="utf-8"), shipped
