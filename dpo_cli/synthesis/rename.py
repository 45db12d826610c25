"""Pairs that give any chat model a new name: of its own answers, of introductions, and anchors beside them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from dpo_cli.config import GenerationConfig
from dpo_cli.synthesis.anchors import DEFAULT_ANCHORS, anchor_rows, anchor_texts
from dpo_cli.synthesis.identity import counts_of, own_pairs
from dpo_cli.synthesis.identity_pairs import IdentityPairs, dataset_of, kinds_of, pair_row
from dpo_cli.synthesis.introductions import Introductions
from dpo_cli.synthesis.system_prompts import SystemPrompts, system_prompts
from dpo_cli.text.names import contains_name
from dpo_cli.text.questions import shipped_questions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.events import OnProgress
    from dpo_cli.models.generate import Generation, Message

PairsFrom = Literal["own", "introductions", "both"]

FIRST_ASKED: Final = 32
"""Questions that show whether the model says its name; the others are asked only if it does."""
_TRIED: Final = 8
"""Questions that are put to it under each system prompt that may make it say its name."""


@dataclass(frozen=True)
class RenameSettings:
    """How pairs for a new name are made.

    Attributes:
        system_prompt: The usual system prompt; empty for none. Others are used beside it.
        pairs_from: Kinds of pairs; None takes own answers where at least half say the name, else introductions.
        anchors: Number of anchors; None for the default number, see `DEFAULT_ANCHORS`.
        anchor_prompts: Prompts of the anchors, in which {name} is the original name; None for those that ship.
        max_new_tokens: Longest answer, in tokens.
        batch_size: Questions answered at once.
        samples_per_question: 1 takes the likeliest answer; more are sampled.
        temperature: Of the samples.
        answer_template: Stands in, with {name}, for an answer that does not say the name.
        seed: Of samples and sentences.
        least: Fewer pairs for the name than this are too few, see `IdentityPairs.require`.
        spread: Whether the model's own answers are asked for without a system prompt too, not with the usual one alone.
    """

    system_prompt: str = GenerationConfig.model_fields["system_prompt"].default
    pairs_from: PairsFrom | None = None
    anchors: int | None = None
    anchor_prompts: Sequence[str] | None = None
    max_new_tokens: int = 128
    batch_size: int = 32
    samples_per_question: int = 1
    temperature: float = 0.7
    answer_template: str | None = None
    seed: int = 42
    least: int = 1
    spread: bool = True


def build_rename_dataset(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    original_name: str,
    new_name: str,
    *,
    questions: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
    **how: Any,  # noqa: ANN401 - fields of RenameSettings
) -> Dataset:
    """Build the preference pairs with which any chat model takes a new name, as `dpo identity-shift` makes them.

    Args:
        model: The model that shall be renamed.
        tokenizer: Its tokenizer, with a chat template.
        original_name: The name that it gives up, whether it ever says it or not.
        new_name: The name that it takes.
        questions: What it is asked about itself; those that ship with dpo unless given.
        on_progress: Called with (done, all) of what is asked at once.
        **how: As the attributes of `RenameSettings`: pairs_from, anchors, anchor_prompts, system_prompt, ...

    Returns:
        Columns `prompt`, `chosen`, `rejected`, each a list of {"role", "content"} messages, and `kind`: "own",
        "introductions" or "anchors".

    Raises:
        DataError: If there are fewer than `least` pairs for the name.
        ModelError: If the tokenizer has no chat template.
        TypeError: If `how` has a name that is not one of `RenameSettings`.
    """
    settings = RenameSettings(**how)
    if questions is None:
        questions = [question.text for question in shipped_questions("identity_train")]
    pairs = make_rename_pairs(
        model, tokenizer, questions, (original_name, new_name), settings, on_progress=on_progress
    )
    pairs.require(settings.least)
    return pairs.dataset


def make_rename_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    names: tuple[str, str],
    settings: RenameSettings | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> IdentityPairs:
    """Ask a model who it is, make the pairs that it needs to take a new name, and account for every answer.

    Args:
        model: The model that shall be renamed.
        tokenizer: Its tokenizer, with a chat template.
        questions: What it is asked about itself.
        names: The name that it gives up, whether it ever says it or not, and the one that it takes.
        settings: How; the defaults unless given.
        on_progress: Called with (done, all) of what is asked at once.

    Raises:
        ModelError: If the tokenizer has no chat template.
    """
    settings = settings or RenameSettings()
    prompts = system_prompts(tokenizer, settings.system_prompt, *names)
    asking = _Asking(model, tokenizer, settings, on_progress)
    return _Job(asking, prompts, list(questions), *names, settings).pairs()


@dataclass
class _Asking:
    """A model, and how it is asked."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: RenameSettings
    on_progress: OnProgress | None

    def __call__(self, conversations: Sequence[Sequence[Message]], *, samples: int = 1) -> list[Generation]:
        from dpo_cli.models.generate import generate

        return generate(
            self.model,
            self.tokenizer,
            [one for one in conversations for _ in range(samples)],
            max_new_tokens=self.settings.max_new_tokens,
            batch_size=self.settings.batch_size,
            temperature=self.settings.temperature if samples > 1 else 0.0,
            seed=self.settings.seed,
            on_progress=self.on_progress,
        )


