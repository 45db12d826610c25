from __future__ import annotations

import ast
import math
import re
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dpo_cli.config import (
    AskConfig,
    BenchConfig,
    CheckConfig,
    CompareConfig,
    DPOTrainingConfig,
    IdentityShiftConfig,
    apply_preset,
    load_settings,
    to_toml,
)
from dpo_cli.config.settings import LossType
from dpo_cli.config.trl_table import trl_fields
from dpo_cli.errors import ConfigError

ALL = [BenchConfig, CheckConfig, CompareConfig, DPOTrainingConfig, IdentityShiftConfig, AskConfig]
NAMES = {"original_name": "Qwen", "new_name": "Deep Qwen"}


def lines(error) -> list[str]:
    return error.value.message.splitlines()


def test_the_specifications_seven_fields_have_its_defaults():
    config = DPOTrainingConfig()
    assert (config.beta, config.learning_rate, config.num_train_epochs) == (0.2, 5e-5, 1)
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps) == (1, 8)
    assert (config.logging_steps, config.output_dir) == (2, "./dpo_output")


@pytest.mark.parametrize("cls", ALL)
def test_every_setting_has_a_help_text_and_a_panel(cls):
    for name, field in cls.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert field.json_schema_extra["panel"], name


def test_the_help_of_beta_has_it_the_right_way_round():
    assert "higher stays closer to it" in DPOTrainingConfig.model_fields["beta"].description


def test_settings_are_frozen_and_know_their_keys():
    config = DPOTrainingConfig()
    with pytest.raises(ValidationError):
        config.beta = 1.0
    with pytest.raises(ValidationError):
        DPOTrainingConfig(betta=1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0, -1, "0.1", None, True])
def test_beta_refuses_what_is_no_positive_number(value):
    with pytest.raises(ValidationError):
        DPOTrainingConfig(beta=value)


@pytest.mark.parametrize("rate", [0, -1e-5, 1.0001])
def test_learning_rate_is_bounded(rate):
    with pytest.raises(ValidationError):
        DPOTrainingConfig(learning_rate=rate)


def test_flags_win_over_toml_and_toml_over_defaults(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("beta = 0.3\nseed = 7\n")
    config = load_settings(DPOTrainingConfig, {"beta": "0.4", "max_steps": None, "loss_type": []}, str(file))
    assert (config.beta, config.seed, config.learning_rate) == (0.4, 7, 5e-5)


def test_all_mistakes_are_told_at_once_with_their_source(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'learning_rte = 1e-4\nbeta = "0.3"\nmax_length = 1.5\n[trl]\nwarmup_ration = 0.1\nbeta = 1\n'
    )
    with pytest.raises(ConfigError) as error:
        load_settings(DPOTrainingConfig, {"learning_rate": "nan", "seed": "x", "device": "gpu"}, str(file))
    told = lines(error)
    assert f"{file}: learning_rte: unknown key, did you mean learning_rate?" in told
    assert any(line.startswith(f"{file}: beta: ") and "valid number" in line for line in told)
    assert any(line.startswith(f"{file}: max_length: ") for line in told)
    assert any(
        line.startswith(f"{file}: trl: warmup_ration is not a field") and "beta is a dpo setting" in line
        for line in told
    )
    assert any(line.startswith("--learning-rate: must be a finite number") for line in told)
    assert any(line.startswith("--seed: ") for line in told)
    assert any(line.startswith("--device: ") and "gpu" in line for line in told)
    assert len(told) == 7
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [("beta = ", "is not valid TOML"), (b"\xff\xfe", "is not UTF-8"), (None, "no such file")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, says):
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=says) as error:
        load_settings(DPOTrainingConfig, {}, str(file))
    assert str(file) in error.value.message


def test_missing_names_are_named_by_their_flags():
    with pytest.raises(ConfigError) as error:
        load_settings(IdentityShiftConfig, {})
    assert lines(error) == ["--original-name: is required", "--new-name: is required"]


def test_same_old_and_new_name_is_refused_also_with_blanks_around():
    with pytest.raises(ConfigError, match="--new-name: is the same as the original name"):
        load_settings(IdentityShiftConfig, {"original_name": "Qwen", "new_name": " Qwen "})


