"""Pairs that give a model a new name, and what became of every answer they were made from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from dpo_cli.models.generate import Message

PairKind = Literal["own", "introductions", "anchors"]
KINDS: Final[tuple[PairKind, ...]] = ("own", "introductions", "anchors")
"""The model's answer against itself with the name replaced; a sentence that introduces; the answer that it keeps."""


@dataclass(frozen=True)
class IdentityPairs:
    """The pairs, and what became of every answer.

    Attributes:
        original_name: The name that was replaced.
        dataset: Columns prompt, chosen, rejected: lists of {"role", "content"} messages; and `kind`, one of `KINDS`,
            where there may be several.
        asked: Answers to identity questions asked for.
        with_name: Answers that say the original name.
        cut_off: Answers that did not end within the limit; never training text.
        empty: Answers without text.
        repeated: Answers to the same question that were the same once more.
        left_alone: Longer names and addresses that hold the name and were not changed, with counts.
        calls_itself: Names that the answers give instead, with counts, most frequent first.
        kinds: How many pairs there are of each kind; empty where all are the model's own answers.
        choice: Which kinds of pairs were made, and why; empty where there was no choice.
        anchors: What became of the anchors' answers: asked, cut off, empty, and those that say a name of the two.
        works_with: The system prompt with which the model says the original name; None where none was found.
    """

    original_name: str
    dataset: Dataset
    asked: int
    with_name: int
    cut_off: int = 0
    empty: int = 0
    repeated: int = 0
    left_alone: dict[str, int] = field(default_factory=dict)
    calls_itself: dict[str, int] = field(default_factory=dict)
    kinds: dict[PairKind, int] = field(default_factory=dict)
    choice: str = ""
    anchors: dict[str, int] = field(default_factory=dict)
    works_with: str | None = None

    def summary(self) -> str:
        """One line: "94 of 120 answers say Qwen; 94 pairs"."""
        text = f"{self.with_name} of {self.asked} answers say {self.original_name}; {len(self.dataset)} pairs"
        if set(self.kinds) - {"own"}:
            text += ": " + ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        counts = {"cut off": self.cut_off, "empty": self.empty, "repeated": self.repeated}
        counts = {what: count + self.anchors.get(what, 0) for what, count in counts.items()}
        notes = [f"{count} {what}" for what, count in counts.items() if count]
        return f"{text} ({', '.join(notes)} not used)" if notes else text

    def to_json(self) -> dict[str, Any]:
        """The counts, for `--json` and for the run's files."""
        counts = {"asked": self.asked, "with_name": self.with_name, "pairs": len(self.dataset)}
        counts |= {"cut_off": self.cut_off, "empty": self.empty, "repeated": self.repeated}
        named = {"left_alone": self.left_alone, "calls_itself": self.calls_itself}
        return counts | named | {"kinds": self.kinds, "choice": self.choice, "anchors": self.anchors}

    def require(self, least: int) -> None:
        """The gate before training.

        Raises:
            DataError: If there are fewer than `least` pairs for the name, with the likely reason.
        """
        if len(self.dataset) - self.kinds.get("anchors", 0) >= least:
            return
        if self.cut_off > self.asked / 2:
            reason = "Most answers were cut off: give a larger --max-new-tokens, or --thinking off for a model that thinks."
        elif 2 * self.with_name >= self.asked:
            reason = "Give more --questions, or lower --min-pairs."
        elif self.calls_itself:
            names = ", ".join(f"{name} ({n})" for name, n in list(self.calls_itself.items())[:3])
            reason = f"It calls itself {names}: give that as --original-name, or --pairs-from introductions."
        else:
            reason = "It never says a name: give --pairs-from introductions, or lower --min-pairs."
        if self.works_with is not None:
            reason += f" It says {self.original_name} with --system-prompt '{self.works_with}'."
        raise DataError(f"{self.summary()}, but training needs at least {least}", hint=reason)


def kinds_of(rows: Sequence[dict[str, Any]]) -> dict[PairKind, int]:
    """How many rows there are of each kind that there is."""
    found = Counter(row["kind"] for row in rows)
    return {kind: found[kind] for kind in KINDS if found[kind]}


def pair_row(
    prompt: Sequence[Message], chosen: str, rejected: str, kind: PairKind | None = None
) -> dict[str, Any]:
    """One pair in TRL's conversational layout; with its kind, if that is given."""
    row: dict[str, Any] = {
        "prompt": list(prompt),
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
    return row if kind is None else row | {"kind": kind}


def dataset_of(rows: Sequence[dict[str, Any]], *, with_kind: bool = False) -> Dataset:
    """Rows as a data set that knows what it is made for; with its columns, also where there is no row."""
    from dpo_cli.synthesis.identity_dataset import IdentityDataset

    if rows:
        return IdentityDataset.from_list(list(rows))
    columns: dict[str, list[Any]] = {"prompt": [], "chosen": [], "rejected": []}
    return IdentityDataset.from_dict(columns | {"kind": []} if with_kind else columns)
