"""Ask a model who it is, replace the name in its answers, and make pairs of old against new."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.data.sources.locate import read_rows
from dpo_cli.errors import DataError, listed
from dpo_cli.synthesis.identity_pairs import IdentityPairs, PairKind, dataset_of, pair_row
from dpo_cli.text.names import contains_name, replace_name
from dpo_cli.text.questions import shipped_questions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.events import OnProgress
    from dpo_cli.models.generate import Generation, Message

IDENTITY_DATASET = "mrfakename/identity"
"""The hub data set of identity questions that the specification names."""

_CALLS_ITSELF = re.compile(
    r"\b(?:I am|I['\u2019]m|[Mm]y name is|[Cc]all me|[Tt]his is|[Nn]ame's)"
    r"\s+([^\W\d_a-z][\w'-]*(?:\.\w+)*(?: [^\W\d_a-z][\w'-]*(?:\.\w+)*){0,3})"
)


def build_identity_shift_dataset(  # noqa: PLR0917 - the specification's signature
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    original_name: str,
    new_name: str,
    raw_dataset: Dataset | None = None,
    dataset_name: str = IDENTITY_DATASET,
    system_prompt: str = "You're a helpful assistant.",
    max_samples: int | None = None,
    **how: Any,  # noqa: ANN401 - passed on to make_identity_pairs
) -> Dataset:
    """Build preference pairs that give a model a new name.

    The model answers each question; the answer is the rejected completion, the answer with the whole word
    `original_name` replaced is the chosen one. Answers without the name, cut off or empty make no pair.

    Args:
        model: The model that shall be renamed.
        tokenizer: Its tokenizer, with a chat template.
        original_name: The name that it gives itself now.
        new_name: The name that it shall give itself.
        raw_dataset: Questions in the layout of mrfakename/identity (a column `conversations` of
            {"from", "value"}; the last human turn is the question).
        dataset_name: A data set in that layout: hub id, file or folder. Where the default cannot be reached, the
            identity questions that ship with dpo are asked instead, with a warning.
        system_prompt: System prompt of every question; empty leaves it out.
        max_samples: Ask at most this many questions.
        **how: As in `make_identity_pairs`.

    Returns:
        Columns `prompt`, `chosen`, `rejected`, each a list of {"role", "content"} messages.

    Raises:
        DataError: If the questions cannot be read, or no answer says the name.
        ModelError: If the tokenizer has no chat template.
    """
    questions = questions_of(raw_dataset) if raw_dataset is not None else _questions_from(dataset_name)
    pairs = make_identity_pairs(
        model, tokenizer, questions[:max_samples], original_name, new_name, system_prompt=system_prompt, **how
    )
    pairs.require(1)
    return pairs.dataset


def make_identity_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    original_name: str,
    new_name: str,
    *,
    system_prompt: str = "You're a helpful assistant.",
    max_new_tokens: int = 128,
    batch_size: int = 32,
    samples_per_question: int = 1,
    temperature: float = 0.7,
    answer_template: str | None = None,
    seed: int = 42,
    on_progress: OnProgress | None = None,
) -> IdentityPairs:
    """Ask, replace, pair; and account for every answer.

    Args:
        model: The model that answers.
        tokenizer: Its tokenizer.
        questions: What it is asked.
        original_name: The name to replace.
        new_name: The name to put there.
        system_prompt: System prompt of every question; empty leaves it out.
        max_new_tokens: Longest answer, in tokens.
        batch_size: Questions answered at once.
        samples_per_question: 1 takes the likeliest answer; more are sampled.
        temperature: Of the samples.
        answer_template: Stands in, with {name}, for an answer that does not say the name.
        seed: Of the samples.
        on_progress: Called with (done, all).

    Raises:
        ModelError: If the tokenizer has no chat template.
    """
    from dpo_cli.models.generate import accepted_system_prompt, conversation, generate

    system_prompt = accepted_system_prompt(tokenizer, system_prompt)
    prompts = [conversation(q, system_prompt) for q in questions for _ in range(samples_per_question)]
    answers = generate(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        temperature=temperature if samples_per_question > 1 else 0.0,
        seed=seed,
        on_progress=on_progress,
    )
    finished = [
        (prompt, a.text) for prompt, a in zip(prompts, answers, strict=True) if not a.truncated and a.text
    ]
    own = own_pairs(finished, original_name, new_name, answer_template)
    return IdentityPairs(
        original_name=original_name,
        dataset=dataset_of(own.rows),
        repeated=own.repeated,
        left_alone=own.left_alone,
        **counts_of(answers, original_name),
    )


def counts_of(answers: Sequence[Generation], original_name: str) -> dict[str, Any]:
    """What became of answers, as the attributes of `IdentityPairs` that tell it; one that was cut off says nothing."""
    finished = [one.text for one in answers if one.text and not one.truncated]
    return {
        "asked": len(answers),
        "with_name": sum(contains_name(text, original_name) for text in finished),
        "cut_off": sum(one.truncated for one in answers),
        "empty": sum(not one.truncated and not one.text for one in answers),
        "calls_itself": names_given(finished),
    }


@dataclass(frozen=True)
class OwnPairs:
    """Pairs of a model's answers against themselves with the name replaced; counts as in `IdentityPairs`."""

    rows: list[dict[str, Any]]
    repeated: int
    left_alone: dict[str, int]