def test_trl_table_takes_trls_own_fields_from_flags_and_toml(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("[trl]\ndataloader_num_workers = 2\n")
    assert load_settings(DPOTrainingConfig, {}, str(file)).trl == {"dataloader_num_workers": 2}
    assert load_settings(DPOTrainingConfig, {"trl": ["adam_beta2=0.95", "run_name=a b"]}).trl == {
        "adam_beta2": 0.95,
        "run_name": "a b",
    }


def test_trl_fields_are_those_of_trls_dataclass():
    import dataclasses

    from trl import DPOConfig

    assert set(trl_fields()) == {
        field.name for field in dataclasses.fields(DPOConfig) if not field.name.startswith("_")
    }


def test_losses_and_weights_must_match():
    with pytest.raises(ConfigError, match="--loss-weights: 1 weights for 2 losses"):
        load_settings(DPOTrainingConfig, {"loss_type": ["sigmoid", "sft"], "loss_weights": ["1"]})


def test_a_stream_needs_max_steps():
    with pytest.raises(ConfigError, match="--max-steps"):
        load_settings(DPOTrainingConfig, {"streaming": True})


@given(
    beta=st.floats(1e-6, 1e3),
    rate=st.floats(1e-9, 1),
    seed=st.integers(0, 2**32 - 1),
    name=st.text(min_size=1, max_size=20).filter(lambda s: s.strip() == s),
    losses=st.lists(st.sampled_from(["sigmoid", "ipo", "sft"]), min_size=1, max_size=3),
)
def test_a_written_toml_reads_back_as_the_same_settings(tmp_path_factory, beta, rate, seed, name, losses):
    config = IdentityShiftConfig(
        original_name="Q",
        new_name="x",
        beta=beta,
        learning_rate=rate,
        seed=seed,
        loss_type=tuple(losses),
        system_prompt=name,
    )
    file = tmp_path_factory.mktemp("toml") / "config.toml"
    file.write_text(to_toml(config, "Written by a test."), encoding="utf-8")
    assert load_settings(IdentityShiftConfig, {}, str(file)) == config


def test_a_preset_fills_only_what_was_not_given():
    config = load_settings(IdentityShiftConfig, {**NAMES, "beta": "0.2"})
    filled, used = apply_preset(config, {"beta": 0.9, "learning_rate": 1e-3}, "preset.toml")
    assert (filled.beta, filled.learning_rate) == (0.2, 1e-3)
    assert used == {"learning_rate": 1e-3}


def test_a_broken_preset_is_named():
    with pytest.raises(ConfigError, match=r"preset.toml: learning_rate: must be less than"):
        apply_preset(IdentityShiftConfig(**NAMES), {"learning_rate": 3.0}, "preset.toml")


def test_other_divergences_are_refused_with_the_losses_with_which_trl_refuses_them():
    source = Path(find_spec("trl").origin).with_name("trainer") / "dpo_trainer.py"
    offered = ast.literal_eval(
        re.search(r"f_divergence_loss_types = (\{.*?\})", source.read_text(encoding="utf-8"))[1]
    )
    for loss in get_args(LossType):
        flags = {"loss_type": [loss], "f_divergence_type": "js_divergence", "label_smoothing": "0.1"}
        if loss not in {"robust", "exo_pair", "aot", "aot_unpaired"}:
            del flags["label_smoothing"]
        if loss in offered - {"sft"}:
            load_settings(DPOTrainingConfig, flags)
        else:
            with pytest.raises(ConfigError, match=r"--f-divergence-type: (TRL does not|has no effect)"):
                load_settings(DPOTrainingConfig, flags)


@pytest.mark.parametrize("loss", ["hinge", "aot", "aot_unpaired"])
def test_weighting_is_refused_where_trl_cannot_weight(loss):
    with pytest.raises(ConfigError, match=f"--use-weighting: TRL does not offer it with the loss {loss}"):
        load_settings(DPOTrainingConfig, {"loss_type": ["sigmoid", loss], "use_weighting": True})
