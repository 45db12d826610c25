"""The settings of each command, put together from the shared ones in `settings`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, StringConstraints, field_validator, model_validator

from dpo_cli.characters import acts
from dpo_cli.config.settings import (
    MOST,
    MOST_AT_ONCE,
    DataConfig,
    GenerationConfig,
    LengthConfig,
    LoadingConfig,
    ModelConfig,
    OptimizationConfig,
    Rate,
    Settings,
    Strings,
    Text,
    setting,
)


def _shows(name: str) -> str:
    # Joiners belong to the spelling of words, in Persian for one.
    if any(acts(character) and character not in "\u200c\u200d" for character in name):
        msg = "must not contain control or invisible characters"
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
        0.5, "Verdict: minimum fraction of held-out pairs where the chosen answer wins.", "Verdict"
    )

    @model_validator(mode="after")
    def _streams_need_an_end(self) -> DPOTrainingConfig:
        if self.streaming and self.max_steps is None:
            msg = "max_steps: is required with streaming, because a stream has no known length"
            raise ValueError(msg)
        return self


class IdentityVerdict(Settings):
    """The thresholds that decide whether a model has a new name and nothing else changed."""

    min_new_name: Rate = setting(
        0.95, "Verdict: minimum fraction of identity answers with the new name.", "Verdict"
    )
    max_old_name: Rate = setting(
        0.05, "Verdict: maximum fraction of identity answers with only the old name.", "Verdict"
    )
    max_doubled_name: Rate = setting(
        0.0, "Verdict: maximum fraction of answers with the name doubled.", "Verdict"
    )
    max_ordinary_drop: Rate = setting(0.02, "Verdict: maximum drop in correct ordinary answers.", "Verdict")
    max_claims: Rate = setting(
        0.02, "Verdict: maximum fraction of ordinary answers with the new name.", "Verdict"
    )
    max_unlikely: float = setting(
        1.0,
        "Verdict: maximum rise of ordinary answers' unlikeliness to the model before, in nats per token.",
        "Verdict",
        ge=0,
    )
    max_forgotten: float = setting(
        1.0,
        "Verdict: maximum rise of the unlikeliness of former ordinary answers, in nats per token.",
        "Verdict",
        ge=0,
    )
    max_repetition_rise: Rate = setting(
        0.05, "Verdict: maximum rise of repeated phrases in ordinary answers.", "Verdict"
    )
    max_cut_off_rise: Rate = setting(0.05, "Verdict: maximum rise of cut-off ordinary answers.", "Verdict")
    max_same_answer_rise: Rate = setting(
        0.1, "Verdict: maximum rise of ordinary answers that other questions get too.", "Verdict"
    )
    max_longer: float = setting(
        1.5, "Verdict: maximum length of ordinary answers, as a multiple of before.", "Verdict", ge=0
    )


class IdentityShiftConfig(IdentityVerdict, GenerationConfig, OptimizationConfig):
    """The settings of `dpo identity-shift`."""

    command: ClassVar[str] = "identity-shift"

    original_name: Name = setting(..., "The model's current name.", "Identity", basic=True)
    new_name: Name = setting(..., "The new name.", "Identity", basic=True)
    questions: Text | None = setting(
        None, "Identity questions to make pairs from (.txt, .jsonl, .toml).", "Identity", basic=True
    )
    identity_dataset: Text | None = setting(
        None,
        "Data set in the mrfakename/identity layout; the last human turn of each row is the question.",
        "Identity",
    )
    max_samples: int | None = setting(
        None, "Ask at most this many questions to make pairs.", "Identity", ge=1, le=MOST, basic=True
    )
    samples_per_question: int = setting(
        1, "Answers per question; more than one are sampled.", "Identity", ge=1, le=MOST
    )
    temperature: float = setting(0.7, "Sampling temperature.", "Identity", gt=0, le=5)
    pairs_from: Literal["own", "introductions", "both"] | None = setting(
        None,
        "Pairs from the model's own answers with the name replaced, from introductions, or from both; by default own answers where at least half of them say the name.",
        "Identity",
    )
    anchors: int | None = setting(
        None,
        "Pairs that keep the name away from ordinary prompts; 0 for none. By default 32 beside own answers, else 96; none where the loss has no sft term.",
        "Identity",
        ge=0,
        le=MOST,
    )
    anchor_prompts: Text | None = setting(
        None,
        "Ordinary prompts for these pairs (.txt, .jsonl, .toml); {name} in them is the original name.",
        "Identity",
    )
    answer_template: Text | None = setting(
        None,
        "Rejected answer where the model's own does not say its name, such as 'I am {name}.'; pairs are then made from its own answers.",
        "Identity",
    )
    keep_template: bool = setting(False, "Keep the old name if the chat template contains it.", "Identity")
    min_pairs: int = setting(
        8, "Stop before training if fewer pairs than this were made.", "Identity", ge=1, le=MOST
    )
    until_learnt: bool = setting(
        False,
        "Ask dev questions while training: end when the name is learnt, go on while it gets better, keep the best weights. "
        "On with a shipped recipe, unless epochs or steps are given.",
        "Optimizer",
    )
    stop_on_collapse: bool = setting(
        True, "Stop the run if the model collapses, and keep the best checkpoint.", "Output"
    )

    @field_validator("answer_template")
    @classmethod
    def _has_a_place_for_the_name(cls, template: str | None) -> str | None:
        if template is not None and "{name}" not in template:
            msg = "must contain {name}, where the name goes"
            raise ValueError(msg)
        return template

    @model_validator(mode="after")
    def _names_differ(self) -> IdentityShiftConfig:
        if self.original_name == self.new_name:
            msg = f"new_name: is the same as the original name, {self.new_name}; there is nothing to change"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _one_source_of_questions(self) -> IdentityShiftConfig:
        if self.questions and self.identity_dataset:
            msg = "identity_dataset: cannot be combined with questions; give only one of them"
            raise ValueError(msg)
        return self


class AskConfig(GenerationConfig, ModelConfig):
    """The settings of `dpo test`."""

    command: ClassVar[str] = "test"
    __test__: ClassVar[bool] = False  # not a pytest class

    model: Text | None = setting(  # type: ignore[assignment] # None means: the last run's output, else embedded
        None,
        "Hub id, folder, adapter or 'embedded'; by default ./dpo_output if it exists, else embedded.",
        "Model",
        flag="-m",
        basic=True,
    )
    question: Strings = setting((), "A question, repeatable.", "Questions", flag="-q", basic=True)
    questions: Text | None = setting(
        None, "A file of questions (.txt, .jsonl, .toml).", "Questions", basic=True
    )
    interactive: bool = setting(
        False, "Chat in the terminal, with history.", "Questions", flag="-i", basic=True
    )
    temperature: float = setting(
        0.0, "0 decodes greedily; above 0, answers are sampled.", "Questions", ge=0, le=5, basic=True
    )
    seed: int = setting(42, "Seed for sampling.", "Questions", ge=0, lt=2**32)


class CompareConfig(IdentityVerdict, GenerationConfig, LoadingConfig):
    """The settings of `dpo compare`."""

    command: ClassVar[str] = "compare"

    before: Text | None = setting(
        None, "Hub id, folder, adapter or 'embedded'; by default the base of --after.", "Models", basic=True
    )
    after: Text | None = setting(
        None, "Hub id, folder, adapter or 'embedded'; by default ./dpo_output.", "Models", basic=True
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
        None,
        "Held-out preference pairs, to score implicit-reward accuracy and margin.",
        "Questions",
        basic=True,
    )
    beta: float = setting(
        0.2, "Beta of the implicit reward; higher stays closer to the reference.", "Questions", gt=0
    )
    max_length: int = setting(
        1024,
        "Maximum pair length, in tokens; by default that of the run that wrote --after.",
        "Questions",
        ge=2,
        le=MOST,
    )
    html: Text | None = setting(None, "Write report.html to this file.", "Output", basic=True)


class CheckConfig(LengthConfig, DataConfig, ModelConfig):
    """The settings of `dpo check`."""

    command: ClassVar[str] = "check"

    dataset: Text | None = setting(
        None, "File, folder or hub id of preference pairs.", "Data", flag="argument", basic=True
    )


class BenchConfig(ModelConfig):
    """The settings of `dpo bench`."""

    command: ClassVar[str] = "bench"

    dataset: Text | None = setting(
        None,
        "Preference pairs to measure on; by default the small set that ships with dpo.",
        "Measurement",
        flag="-d",
        basic=True,
    )
    pairs: int = setting(
        20, "Pairs that each engine trains on per repetition.", "Measurement", ge=1, le=MOST, basic=True
    )
    repetitions: int = setting(
        3, "Times that both engines are measured, in turn.", "Measurement", ge=1, le=MOST, basic=True
    )
    per_device_train_batch_size: int = setting(
        4, "Pairs per forward pass.", "Measurement", ge=1, le=MOST_AT_ONCE
    )
    max_length: int = setting(1024, "Maximum pair length, in tokens.", "Measurement", ge=2, le=MOST)
    lora_rank: int | None = setting(
        None, "Measure training of LoRA adapters of this rank.", "Measurement", ge=1, le=MOST, basic=True
    )
    as_installed: bool = setting(
        False, "Also measure TRL with its own precision, checkpointing and allocator.", "Measurement"
    )
    generate: bool = setting(
        False, "Measure batched generation against one question at a time.", "Measurement", basic=True
    )


class ResumeConfig(Settings):
    """The settings of `dpo resume`."""

    command: ClassVar[str] = "resume"

    folder: Text = setting(
        "./dpo_output",
        "Output folder of the run, or what is left of it beside.",
        "Output",
        flag="argument",
        basic=True,
    )
    resume_anyway: bool = setting(
        False,
        "Go on although versions or the device have changed, which affect only rounding.",
        "Output",
    )
