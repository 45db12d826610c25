"""From settings to how models are asked and judged, for every job alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpo_cli.evaluation.compare import DEFAULT_TRUNCATION, AskSettings
from dpo_cli.evaluation.verdict import CHECKS

if TYPE_CHECKING:
    from dpo_cli.config import GenerationConfig, Settings, Truncation


def ask_settings(config: GenerationConfig, truncation: Truncation = DEFAULT_TRUNCATION) -> AskSettings:
    """How to ask, as `config` says, and how held-out pairs are cut."""
    return AskSettings(
        system_prompt=config.system_prompt,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.generation_batch_size,
        truncation=truncation,
    )


def thresholds_of(config: Settings) -> dict[str, float]:
    """The verdict's thresholds that are settings of this command."""
    return {
        check.setting: getattr(config, check.setting) for check in CHECKS if hasattr(config, check.setting)
    }
