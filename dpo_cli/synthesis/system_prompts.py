"""The system prompts that a model is asked with, as people use it: the default, none, the template's own, others.

A model that learnt its name under one system prompt may not say it under the next. Pairs and held-out questions are
therefore spread over several kinds of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final

from dpo_cli.models.templates import Chat, Refusal, render_chats
from dpo_cli.text.names import replace_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from dpo_cli.text.questions import Question

_MARK: Final = "\ue001"

IN_PAIRS: Final = (
    "You are a helpful assistant.",
    "You are a friendly AI assistant.",
    "Answer the user's questions.",
    "Be brief and polite.",
    "You are an expert who explains things in simple words.",
    "You are a helpful AI assistant. Answer truthfully.",
)
"""System prompts of some pairs, beside the usual ones."""
HELD_OUT: Final = (
    "You are a knowledgeable and honest assistant.",
    "Help the user as well as you can.",
    "You are a customer service agent.",
    "Respond clearly and concisely.",
)
"""System prompts that no pair has."""
_EVERY: Final = 3
"""Of the held-out questions every third is asked under the template's own and under other system prompts."""


@dataclass(frozen=True)
class SystemPrompts:
    """The system prompts that a model can be asked with.

    Attributes:
        default: The one of the settings; empty where that is none, or the chat template refuses it.
        own: What the chat template puts in where there is no system message; empty where that is nothing.
        renamed: `own` with the new name; empty where it does not say the old one.
        accepted: Whether the chat template takes a system message at all.
    """

    default: str
    own: str = ""
    renamed: str = ""
    accepted: bool = True

    def asked(self, count: int, *, spread: bool = True) -> list[str]:
        """System prompts under which a model is asked who it is: of four, three default and one none.

        Args:
            count: How many.
            spread: False asks with the default one alone.
        """
        kinds = ("", self.default, self.default, self.default) if spread else (self.default,)
        return list(islice(cycle(kinds), count))

    def spread_over(self, count: int) -> list[str]:
        """System prompts of so many pairs: of ten, four default, three none, one the template's own and two others.

        The template's own is taken in turn with the new name and as it is.
        """
        if not self.accepted:
            return [self.default] * count
        own = cycle([text for text in (self.renamed, self.own) if text] or [self.default])
        other = cycle(IN_PAIRS)
        kinds = islice(cycle("dndondtndo"), count)
        return [
            self.default if kind == "d" else "" if kind == "n" else next(own if kind == "t" else other)
            for kind in kinds
        ]

    def spread(self, questions: Sequence[Question]) -> list[Question]:
        """Held-out questions as they are asked: all with the default and with none, some with each other kind."""
        asked = list(questions)
        if not self.accepted:
            return asked
        if self.default:
            asked += [question.asked("none", "") for question in questions]
        part = questions[::_EVERY]
        if self.renamed:
            asked += [question.asked("renamed", self.renamed) for question in part]
        asked += [
            question.asked("other", prompt) for question, prompt in zip(part, cycle(HELD_OUT), strict=False)
        ]
        return asked


def system_prompts(
    tokenizer: PreTrainedTokenizerBase, default: str, original_name: str, new_name: str
) -> SystemPrompts:
    """Find out which system prompts a model can be asked with.

    Args:
        tokenizer: With a chat template.
        default: The system prompt of the settings; empty for none.
        original_name: The name that the template may say.
        new_name: The name to put there.

    Raises:
        ModelError: If there is no chat template, or it was stopped for its time or memory.
    """
    from dpo_cli.models.generate import accepted_system_prompt, conversation

    default = accepted_system_prompt(tokenizer, default)
    without, marked = render_chats(
        tokenizer, [Chat(conversation("a", prompt), add_generation_prompt=True) for prompt in ("", _MARK)]
    )
    if isinstance(without, Refusal) or isinstance(marked, Refusal) or _MARK not in marked:
        return SystemPrompts(default, accepted=False)
    own = _own(without, marked)
    renamed = replace_name(own, original_name, new_name)
    return SystemPrompts(default, own, renamed.text if renamed.count else "")


def _own(without: str, marked: str) -> str:
    """What stands in the text without a system message where the other one has the mark."""
    start, _, end = marked.partition(_MARK)
    if not (without.startswith(start) and without.endswith(end) and len(without) > len(start) + len(end)):
        return ""
    return without[len(start) : len(without) - len(end)].strip()
