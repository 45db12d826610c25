"""Anchors: ordinary prompts to which a model keeps its own answer, against one that brings in the new name.

They tell DPO itself where the name does not belong.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.synthesis.identity import names_given
from dpo_cli.synthesis.identity_pairs import pair_row
from dpo_cli.text.names import contains_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dpo_cli.models.generate import Generation, Message
    from dpo_cli.synthesis.introductions import Introductions

DEFAULT_ANCHORS: Final = {"own": 32, "introductions": 96, "both": 96}
"""Anchors that are made unless a number is given: a name replaced in an answer spreads less than a new sentence."""
_SPARE: Final = 1.25
"""More are asked at once than are needed, since some answers are cut off."""
_CLAIMS: Final = "claims a name"


def anchor_texts(prompts: Iterable[str], original_name: str, taken: Iterable[str] = ()) -> list[str]:
    """Prompts for anchors: {name} is the original name, and no prompt is one of those `taken`, nor comes twice."""
    seen = {text.casefold() for text in taken}
    texts = []
    for prompt in prompts:
        text = prompt.replace("{name}", original_name)
        if text.casefold() not in seen:
            seen.add(text.casefold())
            texts.append(text)
    return texts


def anchor_rows(
    ask: Callable[[Sequence[Sequence[Message]]], list[Generation]],
    conversations: Sequence[Sequence[Message]],
    count: int,
    names: tuple[str, str],
    introductions: Introductions,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Ask until there are enough anchors.

    Args:
        ask: Answers conversations.
        conversations: Ordinary prompts, in the order in which they are taken.
        count: Anchors wanted; fewer come back where the prompts do not suffice.
        names: The original name and the new one.
        introductions: Make the rejected answers.

    Returns:
        The pairs, and how many answers were asked for and could not be used, by reason.
    """
    rows: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    left = list(conversations)
    while left and len(rows) < count:
        size = int((count - len(rows)) * _SPARE) + 1
        now, left = left[:size], left[size:]
        for prompt, answer in zip(now, ask(now), strict=True):
            counts["asked"] += 1
            if reason := _unusable(answer, *names):
                counts[reason] += 1
            elif len(rows) < count:
                rows.append(pair_row(prompt, answer.text, introductions.any(names[1]), "anchors"))
    return rows, dict(counts)


def _unusable(answer: Generation, old: str, new: str) -> str:
    if answer.truncated:
        return "cut off"
    if not answer.text:
        return "empty"
    claims = contains_name(answer.text, new) or any(
        contains_name(name, old) for name in names_given([answer.text])
    )
    return _CLAIMS if claims else ""
