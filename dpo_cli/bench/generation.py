"""How much faster answers come in batches than one at a time."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.models.generate import conversation, generate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.events import OnProgress
    from dpo_cli.models.generate import Generation

BATCHED, SINGLE = "batched", "one at a time"
BATCH = 32
LONGEST = 64


@dataclass(frozen=True)
class GenerationBench:
    """A finished measurement.

    Attributes:
        answers_per_second: Way of asking to speed, one entry per repetition.
        tokens: Of all answers together.
        same: Share of answers that are the same both ways (rounding may turn a close choice).
        questions: Asked in each repetition.
    """

    answers_per_second: dict[str, list[float]]
    tokens: int
    same: float
    questions: int

    @property
    def ratios(self) -> list[float]:
        """Batched over single speed, by repetition."""
        pairs = zip(self.answers_per_second[BATCHED], self.answers_per_second[SINGLE], strict=True)
        return [batched / single for batched, single in pairs]

    def to_json(self) -> dict[str, Any]:
        """The document of `dpo bench --generate --json`; speeds are medians."""
        return {
            "ratio": statistics.median(self.ratios),
            "same_answers": self.same,
            "engines": {
                name: {"answers_per_second": statistics.median(speeds)}
                for name, speeds in self.answers_per_second.items()
            },
        }


def measure_generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    *,
    repetitions: int,
    on_progress: OnProgress = lambda _done, _total: None,
) -> GenerationBench:
    """Answer the same questions both ways, in alternation, after a warm-up.

    Args:
        model: Answers greedily.
        tokenizer: With a chat template.
        questions: What to ask.
        repetitions: Rounds in which each way runs once.
        on_progress: Called with (rounds done, rounds in all).
    """
    asked = [conversation(question, "") for question in questions]
    speeds: dict[str, list[float]] = {SINGLE: [], BATCHED: []}
    answers: dict[str, list[Generation]] = {}
    generate(model, tokenizer, asked[:2], max_new_tokens=2)
    for round_ in range(repetitions):
        for name, size in ((SINGLE, 1), (BATCHED, BATCH)):
            start = time.perf_counter()
            answers[name] = generate(model, tokenizer, asked, max_new_tokens=LONGEST, batch_size=size)
            speeds[name].append(len(asked) / (time.perf_counter() - start))
        on_progress(round_ + 1, repetitions)
    same = [a.token_ids == b.token_ids for a, b in zip(answers[BATCHED], answers[SINGLE], strict=True)]
    tokens = sum(len(answer.token_ids) for answer in answers[BATCHED])
    return GenerationBench(speeds, tokens, sum(same) / len(same), len(asked))
