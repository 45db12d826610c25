"""What TRL, transformers or torch refuse is said with its key before anything is read; the environment changes nothing unseen."""

import random

import numpy as np
import pytest
import torch
from training.runs import settings

from dpo_cli.config import DPOTrainingConfig, IdentityShiftConfig, load_settings
from dpo_cli.errors import ConfigError
from dpo_cli.jobs.identity_shift import identity_shift
from dpo_cli.jobs.train import train
from dpo_cli.training.preflight import preflight
from dpo_cli.training.trainer import DPOTrainerWrapper


def refused(*given, evaluate=False, **flags):
    config = load_settings(DPOTrainingConfig, {"trl": list(given)} | flags)
    with pytest.raises(ConfigError) as error:
        preflight(config, evaluate=evaluate)
    return error.value.message


@pytest.mark.parametrize(
    "given",
    [
        "optim_args=zz",
        "adam_beta1=5",
        "accelerator_config=nofile",
        "eval_on_start=true",
        "use_liger_kernel=true",
        "save_strategy=zz",
        "dataloader_prefetch_factor=2",
    ],
)
def test_a_value_that_is_refused_later_is_named_with_its_key(given):
    message = refused(given)
    assert message.startswith(f"trl: {given.partition('=')[0]}: ")
    assert "\n" not in message


def test_two_mistakes_are_told_at_once_and_two_that_clash_together():
    told = refused("adam_beta1=5", "optim_args=zz").splitlines()
    assert [line.split(":")[1].strip() for line in told] == ["adam_beta1", "optim_args"]
    assert refused("sync_ref_model=true", "precompute_ref_log_probs=true", "adam_beta2=0.95").startswith(
        "trl: sync_ref_model, trl: precompute_ref_log_probs: "
    )


def test_a_schedule_that_needs_more_says_what():
    assert refused(lr_scheduler_type="cosine_with_min_lr").startswith("--lr-scheduler-type: ")
    config = load_settings(
        DPOTrainingConfig,
        {"lr_scheduler_type": "cosine_with_min_lr", "trl": ["lr_scheduler_kwargs={min_lr=1e-6}"]},
    )
    preflight(config, evaluate=False)


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (["neftune_noise_alpha=5.0", "adam_beta2=0.95", "dataloader_drop_last=true"], {}),
        (["adam_epsilon=1e-6"], {"lora_rank": "4", "optim": "adafactor"}),
        (["sync_ref_model=true"], {}),
        (["eval_on_start=true"], {}),
        ([], {"lr_scheduler_type": "cosine_with_restarts", "optim": "sgd"}),
    ],
)
def test_what_can_be_trained_with_is_taken_and_draws_no_random_number(given, flags):
    before = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    preflight(load_settings(DPOTrainingConfig, {"trl": given} | flags), evaluate=True)
    after = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert after == before


def test_every_way_into_training_asks_first(tmp_path, pairs, monkeypatch):
    def refuse(config, *, evaluate):
        raise ConfigError(f"trl: {', '.join(config.trl)}: no")

    monkeypatch.setattr("dpo_cli.training.rehearsal.rehearse", refuse)
    wrong = {"trl": {"adam_beta1": 5.0}}
    for run in (
        lambda: train(settings(tmp_path / "out", model="nothing", dataset="nothing", **wrong)),
        lambda: identity_shift(
            IdentityShiftConfig(
                model="nothing", original_name="A", new_name="B", output_dir=str(tmp_path / "out"), **wrong
            )
        ),
        lambda: DPOTrainerWrapper(
            "nothing", train_dataset=pairs, training_config=settings(tmp_path / "out", **wrong)
        ),
    ):
        with pytest.raises(ConfigError, match="trl: adam_beta1: "):
            run()
    assert list(tmp_path.iterdir()) == []


def test_evaluations_without_pairs_to_evaluate_on_are_refused(tmp_path, pairs):
    config = settings(tmp_path / "out", eval_steps=2, model="nothing", dataset="nothing")
    with pytest.raises(ConfigError, match="--eval-steps: has no effect without held-out pairs"):
        train(config)
    with pytest.raises(ConfigError, match="--eval-steps"):
        DPOTrainerWrapper("nothing", train_dataset=pairs, training_config=config)
    preflight(config, evaluate=True)


def test_a_threshold_for_held_out_pairs_without_any_is_refused(tmp_path):
    config = settings(tmp_path / "out", min_reward_accuracy=0.9, eval_steps=2, dataset="nothing")
    with pytest.raises(ConfigError) as error:
        preflight(config, evaluate=False)
    assert error.value.message.splitlines() == [
        "--eval-steps: has no effect without held-out pairs",
        "--min-reward-accuracy: has no effect without held-out pairs",
    ]
    preflight(config, evaluate=True)
    preflight(settings(tmp_path / "out", min_reward_accuracy=0.5), evaluate=False)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ACCELERATE_DYNAMO_BACKEND", "inductor", "torch_compile=true"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "--dtype"),
        ("ACCELERATE_USE_FSDP", "true", "Unset it"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "--gradient-accumulation-steps"),
    ],
)
def test_the_environment_does_not_change_a_run_unseen(name, value, says, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name} is set to {value}") as error:
        preflight(DPOTrainingConfig(), evaluate=False)
    assert says in error.value.hint


def test_what_accelerate_launch_sets_for_one_process_is_no_obstacle(monkeypatch):
    for name, value in {
        "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_CPU": "False",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1", "ACCELERATE_DYNAMO_MODE": "default", "WORLD_SIZE": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    preflight(DPOTrainingConfig(), evaluate=False)
