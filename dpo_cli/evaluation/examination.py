"""Put questions to one model, and keep everything that a comparison needs of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dpo_cli.config import GenerationConfig, Truncation
from dpo_cli.errors import DataError
from dpo_cli.evaluation.divergence import (
    Continuation,
    Distributions,
    Reading,
    distributions,
    read_again,
    unlikeliness,
)
from dpo_cli.evaluation.implicit_rewards import PairLogProbs, PairTokens, encode_pairs, pair_log_probs
from dpo_cli.evaluation.scores import Answer, Score

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.events import OnProgress
    from dpo_cli.text.questions import Question

    Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]

DEFAULT_TRUNCATION = Truncation(1024)
DEFAULT_SYSTEM_PROMPT: str = GenerationConfig.model_fields["system_prompt"].default


@dataclass(frozen=True)
class AskSettings:
    """How questions are put, to both models alike.

    Attributes:
        system_prompt: First message of every conversation; empty for none. The default one is left out where a
            chat template refuses it.
        max_new_tokens: Longest answer, in tokens.
        batch_size: Questions answered, or pairs read, at once.
        truncation: How a held-out pair that is too long is cut.
        divergence: Also measure how far the distribution moved.
    """

    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    max_new_tokens: int = 128
    batch_size: int = 32
    truncation: Truncation = DEFAULT_TRUNCATION
    divergence: bool = True


@dataclass(frozen=True)
class Examination:
    """Everything one model said, kept after the model is gone.

    Attributes:
        model: The model's name as it was given.
        answers: Its answers, in the order of the questions.
        own: Its next-token distributions along its own answers; empty when not asked for.
        pair_tokens: The held-out pairs as it reads them.
        pairs_left_out: Held-out pairs that were given and have nothing to score within `max_length`.
        pair_log_probs: What it gives each pair.
        divergence: How far it is from the model examined before it; empty for the first one, and for one that
            reads other tokens.
        vocabulary: Token to id of its tokenizer.
        said: Its prompts and answers as tokens.
        forgotten: Place of a question to how unlikely the answer of the model before is to it, in nats per token.
        unlikely: Place of a question to how unlikely its answer is to the model before, see `damage.read_back`.
    """

    model: str
    answers: tuple[Answer, ...]
    own: tuple[Distributions, ...] = field(default=(), repr=False)
    pair_tokens: tuple[PairTokens, ...] = field(default=(), repr=False)
    pairs_left_out: int = 0
    pair_log_probs: tuple[PairLogProbs, ...] = field(default=(), repr=False)
    divergence: tuple[Score, ...] = ()
    vocabulary: Mapping[str, int] = field(default_factory=dict, repr=False)
    said: tuple[Continuation, ...] = field(default=(), repr=False)
    forgotten: Mapping[int, float] = field(default_factory=dict, repr=False)
    unlikely: Mapping[int, float] = field(default_factory=dict, repr=False)

    def is_read_by(self, vocabulary: Mapping[str, int]) -> bool:
        """Whether another tokenizer's ids mean what this one's mean; it may have more of them."""
        return all(vocabulary.get(token) == index for token, index in self.vocabulary.items())


def answer_questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    settings: AskSettings | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> list[Answer]:
    """Ask a model, greedily and in batches.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, with a chat template.
        questions: What to ask.
        settings: How to ask; the defaults of `AskSettings` unless given.
        on_progress: Called with (done, all).

    Raises:
        ModelError: The tokenizer has no chat template.
    """
    return _ask(model, tokenizer, questions, settings or AskSettings(), on_progress)[0]


def answers_json(model: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """The document that `dpo test --json` prints."""
    rows = [
        {"question": one.question.text, "answer": one.answer, "truncated": one.truncated}
        | ({"thinking": one.thinking} if one.thinking else {})
        for one in answers
    ]
    return {"model": model, "answers": rows}


def examine(
    loaded: Loaded,
    questions: Sequence[Question],
    *,
    name: str,
    settings: AskSettings | None = None,
    pairs: Iterable[Mapping[str, Any]] = (),
    before: Examination | None = None,
    on_progress: OnProgress | None = None,
) -> Examination:
    """Ask one model everything that a comparison needs of it, so that it can leave memory afterwards.

    Args:
        loaded: The model and its tokenizer.
        questions: What to ask; the same for both models.
        name: What the model is called in the results.
        settings: How to ask; the same for both models.
        pairs: Held-out preference pairs in TRL's layout; a second model with the same tokenizer reads them from
            `before`.
        before: The examination of the model before, when this is the model after.
        on_progress: Called with (questions answered, all).

    Raises:
        ModelError: The tokenizer has no chat template.
        DataError: Pairs are given, and none has anything to score.
    """
    model, tokenizer = loaded
    settings = settings or AskSettings()

    answers, said = _ask(model, tokenizer, questions, settings, on_progress)
    vocabulary = tokenizer.get_vocab()
    same = before if before is not None and before.is_read_by(vocabulary) else None
    # Both models read the same tokens, or a renamed chat template would pass for a change of the model.
    tokens, left_out = (
        (same.pair_tokens, same.pairs_left_out)
        if same is not None
        else _encoded(tokenizer, list(pairs), settings)
    )
    size = settings.batch_size
    first = settings.divergence and before is None
    reading = read_again(model, same.own, batch_size=size) if same is not None else Reading()
    return Examination(
        model=name,
        answers=tuple(answers),
        own=tuple(distributions(model, said, batch_size=size)) if first else (),
        pair_tokens=tokens,
        pairs_left_out=left_out,
        pair_log_probs=tuple(pair_log_probs(model, tokens, batch_size=size)),
        divergence=reading.divergence,
        vocabulary=vocabulary,
        said=tuple(said),
        forgotten=unlikeliness([one.continuation for one in same.own], reading.said)
        if same is not None
        else {},
    )


def _encoded(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Mapping[str, Any]], settings: AskSettings
) -> tuple[tuple[PairTokens, ...], int]:
    """Pairs as they are scored, and how many there were besides."""
    tokens = tuple(encode_pairs(tokenizer, pairs, settings.truncation))
    if pairs and not tokens:
        raise DataError(
            f"none of {len(pairs):,} held-out pairs can be scored: training would drop them, or truncation leaves nothing of them within --max-length {settings.truncation.max_length:,}",
            hint="Run dpo check on the pairs to see why, or give a larger --max-length.",
        )
    return tokens, len(pairs) - len(tokens)


def _ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    settings: AskSettings,
    on_progress: OnProgress | None,
) -> tuple[list[Answer], list[Continuation]]:
    from dpo_cli.models.generate import accepted_system_prompt, conversation, generate

    usual = accepted_system_prompt(tokenizer, settings.system_prompt)
    prompts = [usual if one.system_prompt is None else one.system_prompt for one in questions]
    found = generate(
        model,
        tokenizer,
        [conversation(one.text, prompt) for one, prompt in zip(questions, prompts, strict=True)],
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        on_progress=on_progress,
    )
    answers = [
        Answer(question, one.text, one.truncated, one.thinking)
        for question, one in zip(questions, found, strict=True)
    ]
    return answers, [
        Continuation(one.prompt_ids, one.token_ids, question.group, row)
        for row, (question, one) in enumerate(zip(questions, found, strict=True))
        if one.token_ids
    ]
