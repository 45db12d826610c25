"""A policy held in fp32 answers as the model that is loaded, or saved, in lower precision."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.errors import TrainingError
from dpo_cli.models.generate import conversation, generate
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.models.locate import locate_model
from dpo_cli.models.precision import fast_weights, stored_dtype
from dpo_cli.training.policy import load_policy, save_policy

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


@pytest.fixture
def half(tiny_model, tmp_path):
    """The tiny model in bf16, as most models come."""
    model, tokenizer = load_model_and_tokenizer(str(tiny_model), dtype="bfloat16")
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "half")
    return tmp_path / "half"


@pytest.mark.parametrize(
    ("asked", "written"), [("auto", torch.bfloat16), ("float32", torch.float32), ("float16", torch.float16)]
)
def test_a_model_is_written_in_the_precision_it_came_in_or_that_is_asked_for(half, tmp_path, asked, written):
    located = locate_model(str(half))
    model, tokenizer = policy_of(half, "float32")
    with torch.no_grad():
        next(model.parameters()).add_(1e-4)
    held = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (tmp_path / "out").mkdir()
    save_policy(model, tokenizer, located, tmp_path / "out", dtype=asked)
    assert stored_dtype(tmp_path / "out") == written
    saved = load_model_and_tokenizer(str(tmp_path / "out"), dtype="float32")[0].state_dict()
    assert all(torch.equal(tensor, held[name].to(written).float()) for name, tensor in saved.items())
    assert all(torch.equal(tensor, held[name]) for name, tensor in model.state_dict().items())
    assert model.config.dtype == torch.float32
    assert f'"{str(written).removeprefix("torch.")}"' in (tmp_path / "out" / "config.json").read_text()


def test_adapters_are_written_as_they_were_trained(half, tmp_path):
    base, tokenizer = policy_of(half, "float32")
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    for asked, written in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        folder = tmp_path / asked
        folder.mkdir()
        save_policy(model, tokenizer, locate_model(str(half)), folder, dtype=asked)
        assert stored_dtype(folder) == written


def test_weights_beyond_float16_are_not_written(half, tmp_path):
    model, tokenizer = policy_of(half, "float32")
    with torch.no_grad():
        next(model.parameters())[0, 0] = 1e5
    (tmp_path / "out").mkdir()
    with pytest.raises(TrainingError, match="in float16") as error:
        save_policy(model, tokenizer, locate_model(str(half)), tmp_path / "out", dtype="float16")
    assert "--save-dtype" in error.value.hint
    assert not list((tmp_path / "out").iterdir())
    assert float(next(model.parameters()).detach()[0, 0]) == 1e5
