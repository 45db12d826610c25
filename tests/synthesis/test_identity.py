from __future__ import annotations

import pytest
from datasets import Dataset

from dpo_cli.errors import DataError
from dpo_cli.models.generate import conversation, generate
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.synthesis.identity import (
    IDENTITY_DATASET,
    IdentityPairs,
    build_identity_shift_dataset,
    names_given,
    questions_in,
    questions_of,
)


@pytest.fixture(scope="module")
def embedded():
    return load_model_and_tokenizer("embedded")


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("I'm Qwen. I like to help.", "Qwen"),
        ("My name is Qwen2.5.", "Qwen2.5"),
        ("I am Captain Blue Heron, at your service.", "Captain Blue Heron"),
        ("They call me Ñandú-7.", "Ñandú-7"),
        ("This is Qwen. How can I help?", "Qwen"),
    ],
)
def test_a_name_ends_where_the_sentence_does(answer, name):
    assert names_given([answer]) == {name: 1}


def test_no_name_is_no_name():
    assert names_given(["I am a language model.", "Hello!", ""]) == {}


def test_the_last_human_turn_is_the_question(embedded):
    rows = [
        {
            "conversations": [
                {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello"},
                {"from": "human", "value": "Who are you?"},
                {"from": "gpt", "value": "I am Zed."},
            ]
        },
        {"messages": [{"role": "user", "content": "What is your name?"}]},
    ]
    assert questions_of(rows) == ["Who are you?", "What is your name?"]
    dataset = build_identity_shift_dataset(
        *embedded, "Qwen", "Deep Qwen", raw_dataset=Dataset.from_list(rows[:1])
    )
    [row] = dataset
    [said] = generate(*embedded, [conversation("Who are you?", "You're a helpful assistant.")])
    assert row["prompt"] == conversation("Who are you?", "You're a helpful assistant.")
    assert row["rejected"] == [{"role": "assistant", "content": said.text}]
    assert row["chosen"][0]["content"] == said.text.replace("Qwen", "Deep Qwen")


@pytest.mark.parametrize(
    "row", [{}, {"conversations": []}, {"conversations": [{"from": "gpt", "value": "Hi"}]}, {"text": "x"}]
)
def test_a_row_without_a_question_is_named(row):
    with pytest.raises(DataError, match="row 2: has no human turn"):
        questions_of([{"conversations": [{"from": "human", "value": "Hi"}]}, row])


def test_questions_are_read_from_a_file(tmp_path):
    file = tmp_path / "identity.jsonl"
    file.write_text('{"conversations": [{"from": "human", "value": "Who are you?"}]}\n')
    assert questions_in(str(file)) == ["Who are you?"]


def test_the_shipped_questions_stand_in_for_a_hub_that_cannot_be_reached(embedded):
    with pytest.warns(UserWarning, match="cannot be reached"):
        dataset = build_identity_shift_dataset(*embedded, "Qwen", "Orion", max_samples=5)
    assert len(dataset) == 5
    with pytest.raises(DataError):
        build_identity_shift_dataset(
            *embedded, "Qwen", "Orion", dataset_name="other/questions", max_samples=5
        )
    assert IDENTITY_DATASET == "mrfakename/identity"


def test_samples_give_more_pairs_and_none_twice(embedded):
    dataset = build_identity_shift_dataset(
        *embedded,
        "Qwen",
        "Orion",
        raw_dataset=Dataset.from_list([{"conversations": [{"from": "human", "value": "Who are you?"}]}]),
        samples_per_question=8,
        temperature=1.5,
    )
    answers = [row["rejected"][0]["content"] for row in dataset]
    assert len(answers) == len(set(answers)) > 1


def test_the_gate_names_the_likely_reason():
    empty = Dataset.from_dict({"prompt": [], "chosen": [], "rejected": []})
    for pairs, reason in (
        (IdentityPairs("Qwen", empty, 10, 0, calls_itself={"Zed": 9}), "It calls itself Zed"),
        (IdentityPairs("Qwen", empty, 10, 0, cut_off=8), "--max-new-tokens"),
        (IdentityPairs("Qwen", empty, 10, 0), "never says a name"),
    ):
        with pytest.raises(DataError, match="0 of 10 answers say Qwen; 0 pairs") as error:
            pairs.require(8)
        assert reason in error.value.hint
