"""A `generation_config.json` that transformers calls invalid is no reason to lose a trained model."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoModelForCausalLM

from dpo_cli.config import OptimizationConfig
from dpo_cli.models.locate import locate_model
from dpo_cli.training.policy import load_policy, save_policy


@pytest.mark.parametrize(
    "changes",
    [
        {"do_sample": False, "temperature": 0.6, "top_p": 0.9},
        {"do_sample": False, "top_k": 5, "of_next_year": 3},
        {"num_beams": 1, "early_stopping": True, "length_penalty": 2.0},
        {},
    ],
)
def test_what_was_there_is_kept(tiny_model, tmp_path, changes):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    located = locate_model(str(folder))
    model, tokenizer = load_policy(located, OptimizationConfig(device="cpu"))
    (tmp_path / "out").mkdir()
    save_policy(model, tokenizer, located, tmp_path / "out")
    assert (tmp_path / "out" / "generation_config.json").read_bytes() == file.read_bytes()
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_settings_of_sampling_in_the_model_s_own_configuration_are_saved(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "generation_config.json").unlink()
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 0.6, "do_sample": False}))
    located = locate_model(str(folder))
    model, tokenizer = load_policy(located, OptimizationConfig(device="cpu"))
    (tmp_path / "out").mkdir()
    save_policy(model, tokenizer, located, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
