"""The short part of what is tested on a real model: everything once, in about a minute."""

import json

import pytest
import torch
from datasets import Dataset
from real_model import WEIGHTS, weights_digest
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from dpo_cli.config import CheckConfig, DPOTrainingConfig
from dpo_cli.evaluation.examination import AskSettings, answer_questions
from dpo_cli.jobs.check import check
from dpo_cli.jobs.train import train
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.text.questions import Question

pytestmark = pytest.mark.real_model

PAIRS = [
    {
        "prompt": [{"role": "user", "content": "What is the capital of France?"}],
        "chosen": [{"role": "assistant", "content": "It is Paris."}],
        "rejected": [{"role": "assistant", "content": "The capital of France is the city of Paris."}],
    },
    {
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Which day follows Monday?"},
        ],
        "chosen": [{"role": "assistant", "content": "Tuesday."}],
        "rejected": [{"role": "assistant", "content": "The day that follows Monday is Tuesday, of course."}],
    },
]
STEPS = {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "logging_steps": 1,
         "learning_rate": 1e-5, "beta": 0.2, "seed": 3}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(real_model):
    return load_model_and_tokenizer(str(real_model), dtype="float32", device="cpu")


def test_its_weights_are_the_same_everywhere(loaded):
    assert weights_digest(loaded[0]) == WEIGHTS


def test_it_answers(loaded):
    questions = [Question(f"What is the capital of {place}?") for place in ("France", "Kenya")]
    answers = answer_questions(*loaded, questions, AskSettings(max_new_tokens=12))
    assert "Paris" in answers[0].answer
    assert all(one.answer and "<|" not in one.answer for one in answers)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return str(file)


def test_pairs_are_checked_with_its_template(real_model, rows):
    report = check(CheckConfig(dataset=rows, model=str(real_model)))
    assert report.to_json()["rows"]["kept"] == len(PAIRS)


def test_two_steps_are_those_of_trl_and_what_is_saved_is_what_was_trained(real_model, rows, tmp_path):
    """TRL reads the rows itself, with its own tokenisation, model, reference and padding."""
    settings = {
        "dtype": "float32",
        "save_dtype": "float32",
        "device": "cpu",
        "output_dir": str(tmp_path / "ours"),
    }
    ours = train(DPOTrainingConfig(model=str(real_model), dataset=rows, **settings, **STEPS))
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(tmp_path / "theirs"), bf16=False, activation_checkpointing=False, use_cpu=True,
            report_to=[], save_strategy="no", disable_tqdm=True, warmup_steps=0, weight_decay=0.0, **STEPS,
        ),
        processing_class=AutoTokenizer.from_pretrained(real_model),
        train_dataset=Dataset.from_list(PAIRS),
    )  # fmt: skip
    trainer.train()
    theirs = [entry for entry in trainer.state.log_history if "loss" in entry]
    for name in ("loss", "rewards/margins", "logps/chosen", "logps/rejected", "grad_norm"):
        our, their = (
            [entry[name] for entry in log if name in entry] for log in (ours.training.history, theirs)
        )
        assert len(our) == len(their) == 2
        assert our == pytest.approx(their, rel=1e-4, abs=1e-5), name
    assert theirs[1]["loss"] < theirs[0]["loss"]

    saved, _ = load_model_and_tokenizer(str(tmp_path / "ours"), dtype="float32", device="cpu")
    trained = trainer.model.state_dict()
    for name, tensor in saved.state_dict().items():
        torch.testing.assert_close(tensor, trained[name], atol=2e-6, rtol=0)
