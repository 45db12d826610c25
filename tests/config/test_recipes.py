"""Recipes: a row for every size, what is left beside given settings, files that people write."""

from __future__ import annotations

import shutil

import pytest

from dpo_cli.config import EMBEDDED, DPOTrainingConfig, IdentityShiftConfig, load_settings, to_toml
from dpo_cli.config.recipes import RECIPE_SETTINGS, RECIPES, beside, read_recipe, recipe_row, too_fast
from dpo_cli.errors import ConfigError
from dpo_cli.events import Noted, ignore
from dpo_cli.models.locate import locate_model
from dpo_cli.training.filled import fill

NAMES = {"original_name": "Qwen", "new_name": "Orion"}


def row(job, parameters, *, lora=False):
    return recipe_row(job, int(parameters), lora=lora).settings


@pytest.mark.parametrize("job", ["train", "identity-shift"])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("parameters", [0, 1e6, 135e6, 494e6, 1.2e9, 8e9, 1e12])
def test_there_is_a_recipe_for_every_model(job, lora, parameters):
    config = {"train": DPOTrainingConfig, "identity-shift": IdentityShiftConfig}[job]
    names = NAMES if job == "identity-shift" else {}
    config(**names, **row(job, parameters, lora=lora))
    assert row(job, parameters, lora=lora).keys() <= RECIPE_SETTINGS | {"until_learnt"}


def test_every_row_names_its_source():
    assert all(one.source for one in RECIPES)
    assert all("https://" in one.source for one in RECIPES if one.published)


def test_published_figures_are_those_of_the_recipes_they_name():
    """Read off the files themselves (alignment-handbook 19f03455, ae3f44fc, 4231254d; trl 00bb3688)."""
    smol = row("train", 134_515_008)
    assert (smol["learning_rate"], smol["beta"], smol["num_train_epochs"]) == (1e-6, 0.5, 2)
    assert (smol["lr_scheduler_type"], smol["warmup_ratio"]) == ("cosine", 0.1)
    assert smol["per_device_train_batch_size"] * smol["gradient_accumulation_steps"] == 2 * 8
    assert row("train", 494e6)["learning_rate"] == 5e-7
    assert row("train", 494e6, lora=True)["learning_rate"] == 5e-6
    assert (row("train", 7e9)["learning_rate"], row("train", 7e9)["beta"]) == (5e-7, 0.01)
    assert (row("train", 7e9, lora=True)["learning_rate"], row("train", 7e9, lora=True)["beta"]) == (
        5e-6,
        0.01,
    )


RECIPE = {"learning_rate": 1e-5, "num_train_epochs": 2, "loss_type": ("sigmoid", "sft"), "loss_weights": (1.0, 0.5),
          "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "warmup_ratio": 0.1, "until_learnt": True}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "gone", "changed"),
    [
        ({"learning_rate": 1e-4}, {"learning_rate"}, {}),
        ({"loss_type": ("ipo",)}, {"loss_type", "loss_weights"}, {}),
        ({"loss_weights": (2.0, 1.0)}, {"loss_weights"}, {}),
        ({"warmup_steps": 5}, {"warmup_ratio"}, {}),
        ({"max_steps": 5}, {"num_train_epochs", "until_learnt"}, {}),
        ({"num_train_epochs": 5}, {"num_train_epochs", "until_learnt"}, {}),
        ({"per_device_train_batch_size": 1}, {"per_device_train_batch_size"}, {"gradient_accumulation_steps": 16}),
        ({"gradient_accumulation_steps": 8}, {"gradient_accumulation_steps"}, {"per_device_train_batch_size": 2}),
        ({"per_device_train_batch_size": 64}, {"per_device_train_batch_size"}, {"gradient_accumulation_steps": 1}),
    ],
)  # fmt: skip
def test_given_settings_go_before_a_recipe_together_with_what_belongs_to_them(given, gone, changed):
    assert beside(RECIPE, given) == {key: RECIPE[key] for key in RECIPE.keys() - gone} | changed


@pytest.mark.parametrize(
    ("rate", "parameters", "lora", "told"),
    [
        (5e-5, 135e6, False, "50 times"),
        (1e-5, 135e6, False, "10 times"),
        (9e-6, 135e6, False, ""),
        (5e-5, 135e6, True, "10 times"),
        (1e-5, 135e6, True, ""),
        (5e-6, 7e9, False, "10 times"),
        (1.0, 1e6, False, ""),  # nobody has published recipes for models of that size
    ],
)
def test_a_rate_far_above_published_ones_is_told_in_a_line(rate, parameters, lora, told):
    line = too_fast(rate, int(parameters), lora=lora)
    assert told in line
    assert bool(line) == bool(told)
    assert "\n" not in line


