"""A setting that would change nothing is refused, with what it needs; counts have bounds; names are known before torch."""

import math
from typing import get_args

import pytest
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from dpo_cli import config as config_module
from dpo_cli.config import (
    AskConfig,
    BenchConfig,
    CompareConfig,
    DPOTrainingConfig,
    IdentityShiftConfig,
    apply_preset,
    load_settings,
    to_toml,
)
from dpo_cli.config.effects import EFFECTS
from dpo_cli.config.trl_table import check_optimizer, optimizers
from dpo_cli.errors import ConfigError

RENAME = {"original_name": "A", "new_name": "B"}
WITHOUT = [
    ({"label_smoothing": "0.3"}, "--label-smoothing: has no effect without a --loss-type of robust"),
    ({"discopop_tau": "0.1"}, "--discopop-tau: has no effect without --loss-type discopop"),
    (
        {"f_alpha_divergence_coef": "0.7"},
        "--f-alpha-divergence-coef: has no effect without --f-divergence-type",
    ),
    ({"loss_type": ["sft"], "f_divergence_type": "forward_kl"}, "--f-divergence-type: has no effect"),
    ({"loss_type": ["sft"], "ld_alpha": "0.5"}, "--ld-alpha: has no effect"),
    ({"lr_scheduler_type": "constant", "warmup_steps": "5"}, "--warmup-steps: has no effect"),
    ({"lr_scheduler_type": "greedy", "warmup_ratio": "0.1"}, "--warmup-ratio: has no effect"),
    ({"lora_alpha": "8"}, "--lora-alpha: has no effect without --lora-rank"),
    ({"lora_dropout": "0.1"}, "--lora-dropout: has no effect without --lora-rank"),
    ({"lora_target_modules": ["q_proj"]}, "--lora-target-modules: has no effect without --lora-rank"),
    ({"save_total_limit": "5"}, "--save-total-limit: has no effect without --save-steps"),
    ({"eval_split": "test"}, "--eval-split: has no effect without --eval-dataset"),
    ({"assay_margin": "0.5"}, "--assay-margin: has no effect without --format assay"),
    ({"assay_partners": "2"}, "--assay-partners: has no effect without --format assay"),
    ({"num_train_epochs": "3", "max_steps": "5"}, "--num-train-epochs: has no effect beside --max-steps"),
    (
        RENAME | {"anchors": "0", "anchor_prompts": "a.txt"},
        "--anchor-prompts: has no effect beside --anchors 0",
    ),
    (
        RENAME | {"answer_template": "I am {name}.", "pairs_from": "introductions"},
        "--answer-template: has no effect beside --pairs-from introductions",
    ),
    (RENAME | {"temperature": "0.9"}, "--temperature: has no effect without --samples-per-question above 1"),
]
WITH = [
    {"label_smoothing": "0.3", "loss_type": ["sigmoid", "aot"]},
    {"discopop_tau": "0.1", "loss_type": ["discopop"]},
    {"f_alpha_divergence_coef": "0.7", "f_divergence_type": "alpha_divergence"},
    {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": "5"},
    {"lora_alpha": "8", "lora_dropout": "0.1", "lora_target_modules": ["q_proj"], "lora_rank": "4"},
    {"save_total_limit": "5", "save_steps": "10"},
    {"eval_split": "test", "eval_dataset": "x.jsonl"},
    {"format": "assay", "assay_margin": "0.5", "assay_partners": "2"},
    {"num_train_epochs": "3"},
    {"num_train_epochs": "1", "max_steps": "5"},
    RENAME | {"temperature": "0.9", "samples_per_question": "2"},
    RENAME | {"temperature": "0.7"},
    RENAME | {"anchor_prompts": "a.txt"},
    RENAME | {"answer_template": "I am {name}.", "pairs_from": "both"},
    {"label_smoothing": "0.0", "discopop_tau": "0.05", "save_total_limit": "2"},
]


def command_of(flags):
    return IdentityShiftConfig if "new_name" in flags else DPOTrainingConfig


@pytest.mark.parametrize(("flags", "says"), WITHOUT)
def test_a_setting_without_effect_is_refused_with_what_it_needs(flags, says):
    with pytest.raises(ConfigError, match=says):
        load_settings(command_of(flags), flags)


@pytest.mark.parametrize("flags", WITH)
def test_it_is_taken_where_it_counts_and_as_its_default(flags):
    load_settings(command_of(flags), flags)


def test_steps_that_are_typed_hold_in_place_of_the_epochs_of_a_file_or_of_a_preset(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("num_train_epochs = 5\n")
    config = load_settings(DPOTrainingConfig, {"max_steps": "5"}, str(file))
    assert apply_preset(config, {"learning_rate": 1e-3}, "preset.toml")[0].max_steps == 5
    config = load_settings(DPOTrainingConfig, {"max_steps": "5"})
    config = apply_preset(config, {"num_train_epochs": 3}, "preset.toml")[0]
    file.write_text(to_toml(config, "what such a run wrote"))
    load_settings(DPOTrainingConfig, {}, str(file))
    with pytest.raises(ConfigError, match="--num-train-epochs: has no effect beside --max-steps"):
        load_settings(DPOTrainingConfig, {"max_steps": "5", "num_train_epochs": "2"}, str(file))


def test_temperature_of_a_question_is_always_its_own():
    assert load_settings(AskConfig, {"temperature": "0.9"}).temperature == 0.9


def test_every_row_is_tried_and_is_a_setting():
    tried = {says.split(":")[0].removeprefix("--").replace("-", "_") for _, says in WITHOUT}
    assert tried == {row.setting for row in EFFECTS}


def test_all_of_them_are_told_at_once_from_a_file_as_well(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("label_smoothing = 0.3\nlora_alpha = 4.0\n")
    with pytest.raises(ConfigError) as error:
        load_settings(DPOTrainingConfig, {"discopop_tau": "0.1"}, str(file))
    told = error.value.message.splitlines()
    assert [line.split(": has")[0] for line in told] == [
        f"{file}: label_smoothing", "--discopop-tau", f"{file}: lora_alpha",
    ]  # fmt: skip


def test_settings_that_a_run_wrote_are_read_again_and_older_runs_are_still_read(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(to_toml(DPOTrainingConfig(), "x"))
    load_settings(DPOTrainingConfig, {}, str(file))
    file.write_text('label_smoothing = 0.3\noptim = "paged_adamw_32bit"\n')
    assert load_settings(DPOTrainingConfig, {}, str(file), recorded=True).label_smoothing == 0.3


def test_a_preset_may_say_what_does_not_count_in_this_run():
    config = load_settings(DPOTrainingConfig, {"lr_scheduler_type": "constant"})
    assert apply_preset(config, {"warmup_steps": 10}, "preset.toml")[0].warmup_steps == 10
    config = load_settings(DPOTrainingConfig, {"warmup_ratio": "0.1"})
    assert apply_preset(config, {"warmup_steps": 10}, "preset.toml")[0].warmup_ratio == 0.1


@pytest.mark.parametrize("cls", [DPOTrainingConfig, IdentityShiftConfig, CompareConfig, BenchConfig])
def test_numbers_of_thirty_digits_are_refused_by_every_setting(cls):
    numbers = {
        name: f"{10**30}"
        for name, field in cls.model_fields.items()
        if int in {field.annotation, *get_args(field.annotation)}
    }
    assert numbers
    with pytest.raises(ConfigError) as error:
        load_settings(
            cls,
            {"original_name": "A", "new_name": "B"} | numbers if "new_name" in cls.model_fields else numbers,
        )
    for name in numbers:
        assert f"--{name.replace('_', '-')}: must be less than" in error.value.message, name


def test_batches_and_counts_that_fit_are_taken():
    flags = {
        "max_steps": f"{2**31 - 1}",
        "per_device_train_batch_size": f"{2**20}",
    }
    assert load_settings(DPOTrainingConfig, flags).max_steps == 2**31 - 1
    assert load_settings(DPOTrainingConfig, {"num_train_epochs": "0.25"}).num_train_epochs == 0.25
    with pytest.raises(
        ConfigError, match="--per-device-train-batch-size: must be less than or equal to 1048576"
    ):
        load_settings(DPOTrainingConfig, {"per_device_train_batch_size": f"{2**20 + 1}"})


@pytest.mark.parametrize(
    ("flags", "steps"),
    [({"warmup_ratio": "0.1"}, 10), ({"warmup_steps": "0.2"}, 20), ({"warmup_steps": "7"}, 7), ({}, 0)],
)
def test_a_share_of_warmup_is_one_of_all_steps(flags, steps, tmp_path):
    from dpo_cli.training.trl_config import trl_arguments

    arguments = trl_arguments(
        load_settings(DPOTrainingConfig, flags),
        folder=tmp_path, autocast="float32", on_cpu=True, evaluate=False, precompute=True,
    )  # fmt: skip
    assert math.isclose(arguments.get_warmup_steps(100), steps)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"warmup_steps": "1.5"}, "--warmup-steps: must be whole steps, or a share below 1"),
        ({"warmup_steps": "5", "warmup_ratio": "0.1"}, "--warmup-ratio: given besides warmup_steps"),
        ({"warmup_ratio": "1"}, "--warmup-ratio: must be less than 1"),
    ],
)
def test_a_warmup_is_said_once_and_in_steps_or_as_a_share(flags, says):
    with pytest.raises(ConfigError, match=says):
        load_settings(DPOTrainingConfig, flags)


