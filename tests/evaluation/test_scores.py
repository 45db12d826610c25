"""Scores against cases computed by hand."""

import math

import pytest

from dpo_cli.evaluation.scores import (
    MEASURES,
    Answer,
    Rename,
    paired_row,
    score,
    score_answers,
    summarise,
)
from dpo_cli.rates import rate_interval
from dpo_cli.text.questions import Question
from dpo_cli.text.words import repetition

NAMES = Rename("Qwen", "Deep Qwen")


def said(*answers, group="identity", accepted=(), question="Who are you?"):
    return [Answer(Question(f"{question} {n}", group, accepted), text) for n, text in enumerate(answers)]


def rows(before, after, names=NAMES):
    return {row.name: row for row in score_answers(before, after, names)}


def test_the_identity_scorecard():
    before = said("I am Qwen.", "I am Qwen.", "I'm Qwen, by Alibaba.", "Hello.")
    after = said(
        "I am Deep Qwen.", "I am Deep Deep Qwen.", "I'm Qwen, by Alibaba.", "I am Deep Qwen, once Qwen."
    )
    found = rows(before, after)
    figures = {
        name: (found[name].before.value, found[name].after.value, found[name].difference.value)
        for name in ("new_name", "old_name", "doubled_name")
    }
    assert figures == {
        "new_name": (0.0, 0.75, 0.75),
        "old_name": (0.75, 0.5, -0.25),
        "doubled_name": (0.0, 0.25, 0.25),
    }
    assert found["new_name"].after.n == 4
    assert found["new_name"].after.interval == rate_interval(3, 4)
    assert found["unchanged"].after.value == 0.25
    assert "claims" not in found


def test_claims_count_only_where_the_question_does_not_say_the_name():
    asked = [
        Answer(Question("Define train.", "definitions"), "A train is Deep Qwen."),
        Answer(Question("Who makes Qwen?", "third-party"), "Deep Qwen is made by Alibaba."),
        Answer(Question("Who are you?", "identity"), "Deep Qwen."),
        Answer(Question("1 + 1?", "sums"), "2"),
    ]
    claims = next(measure for measure in MEASURES if measure.name == "claims")
    assert (score(claims, asked, NAMES).value, score(claims, asked, NAMES).n) == (0.5, 2)


def test_expected_answers_are_told_apart_from_facts_about_others():
    before = said("Paris.", "Rome.", group="capitals", accepted=("Paris.",)) + said(
        "Alibaba.", group="third-party", accepted=("Alibaba.",)
    )
    after = said("paris", "Paris", group="capitals", accepted=("Paris.",)) + said(
        "Deep.", group="third-party", accepted=("Alibaba.",)
    )
    found = rows(before, after)
    assert (found["right"].before.value, found["right"].after.value, found["right"].after.n) == (0.5, 1.0, 2)
    assert (found["third_party"].before.value, found["third_party"].after.value) == (1.0, 0.0)


def test_without_names_or_expected_answers_their_rows_are_left_out():
    found = rows(said("a b", group="questions"), said("a b", group="questions"), names=None)
    assert list(found) == ["repetition", "cut_off", "length", "unchanged"]


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a b c d", 0.0),
        ("a b", 0.0),
        ("", 0.0),
        ("a a a a a a", 1 - 1 / 3),
        ("I am I am I am", 1 - 2 / 3),
        ("one two three four five one two three four", 1 / 6),
        ("我我我我我", 0.5),
    ],
)
def test_repetition_is_the_share_of_runs_of_four_said_before(text, share):
    assert repetition(text) == pytest.approx(share)


def test_length_counts_words_and_cut_off_counts_answers():
    question = Question("x")
    before = [Answer(question, "one two three"), Answer(question, "four")]
    after = [Answer(question, "one", truncated=True), Answer(question, "it's 3.5 我们")]
    found = rows(before, after)
    assert (found["length"].before.value, found["length"].after.value) == (2.0, 3.5)
    assert (found["cut_off"].before.value, found["cut_off"].after.value) == (0.0, 0.5)


def test_a_model_against_itself_has_no_difference():
    answers = said("I am Qwen.", "Hi", "Qwen2.5 here") + said(
        "Paris.", "Rome", group="capitals", accepted=("Paris.",)
    )
    for row in score_answers(answers, answers, NAMES):
        if row.difference is not None:
            assert row.difference.value == 0
            assert row.difference.interval == (0.0, 0.0)
    assert rows(answers, answers)["unchanged"].after.value == 1.0


def test_answers_to_other_questions_cannot_be_compared():
    with pytest.raises(ValueError, match="same questions"):
        score_answers(said("a"), said("a", group="other"))


def test_figures_of_a_ruined_model_are_told_without_interval():
    assert math.isnan(summarise("x", "x", "none", "nats", [1.0, math.nan]).value)
    row = paired_row("x", "x", "none", "nats", ([1.0, 2.0], [1.0, math.inf]))
    assert (row.after.interval, row.difference.interval) == (None, None)
