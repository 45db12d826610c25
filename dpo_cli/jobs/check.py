"""Check a data set without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpo_cli.errors import ConfigError
from dpo_cli.events import OnEvent, ignore
from dpo_cli.jobs.stages import Stages
from dpo_cli.models.locate import locate_model

if TYPE_CHECKING:
    from dpo_cli.config import CheckConfig
    from dpo_cli.data.check import CheckResult


def check(config: CheckConfig, on_event: OnEvent = ignore) -> CheckResult:
    """Read a data set as training would, and say what is wrong with it.

    Args:
        config: The settings.
        on_event: Called with each event, see `dpo_cli.events`.

    Raises:
        UserError: A setting, the model's tokenizer or the data set is wrong.
    """
    if config.dataset is None:
        raise ConfigError(
            "DATASET: is needed", hint="Name a file, a folder or a hub id: dpo check pairs.jsonl"
        )
    from dpo_cli.data.options import open_reader, options_of

    options = options_of(config)
    reader = open_reader(config.dataset, options)  # a missing file is said before a model is looked for
    located = locate_model(config.model, revision=config.model_revision)
    stages = Stages(on_event)
    with stages.stage("loading the libraries"):
        from dpo_cli.data.check import check_pairs
        from dpo_cli.models.loading import load_tokenizer

        tokenizer = load_tokenizer(
            located, trust_remote_code=config.trust_remote_code, chat_template=config.chat_template
        )
    with stages.stage("reading pairs"):
        return check_pairs(
            reader,
            tokenizer=tokenizer,
            max_length=config.max_length,
            truncation_mode=config.truncation_mode,
            on_event=on_event,
            **options,
        )