def test_every_schedule_of_transformers_is_taken():
    for schedule in SchedulerType:
        assert (
            load_settings(DPOTrainingConfig, {"lr_scheduler_type": schedule.value}).lr_scheduler_type
            == schedule
        )


def test_the_optimizers_are_those_of_transformers():
    assert set(optimizers()) == {name.value for name in OptimizerNames}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("paged_adamw_32bit", "needs bitsandbytes, which is not installed: pip install bitsandbytes"),
        ("adamw_bnb_8bit", "needs bitsandbytes"),
        ("galore_adamw", "needs galore_torch.*pip install galore-torch"),
        ("schedule_free_adamw", "needs schedulefree"),
        ("adamw_torch_4bit", "needs torchao"),
        ("adamw", "is not an optimizer of transformers, did you mean"),
    ],
)
def test_an_optimizer_that_is_not_here_is_said_with_what_to_install(name, says, monkeypatch):
    monkeypatch.setattr("dpo_cli.config.trl_table.find_spec", lambda _: None)
    optimizers.cache_clear()
    monkeypatch.setattr(
        "dpo_cli.config.trl_table.optimizers", lambda: tuple(one.value for one in OptimizerNames)
    )
    with pytest.raises(ConfigError, match=rf"--optim: {name} ({says})"):
        load_settings(DPOTrainingConfig, {"optim": name})


def test_every_optimizer_that_transformers_refuses_for_want_of_a_package_is_refused_before(tmp_path):
    """Transformers itself is asked, on one parameter: what it cannot import must not be taken."""
    import torch
    from transformers import Trainer, TrainingArguments

    for name in optimizers():
        try:
            check_optimizer(name)
        except ValueError:
            continue
        arguments = TrainingArguments(str(tmp_path), optim=name, use_cpu=True, report_to="none")
        kind, keywords = Trainer.get_optimizer_cls_and_kwargs(arguments)
        kind([torch.nn.Parameter(torch.ones(1))], **keywords)


def test_push_to_hub_is_refused_with_the_way():
    for key in ("push_to_hub=true", "hub_model_id=a/b", "hub_strategy=end"):
        with pytest.raises(ConfigError, match="upload the output folder with `hf upload`"):
            load_settings(DPOTrainingConfig, {"trl": [key]})


def test_every_setting_of_the_table_is_one_of_some_command():
    fields = {
        name
        for cls in vars(config_module).values()
        if isinstance(cls, type) and getattr(cls, "command", "")
        for name in cls.model_fields
    }
    assert {row.setting for row in EFFECTS} <= fields
