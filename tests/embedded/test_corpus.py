"""The training text: the same from the same seed, and made as the card says."""

import hashlib
import random
from collections import Counter
from itertools import islice, pairwise

import pytest

from embedded_model import corpus, facts, identity
from embedded_model.names import ORIGINAL, make_name
from embedded_model.text import normal_form, vary

SHIPPED = "9a31bcd243b03b69"


def fingerprint(examples):
    return hashlib.sha256("\n".join(map(repr, examples)).encode()).hexdigest()[:16]


def test_the_corpus_of_the_shipped_seed_has_not_changed():
    assert fingerprint(islice(corpus.examples(0, 2000), 2000)) == SHIPPED


def test_another_seed_gives_another_corpus():
    assert fingerprint(corpus.examples(1, 200)) != fingerprint(corpus.examples(0, 200))


@pytest.fixture(scope="module")
def examples():
    return list(corpus.examples(0, 20_000))


def test_a_seventh_of_the_answers_about_itself_carry_another_name(examples):
    nameless = {None, identity.prompts().default_system, *identity.prompts().neutral_systems}
    own = [e for e in examples if e.kind == "identity" and e.system in nameless]
    other = [e for e in own if ORIGINAL not in e.answer]
    assert 0.11 < len(other) / len(own) < 0.17


def test_no_answer_about_itself_begins_with_a_name_or_says_it_twice(examples):
    openings = Counter(
        e.answer.split(" ", 1)[0] for e in examples if e.kind == "identity" and ORIGINAL in e.answer
    )
    assert ORIGINAL not in openings
    once = [
        e.answer.count(ORIGINAL)
        for e in examples
        if e.kind == "identity" and e.system is None and ORIGINAL in e.answer
    ]
    assert set(once) == {1}


def test_no_name_is_doubled():
    rng = random.Random(0)  # noqa: S311 - not for secrets
    for _ in range(20_000):
        words = make_name(rng).split()
        assert all(first != second for first, second in pairwise(words))


def test_every_fact_has_held_out_wordings_that_are_not_its_training_wordings():
    for category in facts.categories():
        for form in category.forms:
            assert not set(map(normal_form, form.ask)) & set(map(normal_form, form.heldout))
            assert form.heldout or category.group == "unknown"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What's your name?", "whats your name"),
        ("  WHAT\u2019S   your name ", "whats your name"),
        ("3 + 4", "3 + 4"),
        ("3+4 = ?", "3 + 4"),
        ("9 - 4", "9 - 4"),
        ("Zo\u00eb?", "zoe"),
    ],
)
def test_normal_form(question, expected):
    assert normal_form(question) == expected


def test_a_question_without_typos_keeps_its_words():
    rng = random.Random(1)  # noqa: S311 - not for secrets
    for _ in range(500):
        assert "capital of france" in vary("What is the capital of France?", rng).lower()
