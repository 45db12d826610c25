"""What a model's preset may say: how it is trained. It comes from whoever made the model."""

from __future__ import annotations

import shutil

import pytest

from dpo_cli.config import (
    EMBEDDED,
    PRESET_SETTINGS,
    DPOTrainingConfig,
    IdentityShiftConfig,
    apply_preset,
)
from dpo_cli.errors import ConfigError, ModelError
from dpo_cli.jobs.train import SHIPPED, train
from dpo_cli.models.locate import locate_model, read_preset


@pytest.fixture
def with_preset(tiny_model, tmp_path):
    folder = tmp_path / "with-preset"
    shutil.copytree(tiny_model, folder)

    def write(preset):
        (folder / "preset.toml").write_bytes(preset if isinstance(preset, bytes) else preset.encode())
        return locate_model(str(folder))

    return write


def test_the_shipped_preset_is_allowed_for_every_job():
    for job in ("train", "identity-shift", SHIPPED):
        for lora in (False, True):
            assert read_preset(locate_model(EMBEDDED), job, lora=lora)[0]


def test_what_a_preset_may_say_is_written_down():
    # A new setting in one of the panels must be thought about here: could it write, read, run or send anything?
    assert {
        "beta", "loss_type", "loss_weights", "label_smoothing", "ld_alpha", "f_divergence_type",
        "f_alpha_divergence_coef", "use_weighting", "discopop_tau",
        "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "per_device_eval_batch_size",
        "gradient_accumulation_steps", "lr_scheduler_type", "warmup_steps", "warmup_ratio", "weight_decay", "max_grad_norm",
        "gradient_checkpointing", "max_length", "truncation_mode", "seed", "engine",
        "lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules",
    } == PRESET_SETTINGS  # fmt: skip


OTHERS = sorted(
    (DPOTrainingConfig.model_fields.keys() | IdentityShiftConfig.model_fields.keys()) - PRESET_SETTINGS
)


@pytest.mark.parametrize("key", [*OTHERS, "no_such_setting"])
@pytest.mark.parametrize("table", ["train", "train.lora"])
def test_anything_else_is_refused_by_name(with_preset, key, table):
    located = with_preset(f"[{table}]\nbeta = 0.1\n{key} = true\n")
    with pytest.raises(ModelError, match=rf"preset.toml: \[{table}\]: {key}: a preset may only set") as error:
        read_preset(located, "train", lora=False)
    assert error.value.exit_code == 2


def test_no_code_of_the_model_is_run_and_nothing_is_written_because_its_preset_says_so(with_preset, tmp_path):
    located = with_preset(
        f"[train]\ntrust_remote_code = true\noverwrite = true\noutput_dir = '{tmp_path}/theirs'\n"
        "[train.trl]\npush_to_hub = true\n"
    )
    config = DPOTrainingConfig(
        model=located.name, dataset=str(tmp_path / "none.jsonl"), output_dir=str(tmp_path / "out")
    )
    with pytest.raises(ModelError, match="output_dir, overwrite, trl, trust_remote_code"):
        train(config)
    assert [path.name for path in tmp_path.iterdir()] == ["with-preset"]


@pytest.mark.parametrize(
    ("preset", "says"),
    [
        ("[train", "preset.toml: cannot be read"),
        (b"[train]\nbeta = 0.1 # \xff\n", "preset.toml: cannot be read"),
        ("train = 'x'", r"preset.toml: \[train\]: must be a table of settings, not str"),
        ("[train]\nlora = 3", r"preset.toml: \[train.lora\]: must be a table of settings, not int"),
        ("a = " + "[" * 5000, "preset.toml: cannot be read"),
    ],
)
def test_a_malformed_preset_is_one_message(with_preset, preset, says):
    with pytest.raises(ModelError, match=says) as error:
        read_preset(with_preset(preset), "train", lora=False)
    assert "\n" not in error.value.message
    assert "remove it from the file" in error.value.hint


def test_a_value_out_of_range_is_named_with_the_file(with_preset):
    preset, origin = read_preset(with_preset("[train]\nlearning_rate = 3.0\n"), "train", lora=False)
    with pytest.raises(ConfigError, match=r"preset.toml: learning_rate: must be less than"):
        apply_preset(DPOTrainingConfig(), preset, origin)
