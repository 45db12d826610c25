"""Settings that count only beside others: given without them they would change nothing, and are refused.

A row for each; what TRL does not read is read off TRL's own loss and transformers' own schedules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pydantic import BaseModel


class Effect(NamedTuple):
    """A setting, what it needs in order to count, and whether that is given."""

    setting: str
    needs: str
    counts: Callable[[Any], bool]


def _one_of(*losses: str) -> Callable[[Any], bool]:
    return lambda config: not set(losses).isdisjoint(config.loss_type)


def _beside_sft(config: Any) -> bool:  # noqa: ANN401 - the settings of any command
    return set(config.loss_type) != {"sft"}


def _has_warmup(config: Any) -> bool:  # noqa: ANN401 - as above
    return config.lr_scheduler_type not in {"constant", "reduce_lr_on_plateau", "greedy"}


EFFECTS = (
    Effect("label_smoothing", "a --loss-type of robust, exo_pair, aot or aot_unpaired",
           _one_of("robust", "exo_pair", "aot", "aot_unpaired")),
    Effect("discopop_tau", "--loss-type discopop", _one_of("discopop")),
    Effect("f_alpha_divergence_coef", "--f-divergence-type alpha_divergence",
           lambda config: config.f_divergence_type == "alpha_divergence"),
    Effect("f_divergence_type", "a loss with a reference, not sft alone", _beside_sft),
    Effect("ld_alpha", "a loss on whole completions, not sft alone", _beside_sft),
    Effect("warmup_steps", "a schedule that warms up, such as constant_with_warmup", _has_warmup),
    Effect("warmup_ratio", "a schedule that warms up, such as constant_with_warmup", _has_warmup),
    Effect("lora_alpha", "--lora-rank", lambda config: config.lora_rank is not None),
    Effect("lora_dropout", "--lora-rank", lambda config: config.lora_rank is not None),
    Effect("lora_target_modules", "--lora-rank", lambda config: config.lora_rank is not None),
    Effect("save_total_limit", "--save-steps", lambda config: config.save_steps is not None),
    Effect("eval_split", "--eval-dataset", lambda config: config.eval_dataset is not None),
    Effect("assay_margin", "--format assay", lambda config: config.format == "assay"),
    Effect("assay_partners", "--format assay", lambda config: config.format == "assay"),
)  # fmt: skip


def without_effect(config: BaseModel, of_preset: Collection[str] = ()) -> list[str]:
    """A line, "setting: reason", for each setting that was given, is not its default, and would change nothing.

    Args:
        config: The settings.
        of_preset: Those that come with the model: nobody typed them.
    """
    fields = type(config).model_fields
    given = config.model_fields_set - set(of_preset)
    return [
        f"{row.setting}: has no effect without {row.needs}"
        for row in EFFECTS
        if row.setting in given
        and getattr(config, row.setting) != fields[row.setting].default
        and not row.counts(config)
    ]
