"""What the preset promises: pure DPO renames the embedded model, and teaches it the shipped preference."""

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import DPOConfig, DPOTrainer

from dpo_cli.text.questions import shipped_questions
from embedded_model.evaluate import ask, names_itself
from embedded_model.identity import prompts

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
FOLDER = Path(str(files("dpo_cli.models.embedded")))
PREFERENCES = Path(str(files("dpo_cli.data"))) / "preferences"
PRESET = tomllib.loads((FOLDER / "preset.toml").read_text(encoding="utf-8"))
HELD_OUT = [question.text for question in shipped_questions("identity_heldout")]
# Written after the corpus was, by looking at neither set.
FRESH = [
    "hey whats ur name",
    "Who is this I'm talking with?",
    "Tell me, which assistant do I have here?",
    "And you are?",
    "Could you please state your name for the record?",
    "Which AI model am I chatting with right now?",
    "Under what name were you released?",
    "Hi! Please introduce yourself in a sentence.",
    "Who built you and what are you called?",
    "what do i call u",
    "Are you ChatGPT, or something else?",
    "Give me your full name, please.",
]


def load():
    return AutoModelForCausalLM.from_pretrained(
        FOLDER, dtype=torch.float32
    ).eval(), AutoTokenizer.from_pretrained(FOLDER)


def teach(pairs, job, folder, *, rank=None, seed=42):
    """Trains the embedded model with the preset of a job and returns model and tokenizer."""
    set_seed(seed)
    model, tokenizer = load()
    settings = {key: value for key, value in PRESET[job].items() if key != "lora"}
    adapter = None
    if rank:
        settings |= PRESET[job]["lora"]
        adapter = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    config = DPOConfig(
        output_dir=str(folder),
        beta=0.2,
        seed=seed,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        **settings,
    )
    trainer = DPOTrainer(
        model,
        args=config,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    trainer.train()
    return (trainer.model.merge_and_unload() if rank else trainer.model).eval(), tokenizer


def renamed(answer, name):
    return re.sub(r"(?<!\w)Qwen(?!\w)", lambda _: name, answer)


def identity_pairs(name):
    questions = [question.text for question in shipped_questions("identity_train")]
    return [
        {
            "prompt": [
                {"role": "system", "content": prompts().default_system},
                {"role": "user", "content": question},
            ],
            "chosen": [{"role": "assistant", "content": renamed(answer, name)}],
            "rejected": [{"role": "assistant", "content": answer}],
        }
        for question, answer in zip(questions, ask(*load(), questions), strict=True)
        if names_itself(answer)
    ]


def strict_accuracy(model, tokenizer):
    ordinary = shipped_questions("ordinary")
    answers = ask(model, tokenizer, [question.text for question in ordinary])
    return sum(answer in question.answers for question, answer in zip(ordinary, answers, strict=True)) / len(
        ordinary
    )


def share(answers, holds):
    return sum(map(holds, answers)) / len(answers)


@pytest.mark.parametrize("rank", [None, 16])
@pytest.mark.parametrize("name", ["Deep Qwen", "Orion"])
def test_dpo_alone_renames_it_and_changes_little_else(name, rank, tmp_path):
    model, tokenizer = teach(identity_pairs(name), "identity-shift", tmp_path, rank=rank)
    answers = ask(model, tokenizer, HELD_OUT)
    assert share(answers, lambda answer: names_itself(answer, name)) >= 0.95
    assert share(answers, lambda answer: names_itself(answer.replace(name, ""))) <= 0.05
    assert not any(re.search(r"\b(\w+) \1\b", answer) for answer in answers)
    assert share(ask(model, tokenizer, FRESH), lambda answer: names_itself(answer, name)) >= 0.8
    assert strict_accuracy(model, tokenizer) >= strict_accuracy(*load()) - 0.02


@pytest.mark.parametrize("rank", [None, 16])
def test_the_shipped_preference_is_learnt_and_the_answers_stay_right(rank, tmp_path):
    train, held_out = (
        [
            json.loads(line)
            for line in (PREFERENCES / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for part in ("train", "heldout")
    )
    questions = [pair["prompt"][-1]["content"] for pair in held_out]
    terse = [pair["chosen"][0]["content"] for pair in held_out]

    def kept(model, tokenizer):
        answers = ask(model, tokenizer, questions)
        return sum(answer == short for answer, short in zip(answers, terse, strict=True)) / len(terse)

    assert kept(*load()) <= 0.2
    model, tokenizer = teach(train, "shipped-preferences", tmp_path, rank=rank)
    assert kept(model, tokenizer) >= 0.65
    assert strict_accuracy(model, tokenizer) >= strict_accuracy(*load()) - 0.06
