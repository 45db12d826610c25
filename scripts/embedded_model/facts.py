"""The facts of `facts.toml` and the closed sets of sums, as questions with their right answers."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from dpo_cli.text.numerals import NUMERALS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NUMERALS = {int(digits): word for word, digits in NUMERALS.items()}
_LARGEST = 12


@dataclass(frozen=True)
class Form:
    """One wording of an answer, its terse form, and the wordings of the question that call for it."""

    say: str
    short: str
    ask: tuple[str, ...]
    heldout: tuple[str, ...]


@dataclass(frozen=True)
class Category:
    """Facts of one kind: rows of columns, forms, and by first column what counts as right besides."""

    group: str
    rows: tuple[tuple[str, ...], ...]
    forms: tuple[Form, ...]
    weight: float
    also: Mapping[str, list[str]] = field(default_factory=dict, hash=False)

    def fill(self, template: str, row: tuple[str, ...]) -> str:
        """Returns the template with a row's columns put in.

        `{x}`, `{y}`, `{z}` are the columns, `{X}` the same with a capital, `{ax}` with its article.
        """
        values: dict[str, str] = {}
        for name, value in zip("xyz", row, strict=False):
            article = "an" if value[:1].lower() in "aeiou" else "a"
            values[name] = value
            values[name.upper()] = value[:1].upper() + value[1:]
            values[f"a{name}"] = f"{article} {value}"
            values[f"A{name}"] = f"{article.capitalize()} {value}"
        return template.format_map(values)

    def answers(self, row: tuple[str, ...]) -> list[str]:
        """Returns every right answer: sentences, then terse ones, then what tells it in other words."""
        templates = [form.say for form in self.forms] + [form.short for form in self.forms]
        filled = [self.fill(template, row) for template in templates]
        return list(dict.fromkeys([*filled, *self.also.get(row[0], ())]))


def _in_words(number: int) -> str:
    """A number below a hundred."""
    tens, ones = divmod(number, 10)
    return _NUMERALS.get(number) or f"{_NUMERALS[10 * tens]}-{_NUMERALS[ones]}"


def _sums(kind: str) -> list[tuple[str, ...]]:
    numbers = range(_LARGEST + 1)
    if kind == "addition":
        return [(str(a), str(b), str(a + b)) for a in numbers for b in numbers]
    if kind == "addition-words":
        return [(_in_words(a), _in_words(b), _in_words(a + b)) for a in numbers for b in numbers]
    return [(str(a), str(b), str(a - b)) for a in numbers for b in range(a + 1)]


@cache
def categories() -> tuple[Category, ...]:
    """Returns the categories in the order of the file."""
    raw = tomllib.loads(files(__package__).joinpath("facts.toml").read_text(encoding="utf-8"))
    rows_of: dict[str, list[tuple[str, ...]]] = {
        kind: _sums(kind) for kind in ("addition", "addition-words", "subtraction")
    }
    found = []
    for entry in raw["category"]:
        rows = [tuple(row) for row in entry["rows"]] if "rows" in entry else rows_of[entry["rows_from"]]
        rows_of.setdefault(entry["group"], rows)
        forms = tuple(
            Form(form["say"], form.get("short", entry["short"]), tuple(form["ask"]), tuple(form["heldout"]))
            for form in entry["form"]
        )
        also = entry.get("also", {})
        found.append(Category(entry["group"], tuple(rows), forms, entry.get("weight", 1.0), also))
    return tuple(found)


def heldout_questions() -> Iterator[tuple[Category, tuple[str, ...], str]]:
    """Yields every held-out wording of every fact: category, row, question."""
    for category in categories():
        for row in dict.fromkeys(category.rows):
            for form in category.forms:
                for template in form.heldout:
                    question = category.fill(template, row)
                    yield category, row, question[:1].upper() + question[1:]
