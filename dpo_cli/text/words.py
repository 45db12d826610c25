"""Words of a text, and how much it repeats itself: for scores and for alarms alike."""

from __future__ import annotations

import re

# Thai, Lao, kana and Han are written without spaces: each of their characters counts as a word.
_WORD = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def repetition(text: str, size: int = 4) -> float:
    """Share of a text's runs of `size` words that it has said before, in [0, 1].

    seq-rep-n of Welleck et al. (2019), "Neural text generation with unlikelihood training", section 6.1:
    1 - |distinct n-grams| / |n-grams|; 0 for texts shorter than n.
    """
    said = words(text)
    runs = [tuple(said[place : place + size]) for place in range(len(said) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
