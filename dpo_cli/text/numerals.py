"""Numbers in words, and units under their several names."""

from __future__ import annotations

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

NUMERALS: dict[str, str] = {word: str(value) for value, word in enumerate(_ONES)} | {
    word: str(10 * value) for value, word in enumerate(_TENS, start=2)
}
"""English words for numbers up to twenty, and the tens, to their digits."""

_UNITS = (
    ("km", "kilometre", "kilometer"), ("m", "metre", "meter"), ("cm", "centimetre", "centimeter"), ("mm", "millimetre", "millimeter"),
    ("mi", "mile"), ("ft", "foot", "feet"), ("in", "inch", "inches"), ("kg", "kilogram", "kilo"), ("g", "gram"), ("lb", "pound"),
    ("l", "litre", "liter"), ("s", "second", "sec"), ("min", "minute"), ("h", "hour"), ("day",), ("week",), ("month",), ("year",),
    ("%", "percent"), ("c", "celsius"), ("f", "fahrenheit"), ("k", "kelvin"),
)  # fmt: skip
_UNIT = {name + ending: names[0] for names in _UNITS for name in names for ending in ("", "s")}


def same_unit(expected: str, said: str) -> bool:
    """Whether two words do not name different units; a word that is none says nothing."""
    return expected not in _UNIT or said not in _UNIT or _UNIT[expected] == _UNIT[said]
