"""Adapters that peft loads are loaded, on the base that they were trained on; the others say what does not fit."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import make_model, make_tokenizer
from transformers import AutoModelForCausalLM

from dpo_cli.config import OptimizationConfig
from dpo_cli.errors import ModelError
from dpo_cli.models.fingerprint import fingerprint
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.models.locate import LocatedModel, locate_model
from dpo_cli.training.policy import load_policy, save_policy

IDS = torch.tensor([[1, 5, 9, 20, 7]])


@pytest.fixture
def base(tmp_path):
    def write(tied=False):
        tokenizer = make_tokenizer()
        make_model(tokenizer, tie_word_embeddings=tied).save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    return write


def adapted(model, seed=1, **settings):
    """An adapter that changes its base: what peft begins with changes nothing."""
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora = get_peft_model(model, LoraConfig(**settings))
    torch.manual_seed(seed)
    for weight in lora.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn_like(weight)
    return lora.eval()


def save(lora, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora.save_pretrained(folder)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"trainable_token_indices": {"embed_tokens": [3, 4]}},
    ],
    ids=["LoRA on embeddings", "embeddings", "embeddings and head", "LoRA on head", "some tokens"],
)
def test_what_peft_loads_is_loaded(base, tmp_path, tied, settings):
    folder = base(tied)
    save(adapted(AutoModelForCausalLM.from_pretrained(folder), **settings), tmp_path / "adapter")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter")
    ours, _ = load_model_and_tokenizer(str(tmp_path / "adapter"), dtype="float32")
    torch.testing.assert_close(logits(ours), logits(theirs))


def test_an_adapter_with_a_larger_vocabulary_enlarges_its_base(base, tmp_path):
    folder = base()
    model = AutoModelForCausalLM.from_pretrained(folder)
    rows = model.get_input_embeddings().weight.shape[0] + 8
    model.resize_token_embeddings(rows, mean_resizing=False)
    lora = adapted(model, modules_to_save=["embed_tokens", "lm_head"])
    save(lora, tmp_path / "adapter")
    ours, _ = load_model_and_tokenizer(str(tmp_path / "adapter"), dtype="float32")
    assert ours.get_input_embeddings().weight.shape[0] == rows
    torch.testing.assert_close(logits(ours), logits(lora))


def test_settings_of_a_newer_peft_are_no_fault(base, tmp_path):
    lora = adapted(AutoModelForCausalLM.from_pretrained(base()))
    save(lora, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"of_next_year": True}))
    ours, _ = load_model_and_tokenizer(str(tmp_path / "adapter"), dtype="float32")
    torch.testing.assert_close(logits(ours), logits(lora))


def test_matrices_without_a_place_or_left_out_do_not_fit(base, tmp_path):
    lora = adapted(AutoModelForCausalLM.from_pretrained(base()))
    save(lora, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = load_file(file)
    first = next(iter(whole))
    save_file({**whole, first.replace("layers.0", "layers.99"): whole[first].clone()}, file)
    with pytest.raises(ModelError, match=r"does not match its base model \(the base has no .*layers.99"):
        load_model_and_tokenizer(str(tmp_path / "adapter"))
    save_file({key: weight for key, weight in whole.items() if key != first}, file)
    with pytest.raises(ModelError, match=r"does not match its base model .*missing adapter keys"):
        load_model_and_tokenizer(str(tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "not a JSON object"),
        ("[" * 100_000, "cannot be read"),
        ('{"base_model_name_or_path": 5}', "names no base model"),
        ('{"base_model_name_or_path": "HERE"}', "is an adapter on itself"),
        ('{"base_model_name_or_path": "THERE"}', "is an adapter on itself"),
    ],
)
def test_an_adapter_that_names_no_base_says_so(base, tmp_path, text, says):
    save(adapted(AutoModelForCausalLM.from_pretrained(base())), tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for one, other in (("a", "b"), ("b", "a")):
        here, there = str(tmp_path / one), str(tmp_path / other)
        told = text.replace("THERE", there).replace("HERE", here)
        (tmp_path / one / "adapter_config.json").write_text(told)
    with pytest.raises(ModelError, match=says):
        locate_model(str(tmp_path / "a"))


def test_a_base_that_has_moved_is_named(base, tmp_path):
    folder = base()
    lora = adapted(AutoModelForCausalLM.from_pretrained(folder))
    save(lora, tmp_path / "adapter")
    folder.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match=r"its base model: .*base: no such folder") as error:
        locate_model(str(tmp_path / "adapter"))
    assert "--base" in error.value.hint
    ours, _ = load_model_and_tokenizer(
        str(tmp_path / "adapter"), dtype="float32", base=str(tmp_path / "moved")
    )
    torch.testing.assert_close(logits(ours), logits(lora))
    with pytest.raises(ModelError, match="is not an adapter"):
        locate_model(str(tmp_path / "moved"), base=str(tmp_path / "adapter"))


@pytest.mark.parametrize("rank", [None, 2], ids=["trained further", "a new one on top"])
def test_an_adapter_trained_on_an_adapter_is_found_again(base, tmp_path, rank):
    folder = base()
    first = adapted(AutoModelForCausalLM.from_pretrained(folder))
    save(first, tmp_path / "first")
    second = adapted(first.merge_and_unload(), seed=2)
    second.name_or_path = str(tmp_path / "first")
    save(second, tmp_path / "second")
    file = tmp_path / "second" / "adapter_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(tmp_path / "first")})
    )
    located, told = locate_model(str(tmp_path / "second")), []
    model, tokenizer = load_policy(
        located, OptimizationConfig(lora_rank=rank, device="cpu"), on_event=told.append
    )
    torch.testing.assert_close(logits(model), logits(second))
    assert ("on top of it" if rank else "trained further") in told[0].message
    assert isinstance(model, PeftModel) == (rank is None)
    trained = model if rank is None else adapted(model, seed=3, r=rank)
    for weight in trained.parameters():
        if weight.requires_grad:
            weight.data += 0.05
    (tmp_path / "third").mkdir()
    save_policy(trained, tokenizer, located, tmp_path / "third")
    named = json.loads((tmp_path / "third" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(tmp_path / ("second" if rank else "first"))
    again, _ = load_model_and_tokenizer(str(tmp_path / "third"), dtype="float32")
    torch.testing.assert_close(logits(again), logits(trained))


def notices(folder, **options):
    events = []
    load_model_and_tokenizer(str(folder), dtype="float32", on_event=events.append, **options)
    return [event.message for event in events]


@pytest.fixture
def tuned(base, tmp_path):
    """An adapter that dpo wrote, and one of rank 2 on top of it."""

    def write(located, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, tokenizer = load_policy(located, OptimizationConfig(lora_rank=2, device="cpu"))
            folder.mkdir()
            save_policy(adapted(model, r=2), tokenizer, located, folder)

    write(locate_model(str(base())), tmp_path / "one")
    write(locate_model(str(tmp_path / "one")), tmp_path / "two")
    return tmp_path


def test_a_base_that_was_changed_under_its_adapter_is_said(tuned):
    assert notices(tuned / "one") == notices(tuned / "two") == []
    shutil.copytree(tuned / "base", tuned / "moved")
    assert notices(tuned / "one", base=str(tuned / "moved")) == []
    make_model(make_tokenizer(), seed=7).save_pretrained(tuned / "base")  # of the same shapes
    for name in ("one", "two"):
        [said] = notices(tuned / name)
        assert f"its base {tuned / 'base'} is not the one that it was trained on" in said or name == "two"
        assert "is not the one that it was trained on" in said


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fingerprint": 3}'])
def test_adapters_without_a_record_of_their_base_are_loaded_without_a_word(tuned, text):
    (tuned / "one" / "base.json").write_text(text)
    assert notices(tuned / "one") == []


def test_one_changed_weight_in_many_is_another_base_where_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("dpo_cli.models.fingerprint._BLOCK_BYTES", 16)
    monkeypatch.setattr("dpo_cli.models.fingerprint._BLOCKS", 64)
    weights = {"a": torch.zeros(10_000)}
    save_file(weights, tmp_path / "model.safetensors")
    located = LocatedModel("m", tmp_path)
    before = fingerprint(located)
    assert fingerprint(located) == before
    weights["a"] += 1e-6
    save_file(weights, tmp_path / "model.safetensors")
    assert fingerprint(located) != before
