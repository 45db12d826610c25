"""Settings that count only beside others, or without them: where they would change nothing, they are refused.

A row for each; what TRL does not read is read off TRL's own loss and transformers' own schedules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pydantic import BaseModel


class Effect(NamedTuple):
    """A setting that may change nothing.

    Attributes:
        setting: Its name.
        where: Where it has no effect, as a message ends: "without --lora-rank".
        counts: Whether it has one with these settings.
        typed: Told only of what was said together: a file may leave it to flags what else holds.
    """

    setting: str
    where: str
    counts: Callable[[Any], bool]
    typed: bool = False


def _one_of(*losses: str) -> Callable[[Any], bool]:
    return lambda config: not set(losses).isdisjoint(config.loss_type)


def _beside_sft(config: Any) -> bool:  # noqa: ANN401 - the settings of any command
    return set(config.loss_type) != {"sft"}


def _has_warmup(config: Any) -> bool:  # noqa: ANN401 - as above
    return config.lr_scheduler_type not in {"constant", "reduce_lr_on_plateau", "greedy"}


def _has_samples(config: Any) -> bool:  # noqa: ANN401 - as above
    return getattr(config, "samples_per_question", None) != 1


EFFECTS = (
    Effect("label_smoothing", "without a --loss-type of robust, exo_pair, aot or aot_unpaired",
           _one_of("robust", "exo_pair", "aot", "aot_unpaired")),
    Effect("discopop_tau", "without --loss-type discopop", _one_of("discopop")),
    Effect("f_alpha_divergence_coef", "without --f-divergence-type alpha_divergence",
           lambda config: config.f_divergence_type == "alpha_divergence"),
    Effect("f_divergence_type", "without a loss with a reference, not sft alone", _beside_sft),
    Effect("ld_alpha", "without a loss on whole completions, not sft alone", _beside_sft),
    Effect("warmup_steps", "without a schedule that warms up, such as constant_with_warmup", _has_warmup),
    Effect("warmup_ratio", "without a schedule that warms up, such as constant_with_warmup", _has_warmup),
    Effect("lora_alpha", "without --lora-rank", lambda config: config.lora_rank is not None),
    Effect("lora_dropout", "without --lora-rank", lambda config: config.lora_rank is not None),
    Effect("lora_target_modules", "without --lora-rank", lambda config: config.lora_rank is not None),
    Effect("save_total_limit", "without --save-steps", lambda config: config.save_steps is not None),
    Effect("eval_split", "without --eval-dataset", lambda config: config.eval_dataset is not None),
    Effect("assay_margin", "without --format assay", lambda config: config.format == "assay"),
    Effect("assay_partners", "without --format assay", lambda config: config.format == "assay"),
    Effect("num_train_epochs", "beside --max-steps", lambda config: config.max_steps is None, typed=True),
    Effect("anchor_prompts", "beside --anchors 0", lambda config: config.anchors != 0),
    Effect("answer_template", "beside --pairs-from introductions", lambda config: config.pairs_from != "introductions"),
    Effect("temperature", "without --samples-per-question above 1, which samples", _has_samples),
)  # fmt: skip


def without_effect(
    config: BaseModel, of_preset: Collection[str] = (), of_file: Collection[str] = ()
) -> list[str]:
    """A line, "setting: reason", for each setting that was given, is not its default, and would change nothing.

    Args:
        config: The settings.
        of_preset: Those that come with the model: nobody typed them.
        of_file: Those that come from a file.
    """
    fields = type(config).model_fields
    given = config.model_fields_set - set(of_preset)
    return [
        f"{row.setting}: has no effect {row.where}"
        for row in EFFECTS
        if row.setting in given
        and not (row.typed and row.setting in of_file)
        and getattr(config, row.setting) != fields[row.setting].default
        and not row.counts(config)
    ]
