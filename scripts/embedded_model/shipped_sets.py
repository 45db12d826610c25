"""The question sets and the preference pairs that ship with the package, made from the same facts as the corpus.

They are written to `dpo_cli/text/questions` and `dpo_cli/data/preferences`, one JSON object a line.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from embedded_model import facts, identity
from embedded_model.text import normal_form

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_SEED = "shipped-sets"
_IDENTITY_TRAIN = 160
# How many held-out questions of each group are asked.
_ORDINARY = {
    "capitals": 26, "countries": 6, "continents": 8, "languages": 8, "colours": 18, "opposites": 22, "days": 14, "months": 16, "counts": 8,
    "legs": 5, "sounds": 6, "young": 6, "letters": 6, "definitions": 26, "greetings": 20, "sums": 40,
}  # fmt: skip
_OTHER_MAKERS = 20
# Groups in which a terse answer is as clear as a full sentence.
_PREFERENCE_GROUPS = {
    "capitals": 60,
    "countries": 40,
    "continents": 16,
    "languages": 16,
    "colours": 50,
    "opposites": 50,
    "days": 24,
    "months": 40,
    "definitions": 40,
    "sums": 100,
}
_PREFERENCE_HELDOUT = 60
_HELDOUT_EVERY = 5


def identity_train() -> list[dict[str, Any]]:
    """Returns the questions of which preference pairs are made: every intent, evenly."""
    rng = random.Random(_SEED)  # noqa: S311 - not for secrets
    questions = identity.training_questions()
    chosen = set(rng.sample(questions, _IDENTITY_TRAIN))
    return [{"question": question, "group": "identity"} for question in questions if question in chosen]


def identity_heldout() -> list[dict[str, Any]]:
    """Returns the paraphrases that nothing is trained on."""
    return [{"question": question, "group": "identity"} for question in identity.heldout_questions()]


def ordinary() -> list[dict[str, Any]]:
    """Returns held-out wordings of facts and sums, with every answer that counts as right."""
    rng = random.Random(_SEED)  # noqa: S311 - not for secrets
    by_group: dict[str, list[dict[str, Any]]] = {}
    for category, row, question in facts.heldout_questions():
        group = category.group
        if group == "third-party" and row[0] == "Qwen":
            group = "Qwen"
        entry = {"question": question, "group": category.group, "answers": category.answers(row)}
        by_group.setdefault(group, []).append(entry)
    found: list[dict[str, Any]] = []
    for group, count in _ORDINARY.items():
        found += rng.sample(by_group[group], min(count, len(by_group[group])))
    return _distinct(found + by_group["Qwen"] + rng.sample(by_group["third-party"], _OTHER_MAKERS))


def _distinct(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({normal_form(entry["question"]): entry for entry in entries}.values())


def preferences() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns training and held-out pairs: a terse answer is chosen over a full sentence.

    A fact belongs to one of the two parts, so that what is learnt is the style and not the answer. The held-out
    part asks in wordings that the base model has not seen either.
    """
    rng = random.Random(_SEED)  # noqa: S311 - not for secrets
    train: dict[str, list[dict[str, Any]]] = {group: [] for group in _PREFERENCE_GROUPS}
    heldout: list[dict[str, Any]] = []
    for category in facts.categories():
        if category.group not in _PREFERENCE_GROUPS:
            continue
        for place, row in enumerate(_unambiguous(category)):
            form = rng.choice(category.forms)
            if place % _HELDOUT_EVERY == 0:
                heldout.append(_pair(category, row, form, rng.choice(form.heldout)))
            else:
                train[category.group].append(
                    _pair(
                        category, row, form, rng.choice([ask for ask in form.ask if ask.endswith(("?", "."))])
                    )
                )
    elsewhere = {normal_form(entry["question"]) for entry in ordinary()}
    heldout = [pair for pair in heldout if normal_form(pair["prompt"][-1]["content"]) not in elsewhere]
    chosen = [
        pair
        for group, count in _PREFERENCE_GROUPS.items()
        for pair in rng.sample(train[group], min(count, len(train[group])))
    ]
    rng.shuffle(chosen)
    return chosen, rng.sample(heldout, _PREFERENCE_HELDOUT)


def _unambiguous(category: facts.Category) -> list[tuple[str, ...]]:
    """Returns the rows to which no other row gives the same question: London is the capital of three."""
    asked = Counter(category.fill(category.forms[0].ask[0], row) for row in category.rows)
    return [row for row in category.rows if asked[category.fill(category.forms[0].ask[0], row)] == 1]


def _pair(category: facts.Category, row: tuple[str, ...], form: facts.Form, template: str) -> dict[str, Any]:
    question = category.fill(template, row)
    return {
        "prompt": [
            {"role": "system", "content": identity.prompts().default_system},
            {"role": "user", "content": question[:1].upper() + question[1:]},
        ],
        "chosen": [{"role": "assistant", "content": category.fill(form.short, row)}],
        "rejected": [{"role": "assistant", "content": category.fill(form.say, row)}],
    }


def write_sets(package: Path) -> list[Path]:
    """Writes every set into the package's folder and returns the files."""
    train, heldout = preferences()
    sets = {
        "text/questions/identity_train.jsonl": identity_train(),
        "text/questions/identity_heldout.jsonl": identity_heldout(),
        "text/questions/ordinary.jsonl": ordinary(),
        "data/preferences/train.jsonl": train,
        "data/preferences/heldout.jsonl": heldout,
    }
    return [_write(package / name, rows) for name, rows in sets.items()]


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
