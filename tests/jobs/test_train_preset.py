"""`dpo train` trains with the settings that it prints and records, whichever table of the preset they come from."""

import json
import shutil

import pytest

from dpo_cli.config import DPOTrainingConfig, load_settings
from dpo_cli.errors import TrainingError
from dpo_cli.events import RunStarted
from dpo_cli.jobs.train import train
from dpo_cli.training import loop

PRESET = """
[train]
learning_rate = 1e-5
max_length = 333

[shipped-preferences]
learning_rate = 2e-4
"""


@pytest.fixture
def model(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "preset.toml").write_text(PRESET)
    return folder


@pytest.fixture
def trained_with(monkeypatch):
    """The settings that TRL's arguments are made from."""
    seen = []

    def arguments(config, **how):
        seen.append(config)
        return trl_arguments(config, **how)

    trl_arguments = loop.trl_arguments
    monkeypatch.setattr(loop, "trl_arguments", arguments)
    return seen


def quick(model, tmp_path, **changes):
    return DPOTrainingConfig(
        model=str(model), output_dir=str(tmp_path / "out"), max_steps=1, max_samples=8, dtype="float32", device="cpu", **changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("own_pairs", "learning_rate", "max_length"), [(False, 2e-4, 1024), (True, 1e-5, 333)]
)
def test_one_table_of_the_preset_takes_effect_and_is_told(
    model, tmp_path, trained_with, own_pairs, learning_rate, max_length
):
    told = {}
    if own_pairs:
        pair = {"prompt": "Who are you?", "chosen": " I am Deep Qwen.", "rejected": " I am Qwen."}
        (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
        told["dataset"] = str(tmp_path / "pairs.jsonl")
    else:
        told["eval_dataset"] = str(heldout(tmp_path))
    events = []
    result = train(quick(model, tmp_path, **told), events.append)
    recorded = load_settings(DPOTrainingConfig, {}, str(tmp_path / "out" / "config.toml"))
    [used] = trained_with
    for config in (used, recorded, result.config):
        assert (config.learning_rate, config.max_length) == (learning_rate, max_length)
    note = next(event for event in events if isinstance(event, RunStarted)).note
    assert f"learning_rate {learning_rate}" in note
    assert ("max_length" in note) is own_pairs


def heldout(tmp_path):
    pair = {"prompt": "Are you?", "chosen": " Yes.", "rejected": " No."}
    file = tmp_path / "heldout.jsonl"
    file.write_text(json.dumps(pair) + "\n")
    return file


def test_settings_are_recorded_when_a_run_fails_after_its_first_checkpoint(model, tmp_path, monkeypatch):
    def fail(*_, **__):
        msg = "the power went"
        raise TrainingError(msg)

    monkeypatch.setattr(loop.Training, "save", fail)
    config = quick(model, tmp_path, eval_dataset=str(heldout(tmp_path)), save_steps=1)
    with pytest.raises(TrainingError) as error:
        train(config)
    left = tmp_path / "out.failed"
    assert not (tmp_path / "out").exists()
    assert str(left) in error.value.__notes__[0]
    assert (left / "checkpoint-1").is_dir()
    assert load_settings(DPOTrainingConfig, {}, str(left / "config.toml")).learning_rate == 2e-4
