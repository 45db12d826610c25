from __future__ import annotations

from collections import Counter

import pytest

from dpo_cli.synthesis.introductions import SENTENCES, Introductions, asked_for
from dpo_cli.text.names import contains_name, doubled, leaks
from dpo_cli.text.questions import shipped_questions

NAMES = ("Orion", "Deep SmolLM", "Nandú-7", "小明", "Captain Blue Heron")


def test_there_are_many_and_each_says_the_name_and_no_other():
    sentences = [sentence for group in SENTENCES.values() for sentence in group]
    assert len(set(sentences)) >= 60
    for name in NAMES:
        for sentence in sentences:
            said = sentence.replace("{name}", name)
            assert contains_name(said, name)
            assert not doubled(said, "SmolLM", name)
            assert not leaks(said, "SmolLM", name)


@pytest.mark.parametrize(
    ("question", "what"),
    [
        ("State the name that you use", "name"),
        ("May I call you something?", "call"),
        ("Who is there", "who"),
        ("What exactly are you?", "what"),
        ("Are you a real person?", "human"),
        ("Which company built you?", "maker"),
        ("Which LLM is running here?", "model"),
        ("Are you Claude?", "other"),
        ("Is your name Alexa?", "other"),
        ("I\u2019d like you to introduce yourself.", "about"),
        ("Hello, who is this?", "greeting"),
        ("In one word: what is your name?", "word"),
        ("你是谁", "about"),
    ],
)
def test_the_sentence_fits_what_is_asked_for(question, what):
    assert asked_for(question) == what
    chosen, rejected = Introductions("SmolLM", "Orion").answer(question)
    assert chosen in {sentence.replace("{name}", "Orion") for sentence in SENTENCES[what]}
    assert rejected == chosen.replace("Orion", "SmolLM")


def test_a_question_that_says_a_name_is_answered_with_yes_under_that_name_only():
    introductions = Introductions("SmolLM", "Orion")
    chosen, rejected = introductions.answer("Are you Orion?")
    assert "Orion" in chosen
    assert "SmolLM" in rejected
    assert chosen.split()[0].rstrip(",") in {"Yes", "That's"}
    chosen, rejected = introductions.answer("Are you SmolLM?")
    assert chosen in {sentence.replace("{name}", "Orion") for sentence in SENTENCES["other"]}
    assert rejected.split()[0].rstrip(",") in {"Yes", "That's"}


def test_no_sentence_is_worn_out():
    introductions = Introductions("SmolLM", "Orion")
    questions = [question.text for question in shipped_questions("identity_train")]
    said = Counter(introductions.answer(question)[0] for question in questions)
    assert len(said) >= 60
    assert max(said.values()) <= 160 * 0.05
