"""Output folders and settings that version 0.1 (commit b4666d4) wrote are read as before.

`old_runs/` holds what that version wrote, without its reports and the weights that are the embedded model's.
"""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from dpo_cli.cli.app import main
from dpo_cli.config import DPOTrainingConfig, IdentityShiftConfig, load_settings
from dpo_cli.models.locate import locate_model

OLD = Path(__file__).parent / "old_runs"
MODEL_FILES = ("model.safetensors", "config.json", "generation_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The folder that version 0.1 ran in, with the shipped weights in place of those of a step of training."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    embedded = locate_model("embedded").folder
    for name in (*MODEL_FILES, *TOKENIZER_FILES):
        shutil.copy(embedded / name, tmp_path / "renamed")
    for name in TOKENIZER_FILES:
        shutil.copy(embedded / name, tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def dpo(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dpo", *arguments, "--json"])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert stop.value.code in {0, 3}, printed.err
        return json.loads(printed.out)

    return run


@pytest.mark.parametrize(
    ("cls", "file"),
    [
        (DPOTrainingConfig, "train.toml"),
        (DPOTrainingConfig, "adapter/config.toml"),
        (IdentityShiftConfig, "identity-shift.toml"),
        (IdentityShiftConfig, "renamed/config.toml"),
    ],
)
def test_old_settings_keep_their_values(cls, file):
    written = tomllib.loads((OLD / file).read_text(encoding="utf-8"))
    read = load_settings(cls, {}, str(OLD / file)).model_dump()
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in read.items()}
    assert {key: plain[key] for key in written} == written


def test_an_old_adapter_is_compared_with_its_base_on_its_held_out_pairs(old, dpo):
    found = dpo("compare", "--after", "adapter", "-q", "Who are you?")
    told = json.loads((OLD / "adapter/comparison.json").read_text(encoding="utf-8"))
    assert found["before"] == {"model": "embedded"}
    for score in ("reward_accuracy", "reward_margin"):
        assert found["scores"][score]["after"]["value"] == pytest.approx(
            told["scores"][score]["after"]["value"], abs=1e-4
        )


def test_an_old_renamed_model_is_asked_for_the_names_of_its_run(old, dpo):
    found = dpo("compare", "--after", "renamed", "--html", "report.html")
    assert {"new_name", "old_name"} <= found["scores"].keys()
    assert (old / "report.html").is_file()


def test_an_old_run_is_repeated_from_its_config_toml(old, dpo):
    found = dpo("train", "--config", "adapter/config.toml", "-o", "again")["comparison"]
    told = json.loads((OLD / "adapter/comparison.json").read_text(encoding="utf-8"))
    assert found["scores"]["reward_margin"]["after"]["value"] == pytest.approx(
        told["scores"]["reward_margin"]["after"]["value"], abs=1e-4
    )
    assert (old / "again/adapter_model.safetensors").is_file()


def test_an_old_folder_is_replaced_with_overwrite(old, dpo):
    dpo("train", "--config", "adapter/config.toml", "--overwrite")
    assert (old / "adapter/report.html").is_file()
