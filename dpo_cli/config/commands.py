"""The settings of each command, put together from the shared ones in `settings`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, StringConstraints, field_validator, model_validator

from dpo_cli.characters import acts
from dpo_cli.config.settings import (
    MOST,
    MOST_AT_ONCE,
    DataConfig,
    GenerationConfig,
    LoadingConfig,
    ModelConfig,
    OptimizationConfig,
    Rate,
    Settings,
    Strings,
    Text,
    Truncation,
    TruncationMode,
    setting,
)


def _shows(name: str) -> str:
    # Joiners belong to the spelling of words, in Persian for one.
    if any(acts(character) and character not in "\u200c\u200d" for character in name):
        msg = "must not have control characters or invisible ones"
        raise ValueError(msg)
    return name


Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), AfterValidator(_shows)
]


class DPOTrainingConfig(DataConfig, GenerationConfig, OptimizationConfig):
    """The settings of `dpo train` and of `DPOTrainerWrapper`."""

    command: ClassVar[str] = "train"

    save_rewards: Text | None = setting(
        None, "Write the implicit reward of every held-out pair to this .jsonl file.", "Output"
    )
    min_reward_accuracy: Rate = setting(
        0.5, "Verdict: share of held-out pairs whose chosen answer must win.", "Verdict"
    )

    @model_validator(mode="after")
    def _streams_need_an_end(self) -> DPOTrainingConfig:
        if self.streaming and self.max_steps is None:
            msg = "max_steps: a stream has no length, say how many steps to train"
            raise ValueError(msg)
        return self


class IdentityVerdict(Settings):
    """The thresholds that decide whether a model has a new name and nothing else changed."""

    min_new_name: Rate = setting(
        0.95, "Verdict: least share of identity answers with the new name.", "Verdict"
    )
    max_old_name: Rate = setting(
        0.05, "Verdict: largest share of identity answers with the old name alone.", "Verdict"
    )
    max_doubled_name: Rate = setting(
        0.0, "Verdict: largest share of answers with the name doubled.", "Verdict"
    )
    max_ordinary_drop: Rate = setting(
        0.02, "Verdict: largest fall of ordinary answers that are right.", "Verdict"
    )


class IdentityShiftConfig(IdentityVerdict, GenerationConfig, OptimizationConfig):
    """The settings of `dpo identity-shift`."""

    command: ClassVar[str] = "identity-shift"

    original_name: Name = setting(..., "The name that the model uses for itself now.", "Identity", basic=True)
    new_name: Name = setting(..., "The new name.", "Identity", basic=True)
    questions: Text | None = setting(
        None, "Identity questions to make pairs from (.txt, .jsonl, .toml).", "Identity", basic=True
    )
    identity_dataset: Text | None = setting(
        None,
        "Data set in the layout of mrfakename/identity whose last human turns are the questions.",
        "Identity",
    )
    max_samples: int | None = setting(
        None, "Ask at most this many questions for pairs.", "Identity", ge=1, le=MOST, basic=True
    )
    samples_per_question: int = setting(
        1, "Answers per question; more than one is sampled.", "Identity", ge=1, le=MOST
    )
    temperature: float = setting(0.7, "Temperature of sampled answers.", "Identity", gt=0, le=5)
    answer_template: Text | None = setting(
        None, "Rejected answer for a model that never says its name, such as 'I am {name}.'.", "Identity"
    )
    keep_template: bool = setting(
        False, "Leave the old name in the chat template where it stands there.", "Identity"
    )
    min_pairs: int = setting(
        8, "Stop before training when fewer pairs than this could be made.", "Identity", ge=1, le=MOST
    )
    stop_on_collapse: bool = setting(
        True, "End the run when the model is being ruined, and keep the best checkpoint.", "Output"
    )

    @field_validator("answer_template")
    @classmethod
    def _has_a_place_for_the_name(cls, template: str | None) -> str | None:
        if template is not None and "{name}" not in template:
            msg = "must hold {name}, where the name goes"
            raise ValueError(msg)
        return template

    @model_validator(mode="after")
    def _names_differ(self) -> IdentityShiftConfig:
        if self.original_name == self.new_name:
            msg = f"new_name: is the original name, {self.new_name}; there is nothing to change"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _one_source_of_questions(self) -> IdentityShiftConfig:
        if self.questions and self.identity_dataset:
            msg = "identity_dataset: given besides questions; the questions come from one of them"
            raise ValueError(msg)
        return self


class AskConfig(GenerationConfig, ModelConfig):
    """The settings of `dpo test`."""

    command: ClassVar[str] = "test"
    __test__: ClassVar[bool] = False  # not a pytest class

    model: Text | None = setting(  # type: ignore[assignment] # None means: the last run's output, else embedded
        None,
        "Hub id, folder, adapter folder or 'embedded'; ./dpo_output if it is there, else embedded.",
        "Model",
        flag="-m",
        basic=True,
    )
    question: Strings = setting((), "A question, repeatable.", "Questions", flag="-q", basic=True)
    questions: Text | None = setting(
        None, "A file of questions (.txt, .jsonl, .toml).", "Questions", basic=True
    )
    interactive: bool = setting(
        False, "A conversation in the terminal, with history.", "Questions", flag="-i", basic=True
    )
    temperature: float = setting(
        0.0, "0 takes the likeliest token; above it answers are sampled.", "Questions", ge=0, le=5, basic=True
    )
    seed: int = setting(42, "Seed of sampled answers.", "Questions", ge=0, lt=2**32)


class CompareConfig(IdentityVerdict, GenerationConfig, LoadingConfig):
    """The settings of `dpo compare`."""

    command: ClassVar[str] = "compare"

    before: Text | None = setting(
        None, "Hub id, folder, adapter or 'embedded'; the base of --after unless given.", "Models", basic=True
    )
    after: Text | None = setting(
        None, "Hub id, folder, adapter or 'embedded'; ./dpo_output unless given.", "Models", basic=True
    )
    question: Strings = setting((), "A question, repeatable.", "Questions", flag="-q", basic=True)
    questions: Text | None = setting(
        None,
        "A file of questions (.txt, .jsonl, .toml), with groups and expected answers.",
        "Questions",
        basic=True,
    )
    original_name: Name | None = setting(
        None, "With --new-name: score the identity questions.", "Identity", basic=True
    )
    new_name: Name | None = setting(
        None, "With --original-name: score the identity questions.", "Identity", basic=True
    )
    pairs: Text | None = setting(
        None, "Held-out preference pairs: implicit-reward accuracy and margin.", "Questions", basic=True
    )
    beta: float = setting(
        0.2, "Beta of the implicit reward; higher stays closer to the reference.", "Questions", gt=0
    )
    max_length: int = setting(
        1024,
        "Longest pair, in tokens; that of the run that wrote --after unless given.",
        "Questions",
        ge=2,
        le=MOST,
    )
    html: Text | None = setting(None, "Write report.html to this file.", "Output", basic=True)


class CheckConfig(DataConfig, ModelConfig):
    """The settings of `dpo check`."""

    command: ClassVar[str] = "check"

    dataset: Text | None = setting(
        None, "File, folder or hub id of preference pairs.", "Data", flag="argument", basic=True
    )
    max_length: int = setting(
        1024,
        "Longest prompt plus completion, in tokens; what is beyond is cut.",
        "Data",
        ge=2,
        le=MOST,
        basic=True,
    )
    truncation_mode: TruncationMode = setting("keep_start", "Which end of a long pair is kept.", "Data")

    @property
    def truncation(self) -> Truncation:
        """How a pair that is too long is cut."""
        return Truncation(self.max_length, self.truncation_mode)


class BenchConfig(ModelConfig):
    """The settings of `dpo bench`."""

    command: ClassVar[str] = "bench"

    dataset: Text | None = setting(
        None,
        "Preference pairs to measure on; the shipped set unless given.",
        "Measurement",
        flag="-d",
        basic=True,
    )
    pairs: int = setting(
        20, "Pairs that each engine trains on in a repetition.", "Measurement", ge=1, le=MOST, basic=True
    )
    repetitions: int = setting(
        3, "Alternations of the two engines.", "Measurement", ge=1, le=MOST, basic=True
    )
    per_device_train_batch_size: int = setting(
        4, "Pairs in one forward pass.", "Measurement", ge=1, le=MOST_AT_ONCE
    )
    max_length: int = setting(1024, "Longest pair, in tokens.", "Measurement", ge=2, le=MOST)
    lora_rank: int | None = setting(
        None, "Measure LoRA adapters of this rank.", "Measurement", ge=1, le=MOST, basic=True
    )
    as_installed: bool = setting(
        False, "Measure TRL with its own precision, checkpointing and allocator too.", "Measurement"
    )
    generate: bool = setting(
        False, "Measure batched generation against one question at a time.", "Measurement", basic=True
    )
