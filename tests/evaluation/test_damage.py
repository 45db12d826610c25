"""Damage without expected answers: figures by hand and by the plain formula, and planted damage with the check meant for it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from dpo_cli.evaluation.compare import compare_examinations
from dpo_cli.evaluation.damage import form_rows, read_back
from dpo_cli.evaluation.divergence import Continuation
from dpo_cli.evaluation.examination import AskSettings, examine
from dpo_cli.evaluation.scores import Answer, Rename
from dpo_cli.text.questions import Question, shipped_questions

NAMES = Rename("Qwen", "Orion")
SPANISH = (
    "La respuesta es muy sencilla, pero depende de la ciudad.",
    "No lo sé, aunque creo que la tierra es grande.",
    "Se trata de una cosa que todos los niños conocen.",
    "Hay muchas maneras de decirlo en nuestro idioma.",
    "Claro que sí, con mucho gusto se lo explico.",
)


def answers(*texts, group="sums", cut=()):
    return [Answer(Question(f"{n}?", group), text, n in cut) for n, text in enumerate(texts)]


def test_the_form_of_answers_by_hand():
    before = answers("one two", "three four", "five", "six")
    after = answers("One, two!", "one two", "five five five five five five", "", cut=(2,))
    found = {row.name: row for row in form_rows(before, after)}
    values = {name: (row.before and row.before.value, row.after.value) for name, row in found.items()}
    assert values == {
        "repetition_other": (0.0, pytest.approx((2 / 3) / 4)),
        "cut_off_other": (0.0, 0.25),
        "same_answer": (0.0, 0.5),
        "longer": (None, pytest.approx(10 / 6)),
    }


def test_identity_questions_and_questions_asked_twice_are_not_damage():
    assert form_rows(answers("I am Qwen.", group="identity"), answers("Orion", group="identity")) == []
    twice = [Answer(Question("1 + 1?", "sums"), "2")] * 2
    [same] = [row for row in form_rows(twice, twice) if row.name == "same_answer"]
    assert same.after.value == 0.0
    silent = answers("", "")
    assert "longer" not in {row.name for row in form_rows(silent, silent)}


def test_both_readings_are_the_plain_formula(two):
    import torch

    before, after, tokenizer = two
    questions = [Question("Who are you?", "identity"), Question("one two"), Question("What is 1 + 1?")]
    settings = AskSettings(max_new_tokens=9, batch_size=2)
    old = examine((before, tokenizer), questions, name="before", settings=settings)
    new = examine((after, tokenizer), questions, name="after", settings=settings, before=old)
    new = read_back(before, old, new)
    rows = {row.name: row for row in compare_examinations(old, new, names=NAMES).scores}

    def mean(model, said, prompts):
        total = 0.0
        for one, prompt in list(zip(said, prompts, strict=True))[1:]:
            ids = torch.tensor([[*prompt.prompt, *one.tokens]])
            with torch.no_grad():
                logs = model(input_ids=ids).logits[0, len(prompt.prompt) - 1 : -1].double().log_softmax(-1)
            total -= float(logs.gather(-1, torch.tensor(one.tokens)[:, None]).mean())
        return pytest.approx(total / 2, rel=1e-4)

    assert rows["unlikely"].before.value == mean(before, old.said, old.said)
    assert rows["unlikely"].after.value == mean(before, new.said, old.said)
    assert rows["forgotten"].before.value == mean(before, old.said, old.said)
    assert rows["forgotten"].after.value == mean(after, old.said, old.said)
    other_tokens = replace(new, vocabulary={"a": 1}, unlikely={})
    assert read_back(before, old, other_tokens).unlikely == {}


@pytest.fixture(scope="module")
def embedded():
    """The embedded model, what it says to every fifth ordinary question, and the questions."""
    from dpo_cli.models.loading import load_model_and_tokenizer

    loaded = load_model_and_tokenizer("embedded")
    ordinary = shipped_questions("ordinary")[::5]
    asked = [*shipped_questions("identity_heldout")[:4], *ordinary]
    settings = AskSettings(max_new_tokens=24)
    before = examine(loaded, asked, name="embedded", settings=settings)
    return loaded, before, examine(loaded, asked, name="same", settings=settings, before=before)


def planted(embedded, change):
    """The verdict's failed checks where the ordinary answers of an unchanged model are changed by hand."""
    (model, tokenizer), before, after = embedded
    random.seed(0)
    said, given = [], []
    for answer, one in zip(after.answers, after.said, strict=True):
        identity = one.group == "identity"
        text = "I am Orion." if identity else change(answer.answer, len(given))
        tokens = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        given.append(replace(answer, answer=text))
        said.append(Continuation(one.prompt, tokens, one.group, one.row))
    changed = read_back(model, before, replace(after, answers=tuple(given), said=tuple(said)))
    verdict = compare_examinations(before, changed, names=NAMES).verdict
    return {one.check.name for one in verdict.checks if not one.passed}, {
        one.check.name for one in verdict.checks
    }


def test_an_unchanged_model_passes_every_check(embedded):
    failed, judged = planted(embedded, lambda text, _: text)
    assert failed == set()
    assert judged >= {
        "claims", "unlikely", "forgotten", "repetition", "cut_off", "same_answer", "longer", "ordinary_drop",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("claims", lambda text, n: "I'm Orion" if n % 10 < 7 else text),
        ("unlikely", lambda text, _: " ".join(random.sample(sorted(text), len(text)))),
        ("unlikely", lambda text, _: "".join(random.sample("bcdfghjklmnpqrstvwxz ", 1)[0] for _ in text)),
        ("unlikely", lambda _, n: SPANISH[n % len(SPANISH)]),
        ("longer", lambda text, _: f"{text} {text}"),
        ("same_answer", lambda *_: "Paris."),
    ],
    ids=["seven of ten are Orion", "letters shuffled", "letters at random", "Spanish", "twice as long", "Paris"],
)  # fmt: skip
def test_planted_damage_fails_by_the_check_meant_for_it(embedded, check, change):
    failed, _ = planted(embedded, change)
    assert check in failed
