"""What of `--trl` reaches TRL, and what is refused because nothing would come of it."""

import pytest

from dpo_cli.config import DPOTrainingConfig, load_settings
from dpo_cli.errors import ConfigError
from dpo_cli.training.trl_config import lora_config, trl_arguments


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("resume_from_checkpoint=out/checkpoint-50", "a run is gone on with by --resume"),
        ("ignore_data_skip=true", "a run is gone on with by --resume"),
        ("do_eval=true", "only the example scripts of transformers read it"),
        ("padding_free=true", "TRL has disabled it"),
        ("label_smoothing_factor=0.1", "see --label-smoothing"),
        ("model_init_kwargs={}", "see --dtype"),
    ],
)
def test_a_field_of_trl_without_effect_is_refused_with_the_reason(given, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        load_settings(DPOTrainingConfig, {"trl": [given]})
    assert f"--trl: {given.partition('=')[0]} has no effect here" in error.value.message


def test_a_field_with_effect_goes_to_trl(tmp_path):
    config = load_settings(DPOTrainingConfig, {"trl": ["neftune_noise_alpha=5.0"]})
    arguments = trl_arguments(
        config, folder=tmp_path, autocast="float32", on_cpu=True, evaluate=False, precompute=True
    )
    assert arguments.neftune_noise_alpha == 5.0


def test_adapters_are_scaled_by_twice_their_rank_unless_told():
    assert lora_config(None) is None
    assert lora_config(8).lora_alpha == 16
    told = lora_config(8, alpha=4.0, dropout=0.1, modules=("q_proj", "v_proj"))
    assert (told.lora_alpha, told.lora_dropout) == (4.0, 0.1)
    assert told.target_modules == {"q_proj", "v_proj"}