@pytest.fixture
def model(tiny_model, tmp_path):
    """A model without a preset, or with the one that is given."""

    def make(preset=None):
        folder = tmp_path / "model"
        shutil.copytree(tiny_model, folder)
        if preset:
            (folder / "preset.toml").write_text(preset)
        return locate_model(str(folder))

    return make


def filled(config, located, job=None):
    said = []
    result = fill(
        config, located, job or config.command, lambda e: said.append(e.message) if isinstance(e, Noted) else None
    )  # fmt: skip
    return result, said


def test_a_new_name_takes_its_recipe_by_itself_and_says_so(model):
    result, said = filled(IdentityShiftConfig(**NAMES, beta=0.3), model())
    expected = row("identity-shift", 1e6)
    assert result.config.loss_type == expected["loss_type"]
    assert result.config.beta == 0.3
    assert result.recipe.settings == {key: expected[key] for key in expected.keys() - {"beta"}}
    assert said == [result.recipe.sentence()]
    assert "loss_type sigmoid + sft" in said[0]
    assert result.recipe.source in said[0]


def test_a_preset_of_the_model_stands_in_for_the_recipe_unless_it_is_asked_for(model):
    located = model(
        "[identity-shift]\nlearning_rate = 1e-3\nmax_length = 64\ngradient_accumulation_steps = 3\n"
    )
    own, _ = filled(IdentityShiftConfig(**NAMES), located)
    assert (own.config.learning_rate, own.config.loss_type, own.recipe) == (1e-3, ("sigmoid",), None)
    asked, _ = filled(IdentityShiftConfig(**NAMES, recipe="auto"), located)
    assert asked.config.learning_rate == row("identity-shift", 1e6)["learning_rate"]
    assert asked.preset == {"max_length": 64}
    assert asked.config.gradient_accumulation_steps == 1


def test_train_keeps_its_defaults_unless_a_recipe_is_asked_for(model):
    located = model()
    plain, _ = filled(DPOTrainingConfig(), located)
    assert (plain.config, plain.recipe) == (DPOTrainingConfig(), None)
    asked, _ = filled(DPOTrainingConfig(recipe="auto"), located)
    assert asked.config.learning_rate == row("train", 1e6)["learning_rate"]


def test_no_recipe_is_taken_where_none_is_wanted(model):
    result, said = filled(IdentityShiftConfig(**NAMES, recipe="none"), model())
    assert (result.config.loss_type, result.recipe, said) == (("sigmoid",), None, [])


def test_the_embedded_model_keeps_its_preset():
    result = fill(IdentityShiftConfig(**NAMES), locate_model(EMBEDDED), "identity-shift", ignore)
    assert result.recipe is None
    assert result.preset["learning_rate"] == 4e-4


def test_pairs_for_a_new_name_take_the_recipe_of_the_job_in_python_too(model):
    result, _ = filled(DPOTrainingConfig(), model(), "identity-shift")
    assert result.config.loss_type == ("sigmoid", "sft")


def test_recorded_settings_give_the_same_settings_again(model, tmp_path):
    located = model()
    first, _ = filled(IdentityShiftConfig(**NAMES, warmup_steps=3), located)
    (tmp_path / "config.toml").write_text(to_toml(first.config, "a run"))
    again, _ = filled(load_settings(IdentityShiftConfig, {}, str(tmp_path / "config.toml")), located)
    assert again.config == first.config


def test_a_file_is_a_recipe(model, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('learning_rate = 2e-5\nloss_type = ["ipo"]\n')
    result, said = filled(DPOTrainingConfig(recipe=str(file)), model())
    assert (result.config.learning_rate, result.config.loss_type) == (2e-5, ("ipo",))
    assert str(file) in said[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("learning_rte = 1e-5", "mine.toml: learning_rte: not a setting of a recipe, did you mean learning_rate?"),
        ("output_dir = 'x'", "mine.toml: output_dir: not a setting of a recipe"),
        ("learning_rate = 'fast'", "mine.toml: learning_rate: must be a valid number"),
        ("learning_rate = 2.0", "mine.toml: learning_rate: must be less than or equal to 1"),
        ("loss_type = ['sigmoid', 'sft']\nloss_weights = [1.0]", "mine.toml: loss_weights: 1 weights for 2 losses"),
        ("warmup_steps = 2\nwarmup_ratio = 0.1", "mine.toml: warmup_ratio: given besides warmup_steps"),
        ("beta = ", "mine.toml: is not valid TOML"),
        ("", "mine.toml: holds no settings"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_recipe_is_named_with_its_file(tmp_path, text, says):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_recipe(str(file))
    assert says in error.value.message
    assert error.value.exit_code == 2
