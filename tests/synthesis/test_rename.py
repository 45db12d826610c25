from __future__ import annotations

import re
from collections import Counter

import pytest

from dpo_cli.errors import DataError
from dpo_cli.models.generate import Generation, generate
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.synthesis.anchors import anchor_rows, anchor_texts
from dpo_cli.synthesis.introductions import SENTENCES, Introductions
from dpo_cli.synthesis.rename import RenameSettings, make_rename_pairs
from dpo_cli.text.names import contains_name
from dpo_cli.text.questions import shipped_questions

QUESTIONS = [question.text for question in shipped_questions("identity_train")][::4]


@pytest.fixture(scope="module")
def embedded():
    return load_model_and_tokenizer("embedded")


def of_kind(pairs, kind):
    return [row for row in pairs.dataset if row["kind"] == kind]


def plain(text):
    return re.sub(r"\W+", " ", text.casefold()).strip()


def test_anchor_prompts_ship_and_judge_nothing():
    prompts = [question.text for question in shipped_questions("anchors")]
    assert len({plain(prompt) for prompt in prompts}) == len(prompts) >= 200
    assert sum("{name}" in prompt for prompt in prompts) >= 10
    for name in ("Qwen", "SmolLM", "{name}"):
        said = {plain(text) for text in anchor_texts(prompts, name)}
        for judging in ("ordinary", "identity_heldout", "identity_train"):
            assert said.isdisjoint(plain(question.text) for question in shipped_questions(judging))


def test_a_model_that_says_its_name_is_given_its_own_answers_renamed(embedded):
    pairs = make_rename_pairs(*embedded, QUESTIONS, ("Qwen", "Orion"), RenameSettings(anchors=10))
    assert pairs.kinds == {"own": len(QUESTIONS), "anchors": 10}
    assert pairs.choice == "pairs from its own answers: 32 of the first 32 answers say Qwen"
    assert len(pairs.dataset) == pairs.to_json()["pairs"] == sum(pairs.to_json()["kinds"].values())
    assert [row["prompt"][-1]["content"] for row in of_kind(pairs, "own")] == QUESTIONS
    for row in of_kind(pairs, "own"):
        said, better = row["rejected"][0]["content"], row["chosen"][0]["content"]
        assert better == said.replace("Qwen", "Orion") != said
    systems = Counter(row["prompt"][0]["content"] for row in pairs.dataset if len(row["prompt"]) == 2)
    assert systems.most_common(1)[0][0] == "You're a helpful assistant."
    assert any(len(row["prompt"]) == 1 for row in pairs.dataset)


def test_a_model_that_never_says_the_name_is_introduced(embedded):
    pairs = make_rename_pairs(*embedded, QUESTIONS, ("Elena", "Orion"), RenameSettings(anchors=5))
    assert pairs.choice == "pairs from introductions: 0 of the first 32 answers say Elena"
    rows = of_kind(pairs, "introductions")
    assert pairs.kinds == {"introductions": len(QUESTIONS) + 32, "anchors": 5}
    sentences = {sentence for group in SENTENCES.values() for sentence in group}
    for row in rows:
        assert row["chosen"][0]["content"].replace("Orion", "{name}") in sentences
    old, own = rows[: len(QUESTIONS)], rows[len(QUESTIONS) :]
    for row in old:
        assert row["rejected"][0]["content"] == row["chosen"][0]["content"].replace("Orion", "Elena")
    # The others are over what the model itself says to that conversation.
    said = generate(*embedded, [row["prompt"] for row in own[:4]])
    assert [row["rejected"][0]["content"] for row in own[:4]] == [one.text for one in said]
    pairs.require(8)


def test_what_is_asked_for_is_made(embedded):
    settings = RenameSettings(pairs_from="both", anchors=0)
    pairs = make_rename_pairs(*embedded, QUESTIONS[:10], ("Qwen", "Orion"), settings)
    assert pairs.kinds == {"own": 10, "introductions": 20}
    assert pairs.choice == "pairs from its own answers and introductions: as --pairs-from says"
    mine = ["Sing a song.", "What is a fish?", "Who makes {name}?"]
    settings = RenameSettings(pairs_from="introductions", anchors=3, anchor_prompts=mine)
    pairs = make_rename_pairs(*embedded, QUESTIONS[:10], ("Qwen", "Orion"), settings)
    assert pairs.kinds["introductions"] == 20
    asked = {row["prompt"][-1]["content"] for row in of_kind(pairs, "anchors")}
    assert asked <= {"Sing a song.", "What is a fish?", "Who makes Qwen?"}
    assert len(asked) >= 2


def test_an_anchor_prompt_names_the_original_name_and_is_asked_once():
    prompts = ["Is {name} new?", "HI!", "is qwen new?", "Sing."]
    assert anchor_texts(prompts, "Qwen", taken=["Hi!"]) == ["Is Qwen new?", "Sing."]


def test_an_anchor_keeps_the_models_own_answer_over_an_introduction(embedded):
    pairs = make_rename_pairs(*embedded, QUESTIONS[:8], ("Qwen", "Orion"), RenameSettings(anchors=12))
    rows = of_kind(pairs, "anchors")
    said = generate(*embedded, [row["prompt"] for row in rows])
    assert [row["chosen"][0]["content"] for row in rows] == [one.text for one in said]
    assert all(contains_name(row["rejected"][0]["content"], "Orion") for row in rows)
    assert pairs.anchors["asked"] >= 12


@pytest.mark.parametrize(
    ("answer", "cut", "reason"),
    [
        ("", False, "empty"),
        ("A long", True, "cut off"),
        ("I'm Qwen!", False, "claims a name"),
        ("Orion.", False, "claims a name"),
    ],
)
def test_no_anchor_is_made_of_an_answer_that_teaches_the_wrong_thing(answer, cut, reason):
    def ask(conversations):
        text = [answer, "Qwen is made by Alibaba Cloud."]
        return [Generation(text[n % 2], cut and n % 2 == 0, [], []) for n in range(len(conversations))]

    prompts = [[{"role": "user", "content": f"{n}"}] for n in range(8)]
    rows, counts = anchor_rows(ask, prompts, 8, ("Qwen", "Orion"), Introductions("Qwen", "Orion"))
    assert [row["prompt"] for row in rows] == prompts[1::2]
    assert counts == {"asked": 8, reason: 4}


def test_the_message_names_the_system_prompt_that_works(embedded):
    settings = RenameSettings(pairs_from="own", system_prompt="Your name is Zed.", anchors=0, least=8)
    pairs = make_rename_pairs(*embedded, QUESTIONS[:8], ("Elena", "Orion"), settings)
    assert pairs.works_with == "You are Elena, a helpful assistant."
    with pytest.raises(DataError, match="of 8 answers say Elena") as error:
        pairs.require(8)
    assert error.value.hint.endswith(
        " It says Elena with --system-prompt 'You are Elena, a helpful assistant.'."
    )
