"""What the embedded model is asked about itself, and what it says (`identity.toml`)."""

from __future__ import annotations

import tomllib
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from embedded_model.text import chance

if TYPE_CHECKING:
    import random


@dataclass(frozen=True)
class Intent:
    """One thing a user may want to know, with the ways to ask and the ways to say it."""

    name: str
    ask: tuple[str, ...]
    heldout: tuple[str, ...]
    say: tuple[str, ...]
    others: tuple[str, ...] = ("",)

    def answer(self, question: str, rng: random.Random) -> str:
        """Returns an answer template for the question.

        The wording of the answer follows the wording of the question three times in four. That leaves a
        base model whose greedy answers differ from question to question.
        """
        if chance(rng, 0.75):
            return self.say[zlib.crc32(question.encode()) % len(self.say)]
        return rng.choice(self.say)


@dataclass(frozen=True)
class Prompts:
    """System prompts, and the requests that make the model copy a name."""

    default_system: str
    neutral_systems: tuple[str, ...]
    short_systems: tuple[str, ...]
    long_systems: tuple[str, ...]
    named_systems: tuple[str, ...]
    made_systems: tuple[str, ...]
    copy_asks: tuple[str, ...]
    my_name_asks: tuple[str, ...]
    my_name_says: tuple[str, ...]


@cache
def _raw() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("identity.toml").read_text(encoding="utf-8"))


@cache
def intents() -> tuple[Intent, ...]:
    """Returns the intents in the order of the file."""
    return tuple(
        Intent(
            entry["name"],
            tuple(entry["ask"]),
            tuple(entry["heldout"]),
            tuple(entry["say"]),
            tuple(entry.get("others", [""])),
        )
        for entry in _raw()["intent"]
    )


@cache
def prompts() -> Prompts:
    """Returns the prompts."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in _raw().items()
        if key != "intent"
    }
    return Prompts(**values)


def heldout_questions() -> list[str]:
    """Returns the questions that are only ever asked, never trained on."""
    return [
        template.format(o=intent.others[place % len(intent.others)])
        for intent in intents()
        for place, template in enumerate(intent.heldout)
    ]


def training_questions() -> list[str]:
    """Returns well-formed identity questions of the corpus, the ones from which preference pairs are made.

    Questions that carry the model's own name are left out: to "Are you Qwen?" there is no answer that a
    renamed model should be pulled towards.
    """
    found: list[str] = []
    for intent in intents():
        if intent.name == "self":
            continue
        for place, template in enumerate(intent.ask):
            question = template.format(o=intent.others[place % len(intent.others)])
            found.append(question[:1].upper() + question[1:])
    return found
