"""Check a data set without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpo_cli.config import CheckConfig, DPOTrainingConfig, apply_preset
from dpo_cli.errors import ConfigError
from dpo_cli.events import OnEvent, ignore
from dpo_cli.jobs.stages import Stages
from dpo_cli.models.locate import LocatedModel, locate_model, read_preset
from dpo_cli.models.positions import length_within_positions

if TYPE_CHECKING:
    from dpo_cli.data.check import DataReport


def check(config: CheckConfig, on_event: OnEvent = ignore) -> DataReport:
    """Read a data set as training would, and say what is wrong with it.

    Args:
        config: The settings.
        on_event: Called with each event, see `dpo_cli.events`.

    Raises:
        UserError: A setting, the model's tokenizer or the data set is wrong.
    """
    if config.dataset is None:
        raise ConfigError(
            "DATASET: is required", hint="Name a file, a folder or a hub id: dpo check pairs.jsonl"
        )
    from dpo_cli.data.load import open_pairs

    opened = open_pairs(config)  # a missing file is said before a model is looked for
    located = locate_model(config.model, revision=config.model_revision, base=config.base)
    config = _as_trained(config, located, on_event)
    stages = Stages(on_event)
    with stages.stage("loading the libraries"):
        from dpo_cli.models.loading import load_tokenizer

        tokenizer = load_tokenizer(located, **config.of_tokenizer)
    with stages.stage("reading pairs"):
        return opened.check(tokenizer, config.truncation, on_event=on_event)


def _as_trained(config: CheckConfig, located: LocatedModel, on_event: OnEvent) -> CheckConfig:
    """The settings with what the model and its preset say for `dpo train`, as far as it decides which pairs are kept."""
    given = "max_length" in config.model_fields_set
    preset, origin = read_preset(located, DPOTrainingConfig.command, lora=False)
    shared = {key: value for key, value in preset.items() if key in CheckConfig.model_fields}
    config = apply_preset(config, shared, origin)[0]
    longest = length_within_positions(config.max_length, located, given=given, on_event=on_event)
    return config.model_copy(update={"max_length": longest})
