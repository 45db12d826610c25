"""A policy held in fp32 answers as the model that is loaded, or saved, in lower precision."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.models.generate import conversation, generate
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.models.locate import locate_model
from dpo_cli.models.precision import fast_weights
from dpo_cli.training.policy import load_policy

ASKED = [conversation(text, "") for text in ("Who are you?", "one two three", "Hi")]


def policy_of(folder, dtype):
    return load_policy(locate_model(str(folder)), DPOTrainingConfig(model=str(folder), dtype=dtype))


def test_a_policy_answers_in_its_fast_precision_and_keeps_its_weights(tiny_model):
    model, tokenizer = policy_of(tiny_model, "bfloat16")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with fast_weights(model):
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    found = generate(model, tokenizer, ASKED, max_new_tokens=12)
    assert found == generate(
        *load_model_and_tokenizer(str(tiny_model), dtype="bfloat16"), ASKED, max_new_tokens=12
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_weights_come_back_after_an_error_and_with_adapters(tiny_model):
    base, _ = policy_of(tiny_model, "bfloat16")
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    held = {name: p.data_ptr() for name, p in model.named_parameters()}

    def fail():
        with fast_weights(model), fast_weights(model):
            assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert held == {name: p.data_ptr() for name, p in model.named_parameters()}


def test_fp32_stays_fp32(tiny_model):
    for model in (policy_of(tiny_model, "float32")[0], load_model_and_tokenizer(str(tiny_model))[0]):
        with fast_weights(model):
            assert {p.dtype for p in model.parameters()} == {torch.float32}