def own_pairs(
    answered: Iterable[tuple[list[Message], str]],
    original_name: str,
    new_name: str,
    answer_template: str | None = None,
    kind: PairKind | None = None,
) -> OwnPairs:
    """Replace the name in answers; an answer without it, or given before to the same question, makes no pair.

    Args:
        answered: Conversations and the answers to them.
        original_name: The name to replace.
        new_name: The name to put there.
        answer_template: Stands in, with {name}, for an answer that does not say the name.
        kind: Of the pairs, where it is written down.
    """
    rows, seen, left_alone = [], set(), Counter[str]()
    repeated = 0
    for prompt, text in answered:
        rejected = text
        if answer_template is not None and not contains_name(text, original_name):
            rejected = answer_template.replace("{name}", original_name)
        replaced = replace_name(rejected, original_name, new_name)
        left_alone.update(replaced.skipped)
        if replaced.text == rejected:
            continue
        key = (prompt[-1]["content"], rejected)
        repeated += key in seen
        if key not in seen:
            seen.add(key)
            rows.append(pair_row(prompt, replaced.text, rejected, kind))
    return OwnPairs(rows, repeated, dict(left_alone.most_common()))


def questions_of(rows: Iterable[dict[str, Any]], source: str = "the identity data set") -> list[str]:
    """The last human turn of each row in ShareGPT's layout.

    Args:
        rows: With a column `conversations` or `messages`.
        source: What messages call them.

    Raises:
        DataError: If a row has no `conversations` with a human turn; the row is named.
    """
    questions = []
    for number, row in enumerate(rows, start=1):
        turns = row.get("conversations") or row.get("messages")
        said = [
            turn.get("value", turn.get("content"))
            for turn in (turns if isinstance(turns, list) else [])
            if isinstance(turn, dict) and turn.get("from", turn.get("role")) in ("human", "user")
        ]
        if not said or not isinstance(said[-1], str) or not said[-1].strip():
            raise DataError(
                f"{source}, row {number}: has no human turn in a column 'conversations' (columns: {listed(row) or 'none'})",
                hint="Identity questions come in the layout of mrfakename/identity, or as a file for --questions.",
            )
        questions.append(said[-1])
    if not questions:
        raise DataError(f"{source} has no rows")
    return questions


def names_given(answers: Iterable[str]) -> dict[str, int]:
    """What answers call themselves ("I am ...", "my name is ..."), most frequent first."""
    return dict(
        Counter(m.group(1) for text in answers for m in [_CALLS_ITSELF.search(text)] if m).most_common()
    )


def questions_in(dataset_name: str) -> list[str]:
    """The questions of a data set in the layout of mrfakename/identity: a file, a folder or a hub id.

    Raises:
        DataError: If it is not there, cannot be read, or a row has no question.
    """
    return questions_of(read_rows(dataset_name), dataset_name)


def _questions_from(dataset_name: str) -> list[str]:
    try:
        return questions_in(dataset_name)
    except DataError:
        if dataset_name != IDENTITY_DATASET:
            raise
        message = (
            f"{IDENTITY_DATASET} cannot be reached; asking the identity questions that ship with dpo instead"
        )
        warnings.warn(message, stacklevel=3)
        return [question.text for question in shipped_questions("identity_train")]
