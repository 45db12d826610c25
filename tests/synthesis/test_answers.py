"""Pairs made with a model's own answers."""

from __future__ import annotations

import pytest
from datasets import Dataset

from dpo_cli.errors import DataError
from dpo_cli.models.generate import Generation
from dpo_cli.synthesis import answers as build
from dpo_cli.synthesis.answers import build_dpo_dataset


@pytest.fixture
def answers(monkeypatch):
    """A model that answers with the question in capitals; "cut" is cut off and "mute" says nothing."""
    asked = []

    def generate(model, tokenizer, conversations, **how):
        asked.extend(conversations)
        texts = [turns[-1]["content"].upper() for turns in conversations]
        return [Generation("" if text == "MUTE" else text, text == "CUT", [1], [2]) for text in texts]

    monkeypatch.setattr("dpo_cli.models.generate.generate", generate)
    return asked


def test_the_models_answer_is_rejected_and_what_is_made_of_it_is_chosen(answers):
    rows = Dataset.from_dict({"prompt": ["a", "cut", "mute", "b"], "system": ["s", "s", "s", ""]})
    pairs = build_dpo_dataset(None, None, rows, chosen_transform=lambda text: text + "!")
    assert pairs.to_list() == [
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
            "chosen": [{"role": "assistant", "content": "A!"}],
            "rejected": [{"role": "assistant", "content": "A"}],
        },
        {
            "prompt": [{"role": "user", "content": "b"}],
            "chosen": [{"role": "assistant", "content": "B!"}],
            "rejected": [{"role": "assistant", "content": "B"}],
        },
    ]
    assert len(answers) == 4


def test_the_same_answer_twice_is_no_pair(answers):
    rows = [{"q": "a"}, {"q": "b"}]
    pairs = build_dpo_dataset(None, None, rows, "q", lambda text: text.replace("A", "x"))
    assert [row["rejected"][0]["content"] for row in pairs] == ["A"]
    with pytest.raises(DataError, match=r"no usable pairs in 2 rows.*identical completions: 2"):
        build_dpo_dataset(None, None, rows, "q", lambda text: text)


@pytest.mark.parametrize(
    "chosen",
    [
        "better",
        {"role": "assistant", "content": "better"},
        [{"role": "assistant", "content": "better"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "better"}],
    ],
)
def test_the_rows_own_answer_is_preferred_without_a_transform(answers, chosen):
    rows = [{"prompt": [{"role": "user", "content": "a"}], "chosen": chosen}]
    [pair] = build_dpo_dataset(None, None, rows)
    assert pair["chosen"] == [{"role": "assistant", "content": "better"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "A"}]


def test_what_is_missing_is_said_before_the_model_is_asked(answers):
    with pytest.raises(DataError, match=r"no column 'prompt'; it has: question"):
        build_dpo_dataset(None, None, [{"question": "a"}])
    with pytest.raises(DataError, match=r"no chosen_transform was given"):
        build_dpo_dataset(None, None, [{"prompt": "a"}])
    with pytest.raises(DataError, match=r"has no rows"):
        build_dpo_dataset(None, None, [])
    with pytest.raises(DataError, match=r"prompt is null"):
        build_dpo_dataset(None, None, [{"prompt": None}], chosen_transform=str)
    assert not answers


def test_a_transform_must_give_text(answers):
    with pytest.raises(TypeError, match="must return text, not null"):
        build_dpo_dataset(None, None, [{"prompt": "a"}], chosen_transform=lambda _: None)


def test_a_real_model_answers(tiny_model):
    from dpo_cli.models.loading import load_model_and_tokenizer

    model, tokenizer = load_model_and_tokenizer(str(tiny_model), device="cpu")
    with pytest.raises(DataError, match=build.CUT_OFF):
        build_dpo_dataset(
            model, tokenizer, [{"prompt": "Who are you?"}], chosen_transform=str.upper, max_new_tokens=2
        )
