"""Folders of strangers: pointers, pipes, quantised weights, impossible sizes. Said before a library is loaded."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import make_model, make_model_with_positions, make_tokenizer

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.errors import ModelError
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.models.locate import locate_model, locate_policy
from dpo_cli.models.memory import peak_memory_bytes


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def change(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_called_one(folder, file):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 5000\n"
    (folder / file).write_text(pointer)
    with pytest.raises(ModelError, match=f"{file} is a Git LFS pointer") as error:
        locate_model(str(folder))
    assert "git lfs pull" in error.value.hint


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "chat_template.jinja", "preset.toml"])
def test_a_pipe_in_place_of_a_file_hangs_nobody(folder, file):
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)
    with pytest.raises(ModelError, match="not a regular file"):
        locate_model(str(folder))


@pytest.mark.parametrize(
    ("quantised", "says"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantised \(gptq\).*gptqmodel"),
        ({"quantization_config": {"quant_method": "awq"}}, r"quantised \(awq\)"),
        (
            {"quantization_config": {"quant_method": "compressed-tensors"}},
            "compressed-tensors is not installed",
        ),
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes is not installed"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantised for MLX"),
    ],
)
def test_quantised_weights_are_named_with_what_they_need(folder, quantised, says):
    change(folder, **quantised)
    with pytest.raises(ModelError, match=says):
        locate_model(str(folder))


def test_quantised_weights_that_can_be_loaded_cannot_be_trained(folder):
    change(folder, quantization_config={"quant_method": "fp8"})
    locate_model(str(folder))
    with pytest.raises(ModelError, match=r"quantised \(fp8\) and cannot be trained"):
        locate_policy(DPOTrainingConfig(model=str(folder)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "config.json is not a JSON object"),
        ("[" * 100_000, "config.json cannot be read"),
        ('{"model_type": "\\u001b[31m\\u202e"}', "model_type is not a name"),
        ('{"model_type": "llama", "num_hidden_layers": 1000000000}', "num_hidden_layers is 1,000,000,000"),
        ('{"model_type": "x", "text_config": {"num_hidden_layers": 1000000000}}', "num_hidden_layers"),
        ("{" + " " * 5_000_000 + "}", "more than 4 MiB"),
    ],
)
def test_a_configuration_that_is_none_is_refused(folder, text, says):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=says) as error:
        locate_model(str(folder))
    assert str(error.value).isprintable() or "\n" in str(error.value)


@pytest.mark.parametrize(
    ("model", "key", "size"),
    [
        ("llama", "vocab_size", 10**9),
        ("llama", "hidden_size", 10**7),
        ("llama", "num_hidden_layers", 10**9),
        ("gpt2", "n_embd", 10**7),
    ],
)
def test_a_configuration_beyond_its_weights_is_refused_with_both_numbers(folder, model, key, size):
    if model != "llama":
        make_model_with_positions(make_tokenizer(), model).save_pretrained(folder)
    change(folder, **{key: size})
    with pytest.raises(ModelError, match=rf"config.json: {key} is {size:,}, and the weights hold .*\d"):
        locate_model(str(folder))


@pytest.mark.parametrize(
    ("model", "key", "says"),
    [
        ("llama", "intermediate_size", "other shapes than the files hold"),
        ("llama", "num_attention_heads", "not a multiple of the number of attention heads"),
        ("gpt2", "n_positions", "other shapes than the files hold"),
        ("gpt2", "n_inner", "other shapes than the files hold"),
        ("opt", "max_position_embeddings", "other shapes than the files hold"),
    ],
)
def test_a_configuration_that_does_not_fit_its_weights_takes_no_memory(folder, model, key, says):
    if model != "llama":
        make_model_with_positions(make_tokenizer(), model).save_pretrained(folder)
    change(folder, **{key: 10**9})
    before = peak_memory_bytes("cpu")
    with pytest.raises(ModelError, match=says):
        load_model_and_tokenizer(str(folder))
    assert peak_memory_bytes("cpu") - before < 2**30


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder, bad):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = bad
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"1 weight tensor contains NaN or infinity, model\.norm\.weight first"
    ):
        load_model_and_tokenizer(str(folder))


def test_whole_numbers_are_no_weights(folder):
    weights = {key: weight.to(torch.int8) for key, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"holds whole numbers \(I8\)"):
        load_model_and_tokenizer(str(folder))


def test_a_tokenizer_larger_than_the_embeddings_is_refused(tmp_path):
    tokenizer = make_tokenizer()
    make_model(tokenizer).save_pretrained(tmp_path)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"counts to \d+ \('<pad>'\), and the model has embeddings for"):
        load_model_and_tokenizer(str(tmp_path))


def test_a_tokenizer_model_alone_says_what_it_needs(folder):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>" * 200)
    with pytest.raises(ModelError, match="sentencepiece"):
        load_model_and_tokenizer(str(folder))


def test_gguf_files_are_called_what_they_are(tmp_path):
    (tmp_path / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="GGUF"):
        locate_model(str(tmp_path))
