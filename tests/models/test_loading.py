from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_models import CHATML, make_model, make_tokenizer

from dpo_cli.errors import ModelError
from dpo_cli.models.loading import end_of_turn_ids, load_model_and_tokenizer
from dpo_cli.models.locate import locate_model, read_preset


def test_a_folder_is_loaded_as_it_was_saved(tiny_model):
    model, tokenizer = load_model_and_tokenizer(str(tiny_model), dtype="float32")
    ids = tokenizer("Who are you?", return_tensors="pt").input_ids
    torch.testing.assert_close(model(ids).logits, make_model(make_tokenizer())(ids).logits)
    assert not model.training


@pytest.fixture
def adapter(tiny_model, tmp_path):
    from peft import LoraConfig, get_peft_model

    model, _ = load_model_and_tokenizer(str(tiny_model), dtype="float32")
    lora = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, weight in lora.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    lora.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", lora


def test_an_adapter_is_loaded_on_its_base(adapter):
    folder, lora = adapter
    model, tokenizer = load_model_and_tokenizer(str(folder), dtype="float32")
    ids = tokenizer("Who are you?", return_tensors="pt").input_ids
    torch.testing.assert_close(model(ids).logits, lora.eval()(ids).logits)


def test_an_adapter_whose_base_is_gone_names_both(adapter):
    folder, _ = adapter
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "/nowhere/base"})
    )
    with pytest.raises(ModelError, match="adapter: its base model: /nowhere/base: no such folder"):
        load_model_and_tokenizer(str(folder))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./nowhere", "no such folder"),
        ("/a/b/c", "no such folder"),
        ("no/such-model", "hub cannot be reached"),
        ("", "no such folder"),
    ],
)
def test_what_is_not_there_is_named(name, says):
    with pytest.raises(ModelError, match=says) as error:
        locate_model(name)
    assert error.value.hint


def spoil(folder, how):
    if how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "pickled":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif how == "truncated":
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "not json":
        (folder / "config.json").write_text("{")
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    elif how == "missing tensor":
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        tensors.pop("model.layers.1.mlp.up_proj.weight")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    elif how == "other shape":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no weights", "has no weights"),
        ("pickled", "unpickling runs code"),
        ("truncated", "model.safetensors is damaged"),
        ("no config", "has no config.json"),
        ("not json", "config.json cannot be read"),
        ("no tokenizer", "its tokenizer cannot be loaded"),
        ("missing tensor", "1 weights are missing, model.layers.1.mlp.up_proj.weight first"),
        ("other shape", "cannot be loaded"),
    ],
)
def test_a_spoilt_folder_gets_one_message(tiny_model, tmp_path, how, says):
    folder = tmp_path / "spoilt"
    shutil.copytree(tiny_model, folder)
    spoil(folder, how)
    with pytest.raises(ModelError, match=says) as error:
        load_model_and_tokenizer(str(folder))
    assert str(folder) in error.value.message
    assert "\n" not in error.value.message


def test_a_chat_template_can_be_given(tiny_model, tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages[0]['content'] }}!")
    _, tokenizer = load_model_and_tokenizer(str(tiny_model), chat_template=str(file))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi!"
    _, tokenizer = load_model_and_tokenizer(str(tiny_model), chat_template="chatml")
    messages = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(ModelError, match="cannot be read"):
        load_model_and_tokenizer(str(tiny_model), chat_template=str(tmp_path / "none.jinja"))


def test_the_template_s_own_end_of_turn_ends_a_turn(tiny_model):
    model, tokenizer = load_model_and_tokenizer(str(tiny_model))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.eos_token = "<|endoftext|>"
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    assert tokenizer.chat_template == CHATML
    assert end_of_turn_ids(model, tokenizer) == sorted([tokenizer.eos_token_id, end])


def test_a_preset_is_read_from_the_models_folder(tiny_model, tmp_path):
    folder = tmp_path / "with-preset"
    shutil.copytree(tiny_model, folder)
    (folder / "preset.toml").write_text("[train]\nbeta = 0.1\nseed = 1\n[train.lora]\nbeta = 0.3\n")
    located = locate_model(str(folder))
    assert read_preset(located, "train", lora=False)[0] == {"beta": 0.1, "seed": 1}
    assert read_preset(located, "train", lora=True)[0] == {"beta": 0.3, "seed": 1}
    assert read_preset(located, "identity-shift", lora=True)[0] == {}
