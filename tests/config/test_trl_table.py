"""Values of the trl table are held against the types that TRL's DPOConfig declares, before torch is loaded."""

import dataclasses
import subprocess
import sys
from typing import Any, get_type_hints

import pytest

from dpo_cli.config import DPOTrainingConfig, load_settings
from dpo_cli.config.trl_table import trl_types
from dpo_cli.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("bf16=3", "bf16 must be true or false, not 3"),
        ("bf16=maybe", "bf16 must be true or false, not 'maybe'"),
        ("sync_ref_model=3", "sync_ref_model must be true or false, not 3"),
        ("ref_model_mixup_alpha=x", "ref_model_mixup_alpha must be a number, not 'x'"),
        ("ref_model_mixup_alpha=2", "ref_model_mixup_alpha must be from 0 to 1, not 2"),
        ("optim_target_modules=3", "optim_target_modules must be text or a list of text, not 3"),
        ("activation_checkpointing_kwargs=3", "activation_checkpointing_kwargs must be a table or text, not 3"),
        ("activation_checkpointing_kwargs=x", "activation_checkpointing_kwargs must be a table, not 'x'"),
        ("precompute_ref_batch_size=-1", "precompute_ref_batch_size must be from 1 to 1,048,576, not -1"),
        ("precompute_ref_batch_size=1.5", "precompute_ref_batch_size must be a whole number, not 1.5"),
        ("dataset_num_proc=100000000", "dataset_num_proc must be from 1 to 1,024"),
        ("adam_epsilon=nan", "adam_epsilon must be a finite number, not nan"),
        ("label_names=[3]", "label_names must be a list of text, not [3]"),
        ("liger_kernel_config={a = 3}", "liger_kernel_config must be a table of true or false, not {'a': 3}"),
        ("trackio_static_space_id=true", "trackio_static_space_id must be text or false, not True"),
        ("adam_beta1=" + "x" * 100, "adam_beta1 must be a number"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_or_out_of_range_is_refused_with_its_key(given, says):
    with pytest.raises(ConfigError) as error:
        load_settings(DPOTrainingConfig, {"trl": [given]})
    assert error.value.message.startswith("--trl: ")
    assert says in error.value.message + "\n"


def test_every_mistake_of_the_table_is_told_at_once(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("[trl]\nbf16 = 3\nadam_beta1 = 'x'\nadam_beta3 = 1\n")
    with pytest.raises(ConfigError) as error:
        load_settings(DPOTrainingConfig, {}, str(file))
    for key in ("bf16 must be", "adam_beta1 must be", "adam_beta3 is not a field"):
        assert key in error.value.message


@pytest.mark.parametrize(
    "given",
    ["adam_beta2=1", "adam_epsilon=1e-6", "bf16=true", "pad_to_multiple_of=8", "pad_to_multiple_of=auto",
     "optim_target_modules=['q_proj']", "optim_target_modules=all-linear", "lr_scheduler_kwargs={min_lr=1e-6}",
     "lr_scheduler_kwargs='{\"min_lr\": 1e-6}'", "save_strategy=best", "trackio_static_space_id=false"],
)  # fmt: skip
def test_a_value_that_trl_declares_is_taken(given):
    load_settings(DPOTrainingConfig, {"trl": [given]})


def test_a_recorded_run_is_read_whatever_its_table_says(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text("[trl]\nbf16 = 3\nno_longer_there = 1\n")
    assert load_settings(DPOTrainingConfig, {}, str(file), recorded=True).trl["bf16"] == 3


def test_the_types_are_those_of_trl_itself():
    """Python's own reading of the imported class: the same, but where a class of transformers stands in it."""
    from trl import DPOConfig

    hints = get_type_hints(DPOConfig)
    types = trl_types()
    assert types.keys() == {field.name for field in dataclasses.fields(DPOConfig) if field.init}
    plain = {
        name
        for name, hint in hints.items()
        if "transformers" not in repr(hint) and "accelerate" not in repr(hint)
    }
    differing = {
        name: (types[name], hints[name]) for name in plain & types.keys() if types[name] != hints[name]
    }
    assert differing == {}
    assert len(plain & types.keys()) > 100
    assert {name for name, of in types.items() if of is Any} <= {"parallelism_config"}


def test_a_wrong_value_is_told_without_loading_torch():
    code = (
        "import sys; from dpo_cli.config import DPOTrainingConfig as C, load_settings\n"
        "try: load_settings(C, {'trl': ['bf16=3']})\n"
        "except Exception: print(sorted({'torch', 'trl', 'transformers'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