@dataclass
class _Job:
    """One making of pairs, step by step."""

    ask: _Asking
    prompts: SystemPrompts
    questions: list[str]
    old: str
    new: str
    settings: RenameSettings
    answers: dict[int, list[Generation]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.conversations = _conversations(self.questions, self._asked(len(self.questions)))
        self.introductions = Introductions(self.old, self.new, seed=self.settings.seed)

    def pairs(self) -> IdentityPairs:
        """All of them."""
        taken, reason = self._choice()
        rows: list[dict[str, Any]] = []
        repeated, left_alone = 0, {}
        if taken in {"own", "both"}:
            own = own_pairs(self._finished(), self.old, self.new, self.settings.answer_template, "own")
            rows, repeated, left_alone = own.rows, own.repeated, own.left_alone
        if taken in {"introductions", "both"}:
            rows += self._introductions()
        works_with: str | None = None
        anchors: dict[str, int] = {}
        if len(rows) < self.settings.least:
            said = 2 * self._with_name() >= len(self._finished())
            works_with = None if said else self._works_with()
        else:
            found, anchors = self._anchors(taken)
            rows += found
        given = [one for at in sorted(self.answers) for one in self.answers[at]]
        return IdentityPairs(
            original_name=self.old,
            dataset=dataset_of(rows, with_kind=True),
            repeated=repeated,
            left_alone=left_alone,
            kinds=kinds_of(rows),
            choice=f"pairs from {_WORDS[taken]}: {reason}",
            anchors=anchors,
            works_with=works_with,
            **counts_of(given, self.old),
        )

    def _choice(self) -> tuple[PairsFrom, str]:
        """Which pairs are made, and why; what has to be asked for that has been asked then."""
        everything = range(len(self.questions))
        taken, reason = self.settings.pairs_from, "as --pairs-from says"
        if taken is None and self.settings.answer_template is not None:
            taken, reason = "own", "--answer-template stands in for answers without the name"
        if taken in {"own", "both"}:
            self._put(everything)
            return taken, reason
        size = min(FIRST_ASKED, len(self.questions))
        self._put(sorted(random.Random(self.settings.seed).sample(everything, size)))  # noqa: S311 - no secret
        if taken is None:
            asked, saying = sum(map(len, self.answers.values())), self._with_name()
            reason = f"{saying} of the first {asked} answers say {self.old}"
            taken = "own" if 2 * saying >= asked else "introductions"
        if taken == "own":
            self._put(everything)
        return taken, reason

    def _asked(self, count: int) -> list[str]:
        return self.prompts.asked(count, spread=self.settings.spread)

    def _put(self, places: Sequence[int]) -> None:
        """Ask the questions at these places that were not asked yet."""
        places = [at for at in places if at not in self.answers]
        samples = self.settings.samples_per_question
        found = self.ask([self.conversations[at] for at in places], samples=samples)
        for number, at in enumerate(places):
            self.answers[at] = found[number * samples : (number + 1) * samples]

    def _finished(self) -> list[tuple[list[Message], str]]:
        return [
            (self.conversations[at], one.text)
            for at in sorted(self.answers)
            for one in self.answers[at]
            if one.text and not one.truncated
        ]

    def _with_name(self) -> int:
        return sum(contains_name(text, self.old) for _, text in self._finished())

    def _introductions(self) -> list[dict[str, Any]]:
        """Each question with an introduction, over the same with the old name and over the model's own answer."""
        rows = []
        spread = _conversations(self.questions, self.prompts.spread_over(len(self.questions)))
        for question, prompt in zip(self.questions, spread, strict=True):
            chosen, rejected = self.introductions.answer(question)
            rows.append(pair_row(prompt, chosen, rejected, "introductions"))
        for prompt, text in self._finished():
            if not contains_name(text, self.new):
                chosen, _ = self.introductions.answer(prompt[-1]["content"])
                rows.append(pair_row(prompt, chosen, text, "introductions"))
        return rows

    def _anchors(self, taken: PairsFrom) -> tuple[list[dict[str, Any]], dict[str, int]]:
        count = DEFAULT_ANCHORS[taken] if self.settings.anchors is None else self.settings.anchors
        prompts = self.settings.anchor_prompts
        if prompts is None:
            prompts = [question.text for question in shipped_questions("anchors")]
        texts = anchor_texts(prompts, self.old, taken=self.questions)
        spread = (self._asked if taken == "own" else self.prompts.spread_over)(len(texts))
        return anchor_rows(
            self.ask, _conversations(texts, spread), count, (self.old, self.new), self.introductions
        )

    def _works_with(self) -> str | None:
        """A system prompt under which most of a few questions are answered with the old name."""
        from dpo_cli.models.generate import conversation

        tried = self.questions[:_TRIED]
        for prompt in dict.fromkeys(("", self.prompts.own, f"You are {self.old}, a helpful assistant.")):
            if prompt == self.prompts.default or (prompt and not self.prompts.accepted):
                continue
            said = self.ask([conversation(text, prompt) for text in tried])
            if 2 * sum(contains_name(one.text, self.old) for one in said) >= len(tried):
                return prompt
        return None


_WORDS: Final = {
    "own": "its own answers",
    "introductions": "introductions",
    "both": "its own answers and introductions",
}


def _conversations(texts: Sequence[str], prompts: Sequence[str]) -> list[list[Message]]:
    from dpo_cli.models.generate import conversation

    return [conversation(text, prompt) for text, prompt in zip(texts, prompts, strict=True)]
