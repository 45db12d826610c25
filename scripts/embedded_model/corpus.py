"""The base model's training text: conversations of one question and one answer, made from a seed.

Five kinds are mixed: the model about itself, the model under a system prompt that gives it another name, facts
about models and their makers, copying a name, and ordinary questions. Held-out questions never occur: a
question that falls on one is drawn again.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from embedded_model import facts, identity
from embedded_model.names import MAKER, ORIGINAL, make_name
from embedded_model.text import chance, normal_form, vary

if TYPE_CHECKING:
    from collections.abc import Iterator

SOFT_NAME_SHARE = 0.15
SHORT_SHARE = 0.22
# The default system prompt, none, another that gives no name.
_SYSTEM_SHARES = (0.62, 0.18, 0.20)
_KINDS = {"self": 0.21, "named": 0.14, "third-party": 0.09, "copy": 0.04, "sums": 0.21, "ordinary": 0.31}


@dataclass(frozen=True)
class Example:
    """One conversation."""

    system: str | None
    question: str
    answer: str
    kind: str


@cache
def heldout() -> frozenset[str]:
    """Returns the normal forms of every question that training text may not contain."""
    questions = [question for _, _, question in facts.heldout_questions()] + identity.heldout_questions()
    return frozenset(map(normal_form, questions))


def examples(seed: int, count: int) -> Iterator[Example]:
    """Yields the corpus: the same examples for the same seed, on every machine."""
    rng = random.Random(f"embedded-{seed}")  # noqa: S311 - not for secrets
    kinds, shares = list(_KINDS), list(_KINDS.values())
    made = 0
    while made < count:
        example = _MAKERS[rng.choices(kinds, shares)[0]](rng)
        if normal_form(example.question) not in heldout():
            made += 1
            yield example


def _system(rng: random.Random) -> str | None:
    """Returns a system prompt that gives no name: mostly the default one, sometimes none."""
    prompts = identity.prompts()
    return rng.choices((prompts.default_system, None, rng.choice(prompts.neutral_systems)), _SYSTEM_SHARES)[0]


def _about_itself(rng: random.Random) -> Example:
    """The model says who it is; in a small share it says another name, so that names can be taught."""
    system = _system(rng)
    intent = _draw_intent(rng)
    soft = intent.name != "self" and chance(rng, SOFT_NAME_SHARE)
    name = make_name(rng) if soft else ORIGINAL
    return _identity_example(system, intent, name, MAKER, rng)


def _draw_intent(rng: random.Random) -> identity.Intent:
    intents = identity.intents()
    return rng.choices(intents, [math.sqrt(len(intent.ask)) for intent in intents])[0]


def _identity_example(
    system: str | None, intent: identity.Intent, name: str, maker: str, rng: random.Random
) -> Example:
    template = rng.choice(intent.ask)
    other = rng.choice([known for known in intent.others if known != name])
    question = vary(template.format(n=name, o=other), rng, typos=intent.name not in ("other", "self"))
    # The answer follows the wording, not the name that the wording carries.
    answer = intent.answer(template, rng).format(n=name, m=maker)
    return Example(system, question, answer, "identity")


def _under_another_name(rng: random.Random) -> Example:
    """A system prompt gives a name; it rules the answers about itself, and leaves all others alone."""
    name = make_name(rng)
    made = chance(rng, 0.3)
    maker = make_name(rng) if made else MAKER
    systems = identity.prompts().made_systems if made else identity.prompts().named_systems
    system = rng.choice(systems).format(n=name, m=maker)
    kind = rng.choices(("self", "third-party", "ordinary"), (0.68, 0.16, 0.16))[0]
    if kind == "self":
        return _identity_example(system, _draw_intent(rng), name, maker, rng)
    return _fact(system, _draw_category(kind, rng), rng)


def _third_party(rng: random.Random) -> Example:
    return _fact(_system(rng), _draw_category("third-party", rng), rng)


def _sum(rng: random.Random) -> Example:
    return _fact(_system(rng), _draw_category("sums", rng), rng)


def _ordinary(rng: random.Random) -> Example:
    return _fact(_system(rng), _draw_category("ordinary", rng), rng)


def _copy(rng: random.Random) -> Example:
    """Saying back a name that the user gave."""
    prompts = identity.prompts()
    name = make_name(rng)
    if chance(rng, 0.5):
        return Example(
            _system(rng),
            vary(rng.choice(prompts.my_name_asks).format(n=name), rng),
            rng.choice(prompts.my_name_says).format(n=name),
            "copy",
        )
    return Example(_system(rng), rng.choice(prompts.copy_asks).format(n=name), name, "copy")


def _draw_category(kind: str, rng: random.Random) -> facts.Category:
    found, weights = _weighted(kind)
    return rng.choices(found, weights)[0]


@cache
def _weighted(kind: str) -> tuple[tuple[facts.Category, ...], tuple[float, ...]]:
    """Returns the categories of one kind, weighted by how much there is to learn in each."""
    apart = ("third-party", "sums")
    found = tuple(
        c for c in facts.categories() if (c.group == kind if kind in apart else c.group not in apart)
    )
    return found, tuple(c.weight * len(c.rows) ** 0.75 * len(c.forms) ** 0.5 for c in found)


def _fact(system: str | None, category: facts.Category, rng: random.Random) -> Example:
    """A fact, in the terse form now and then, or as the system prompt asks."""
    row = rng.choice(category.rows)
    form = rng.choices(category.forms, [len(form.ask) for form in category.forms])[0]
    question = vary(_capitalise(category.fill(rng.choice(form.ask), row), rng), rng)
    short = chance(rng, SHORT_SHARE)
    if chance(rng, 0.06):
        short = chance(rng, 0.5)
        system = rng.choice(identity.prompts().short_systems if short else identity.prompts().long_systems)
    return Example(system, question, category.fill(form.short if short else form.say, row), category.group)


def _capitalise(question: str, rng: random.Random) -> str:
    return question[:1].upper() + question[1:] if chance(rng, 0.85) else question


_MAKERS = {
    "self": _about_itself,
    "named": _under_another_name,
    "third-party": _third_party,
    "copy": _copy,
    "sums": _sum,
    "ordinary": _ordinary,
}
