"""The specification's API table: each name with its arguments, their order and defaults."""

import inspect
import re
from pathlib import Path

import pytest

import dpo_cli

NONE = inspect.Parameter.empty
TABLE = {
    "DPOTrainerWrapper": {
        "model_name": NONE,
        "dataset_name": None,
        "train_dataset": None,
        "training_config": None,
        "ref_model": None,
        "use_gpu": False,
        "max_samples": None,
    },
    "build_identity_shift_dataset": {
        "model": NONE,
        "tokenizer": NONE,
        "original_name": NONE,
        "new_name": NONE,
        "raw_dataset": None,
        "dataset_name": "mrfakename/identity",
        "system_prompt": "You're a helpful assistant.",
        "max_samples": None,
    },
    "build_dpo_dataset": {
        "model": NONE,
        "tokenizer": NONE,
        "raw_dataset": NONE,
        "prompt_column": "prompt",
        "chosen_transform": None,
    },
    "load_dpo_dataset": {"dataset_name": NONE, "split": "train", "max_samples": None},
}
CONFIG = {
    "beta": 0.2,
    "learning_rate": 5e-5,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "logging_steps": 2,
    "output_dir": "./dpo_output",
}
QUICKSTART = (Path(__file__).parents[2] / "docs/quickstart.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TABLE)
def test_arguments_come_in_the_specified_order_with_the_specified_defaults(name):
    parameters = list(inspect.signature(getattr(dpo_cli, name)).parameters.values())
    expected = TABLE[name]
    found = {one.name: one.default for one in parameters[: len(expected)]}
    assert found == expected
    assert list(found) == list(expected)
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(one.kind is positional for one in parameters[: len(expected)])


def test_the_configuration_has_the_specified_defaults():
    config = dpo_cli.DPOTrainingConfig()
    assert {name: getattr(config, name) for name in CONFIG} == CONFIG


@pytest.mark.parametrize("name", [*TABLE, "DPOTrainingConfig"])
def test_the_quick_start_shows_them_so(name):
    shown = re.search(rf"\| `{name}\((.*?)\)` \|", QUICKSTART)
    assert shown
    text = shown[1].removesuffix(", ...")
    for argument, default in (TABLE.get(name) or CONFIG).items():
        written = argument if default is NONE else f"{argument}={_written(default)}"
        assert written in text, written


def _written(value):
    return (
        f'"{value}"'
        if isinstance(value, str)
        else "5e-5"
        if value == CONFIG["learning_rate"]
        else repr(value)
    )


def test_the_specified_code_is_in_the_quick_start():
    for line in (
        "from dpo_cli import DPOTrainerWrapper, build_identity_shift_dataset, load_model_and_tokenizer",
        'model, tokenizer = load_model_and_tokenizer("HuggingFaceTB/SmolLM2-135M-Instruct")',
        'dataset_name="banghua/DL-DPO-Dataset"',
        "train_dataset=dataset",
        "trainer.train()",
    ):
        assert line in QUICKSTART
