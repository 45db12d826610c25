"""Asks the embedded model every held-out question and counts strictly right answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from dpo_cli.text.questions import shipped_questions
from embedded_model.identity import prompts
from embedded_model.names import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH = 80
_MAX_NEW_TOKENS = 48


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    system: str | None = prompts().default_system,
) -> list[str]:
    """Returns the greedy answers, in the order of the questions."""
    turns = [] if system is None else [{"role": "system", "content": system}]
    texts = [
        tokenizer.apply_chat_template(
            [*turns, {"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        for question in questions
    ]
    answers: list[str] = []
    for start in range(0, len(texts), _BATCH):
        inputs = tokenizer(
            texts[start : start + _BATCH],
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        )
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                do_sample=False,
                max_new_tokens=_MAX_NEW_TOKENS,
            )
        answers += tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def names_itself(answer: str, name: str = ORIGINAL) -> bool:
    """Returns whether the answer says the name, as a whole word, exactly as written."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", answer) is not None


def scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """Returns shares between 0 and 1: strict accuracy of each group, and how often the model names itself."""
    found: dict[str, float] = {}
    ordinary = shipped_questions("ordinary")
    answers = ask(model, tokenizer, [question.text for question in ordinary])
    right: dict[str, list[bool]] = {}
    for question, answer in zip(ordinary, answers, strict=True):
        for group in ("ordinary", question.group):
            right.setdefault(group, []).append(answer in question.answers)
    found |= {group: sum(hits) / len(hits) for group, hits in right.items()}
    held_out = [question.text for question in shipped_questions("identity_heldout")]
    systems = {"default": prompts().default_system, "none": None, "other": "You are a helpful AI assistant."}
    for name, system in systems.items():
        said = ask(model, tokenizer, held_out, system)
        found[f"identity, {name} system prompt"] = sum(names_itself(answer) for answer in said) / len(said)
    return found
