"""Settings that commands share: type, range, default and help text, declared once.

The Typer flag, the TOML key, the Python keyword and the reference page all come from these fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypedDict, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dpo_cli.config.effects import without_effect
from dpo_cli.config.template_arguments import check_template_arguments
from dpo_cli.config.trl_table import check_optimizer, check_trl_table
from dpo_cli.redaction import find_secret

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

EMBEDDED = "embedded"
"""The name of the chat model that ships with the package."""


def _without_nul(text: str) -> str:
    if "\0" in text:
        msg = "must not have a NUL byte"
        raise ValueError(msg)
    return text


Text = Annotated[str, StringConstraints(min_length=1), AfterValidator(_without_nul)]
Rate = Annotated[float, Field(ge=0, le=1)]
Strings = Annotated[tuple[Text, ...], Field(strict=False)]
Numbers = Annotated[tuple[float, ...], Field(strict=False)]
LossType = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
    "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
Losses = Annotated[tuple[LossType, ...], Field(strict=False, min_length=1)]
MOST = 2**31 - 1
"""Largest count of steps, rows or tokens: beyond it torch and tokenizers overflow."""
MOST_AT_ONCE = 2**20
"""Largest batch: a list of that many places is made before the first pair is read."""
TruncationMode = Literal["keep_start", "keep_end"]


@dataclass(frozen=True, slots=True)
class Truncation:
    """How a pair that is too long is cut.

    Attributes:
        max_length: Longest prompt plus completion, in tokens; None cuts nothing.
        mode: Which end of a longer sequence is kept.
    """

    max_length: int | None = None
    mode: TruncationMode = "keep_start"


class Declared(TypedDict):
    """What `setting` says about a field beside type, default and help text."""

    panel: str
    flag: str
    basic: bool


def setting(
    default: Any,  # noqa: ANN401 - as pydantic's Field
    text: str,
    panel: str,
    *,
    flag: str = "",
    basic: bool = False,
    **limits: Any,  # noqa: ANN401 - as pydantic's Field
) -> Any:  # noqa: ANN401 - as pydantic's Field
    """Declare a setting: its default, help text, help panel, and limits as in `pydantic.Field`.

    Args:
        default: The default, or `...` when it must be given.
        text: The help text of the flag and of the reference page.
        panel: The group it stands in under `--help`.
        flag: A short flag besides the long one, or "argument" for a positional argument.
        basic: Most runs need it: it is on the first page of `--help`, not only in `--help-all`.
        **limits: `gt`, `ge`, `lt`, `le`, `pattern`, ...
    """
    declared: dict[str, Any] = {"panel": panel, "flag": flag, "basic": basic}
    return Field(default, description=text, json_schema_extra=declared, **limits)


def setting_of(field: FieldInfo) -> Declared:
    """What `setting` said about a field.

    Raises:
        TypeError: If the field was declared in another way.
    """
    if not isinstance(field.json_schema_extra, dict):
        msg = "a setting is declared with settings.setting()"
        raise TypeError(msg)
    return cast("Declared", field.json_schema_extra)


def recorded(info: ValidationInfo) -> bool:
    """Whether settings of a run that has been are read: what they asked for is done, or was without effect."""
    return bool((info.context or {}).get("recorded"))


def of_preset(info: ValidationInfo) -> frozenset[str]:
    """Which of the settings come from the model's preset."""
    return frozenset((info.context or {}).get("preset", ()))


def of_file(info: ValidationInfo) -> frozenset[str]:
    """Which of the settings come from a file."""
    return frozenset((info.context or {}).get("file", ()))


class Settings(BaseModel):
    """What all settings share: frozen, no unknown keys, strict types, no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # a value of the wrong type may be a secret in the wrong place
        protected_namespaces=(),
        use_attribute_docstrings=False,
    )
    command: ClassVar[str] = ""

    @model_validator(mode="after")
    def _everything_counts(self, info: ValidationInfo) -> Settings:
        if not recorded(info) and (lines := without_effect(self, of_preset(info), of_file(info))):
            raise ValueError("\n".join(lines))
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, values: object) -> object:
        for key, value in values.items() if isinstance(values, dict) else ():
            if secret := find_secret(value, key):
                msg = f"{key}: {secret.sentence()}"
                raise ValueError(msg)
        return values


OF_TOKENIZER = ("trust_remote_code", "chat_template", "thinking", "template")
"""Settings of how a tokenizer is loaded, and how it renders conversations."""


class LoadingConfig(Settings):
    """How any model is loaded."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "Compute precision; auto picks bfloat16 where the hardware is fast at it.",
        "Model",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto", "Device to compute on; auto picks CUDA, then Apple's MPS, then the CPU.", "Model"
    )
    trust_remote_code: bool = setting(
        False, "Run Python code that comes with a model. Only for models you trust.", "Model"
    )
    chat_template: Text | None = setting(
        None,
        "Chat template to use instead of the model's own: 'chatml' or a Jinja file.",
        "Model",
    )
    thinking: Literal["on", "off", "keep"] | None = setting(
        None,
        "Whether the model thinks before it answers, if its template can switch that; keep counts thinking as answer.",
        "Model",
    )
    template: dict[str, Any] = setting(
        {}, "Variable of the chat template, as key=value, repeatable (TOML: a [template] table).", "Model"
    )
    base: Text | None = setting(
        None, "Base model of a LoRA adapter, if it is not where the adapter says.", "Model"
    )

    @property
    def of_tokenizer(self) -> dict[str, Any]:
        """The keywords of `load_tokenizer`."""
        return {name: getattr(self, name) for name in OF_TOKENIZER}

    @model_validator(mode="after")
    def _template_can_have_them(self) -> Self:
        check_template_arguments(self.template, self.thinking)
        return self


class ModelConfig(LoadingConfig):
    """Which model, and how it is loaded."""

    model: Text = setting(
        EMBEDDED,
        "Hub id, folder, LoRA adapter, or 'embedded', the small model that ships with dpo.",
        "Model",
        flag="-m",
        basic=True,
    )
    model_revision: Text | None = setting(None, "Branch, tag or commit of a hub model.", "Model")


class DataConfig(Settings):
    """Which preference pairs, and how they are read."""

    dataset: Text | None = setting(
        None,
        "File, folder or hub id of preference pairs; by default the small set that ships with dpo.",
        "Data",
        flag="-d",
        basic=True,
    )
    dataset_config: Text | None = setting(None, "Configuration (subset) of a hub data set.", "Data")
    split: Text = setting("train", "Split of a hub data set or saved DatasetDict.", "Data")
    dataset_revision: Text | None = setting(None, "Branch, tag or commit of a hub data set.", "Data")
    format: Text | None = setting(None, "Layout of the rows; detected by default.", "Data", basic=True)
    prompt_column: Text | None = setting(None, "Column that holds the prompt.", "Data")
    chosen_column: Text | None = setting(None, "Column that holds the preferred completion.", "Data")
    rejected_column: Text | None = setting(None, "Column that holds the rejected completion.", "Data")
    system_column: Text | None = setting(None, "Column that holds the system prompt.", "Data")
    eval_dataset: Text | None = setting(None, "Held-out pairs: file, folder or hub id.", "Data", basic=True)
    eval_split: Text = setting(
        "train", "Split of the held-out data set; --split applies to the training set.", "Data"
    )
    eval_fraction: float = setting(
        0.0,
        "Fraction of the prompts held out for evaluation; no prompt is in both sets.",
        "Data",
        ge=0,
        lt=1,
        basic=True,
    )
    max_samples: int | None = setting(None, "Read at most this many rows.", "Data", ge=1, le=MOST, basic=True)
    streaming: bool = setting(
        False, "Read row by row while training, for data larger than memory (needs --max-steps).", "Data"
    )
    assay_margin: float = setting(
        0.0,
        "With --format assay: smallest difference between two values that make a pair, in their unit.",
        "Data",
        ge=0,
    )
    assay_partners: int = setting(
        4,
        "With --format assay: most pairs in which one sequence is the chosen one.",
        "Data",
        ge=1,
        le=MOST,
    )
    strict: bool = setting(False, "Treat any dropped row as an error.", "Data")
    allow_drops: bool = setting(False, "Train even if more than a tenth of the rows are dropped.", "Data")

    @property
    def heldout(self) -> Self:
        """How `eval_dataset` is read: as the training set is, but for where its rows are.

        Configuration and revision belong to one data set: they hold for the held-out one only where it is the same.
        """
        same = self.dataset == self.eval_dataset
        return self.model_copy(
            update={
                "dataset": self.eval_dataset,
                "split": self.eval_split,
                "dataset_config": self.dataset_config if same else None,
                "dataset_revision": self.dataset_revision if same else None,
                "max_samples": None,
                "eval_dataset": None,
                "eval_fraction": 0.0,
            }
        )


class GenerationConfig(Settings):
    """How a model is asked; the same for pairs, probes, test and compare."""

    system_prompt: str = setting(
        "You're a helpful assistant.",
        "System prompt for every question; empty for none.",
        "Questions",
    )
    max_new_tokens: int = setting(
        128,
        "Maximum answer length, in tokens; a longer answer counts as cut off.",
        "Questions",
        ge=1,
        le=MOST,
    )
    generation_batch_size: int = setting(
        32, "Questions answered at once.", "Questions", ge=1, le=MOST_AT_ONCE
    )


class LengthConfig(Settings):
    """How long a pair may be."""

    max_length: int = setting(
        1024,
        "Maximum length of prompt plus completion, in tokens; the rest is cut.",
        "Data",
        ge=2,
        le=MOST,
        basic=True,
    )
    truncation_mode: TruncationMode = setting(
        "keep_start", "Which end to keep when a pair is too long.", "Data"
    )

    @property
    def truncation(self) -> Truncation:
        """How a pair that is too long is cut."""
        return Truncation(self.max_length, self.truncation_mode)


class OptimizationConfig(LengthConfig, ModelConfig):
    """The DPO objective, the optimizer, LoRA, and what a run writes."""

    beta: float = setting(
        0.2,
        "Pull towards the reference: higher stays closer to it.",
        "Loss",
        gt=0,
        basic=True,
    )
    loss_type: Losses = setting(("sigmoid",), "Loss, repeatable for a weighted sum (TRL's names).", "Loss")
    loss_weights: Numbers | None = setting(None, "Weight of each --loss-type, in the same order.", "Loss")
    label_smoothing: float = setting(
        0.0, "Assumed probability that a preference label is wrong.", "Loss", ge=0, lt=0.5
    )
    ld_alpha: Rate | None = setting(
        None, "LD-DPO: weight of the tokens beyond the length of the shorter completion.", "Loss"
    )
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = setting(
        "reverse_kl", "Divergence that penalizes distance from the reference.", "Loss"
    )
    f_alpha_divergence_coef: float = setting(0.5, "Alpha of the alpha divergence.", "Loss")
    use_weighting: bool = setting(False, "WPO: weight pairs by how likely the policy finds them.", "Loss")
    discopop_tau: float = setting(0.05, "Temperature of the discopop loss.", "Loss", gt=0)

    recipe: Text | None = setting(
        None,
        "Settings by size of model: 'auto', a file, 'none'.",
        "Optimizer",
        basic=True,
    )
    learning_rate: float = setting(5e-5, "Peak learning rate.", "Optimizer", gt=0, le=1, basic=True)
    num_train_epochs: float = setting(
        1, "Passes over the pairs, or a fraction of one.", "Optimizer", gt=0, le=MOST, basic=True
    )
    max_steps: int | None = setting(
        None, "Stop after this many optimizer steps.", "Optimizer", ge=1, le=MOST, basic=True
    )
    per_device_train_batch_size: int = setting(
        1, "Pairs per forward pass.", "Optimizer", ge=1, le=MOST_AT_ONCE, basic=True
    )
    per_device_eval_batch_size: int = setting(
        8, "Pairs per evaluation pass.", "Optimizer", ge=1, le=MOST_AT_ONCE
    )
    gradient_accumulation_steps: int = setting(
        8, "Forward passes per optimizer step.", "Optimizer", ge=1, le=MOST
    )
    lr_scheduler_type: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt", "cosine_with_restarts",
        "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "reduce_lr_on_plateau", "greedy",
    ] = setting("linear", "Learning rate schedule after the warm-up.", "Optimizer")  # fmt: skip
    warmup_steps: float = setting(
        0,
        "Steps over which the learning rate ramps up; below 1, a fraction of all steps.",
        "Optimizer",
        ge=0,
        le=MOST,
    )
    warmup_ratio: float | None = setting(
        None,
        "Fraction of all steps over which the learning rate ramps up, instead of --warmup-steps.",
        "Optimizer",
        ge=0,
        lt=1,
    )
    optim: Text = setting("adamw_torch", "Optimizer (transformers' names).", "Optimizer")
    weight_decay: float = setting(0.0, "Decoupled weight decay.", "Optimizer", ge=0)
    max_grad_norm: float = setting(1.0, "Clip gradients to this norm.", "Optimizer", gt=0)
    gradient_checkpointing: bool = setting(
        False, "Recompute activations in the backward pass: less memory, slower.", "Optimizer"
    )
    seed: int = setting(42, "Random seed.", "Optimizer", ge=0, lt=2**32)
    engine: Literal["shared-prefix", "trl"] = setting(
        "shared-prefix",
        "Forward pass: compute what both answers share once, or run TRL's padded rows.",
        "Optimizer",
    )

    lora_rank: int | None = setting(
        None, "Train LoRA adapters of this rank instead of all weights.", "LoRA", ge=1, le=MOST, basic=True
    )
    lora_alpha: float | None = setting(None, "LoRA alpha; by default twice the rank.", "LoRA", gt=0)
    lora_dropout: float = setting(0.0, "Dropout in the adapters.", "LoRA", ge=0, lt=1)
    lora_target_modules: Strings = setting(("all-linear",), "Layers that get an adapter, repeatable.", "LoRA")

    output_dir: Text = setting(
        "./dpo_output",
        "Folder for the model and the records of the run.",
        "Output",
        flag="-o",
        basic=True,
    )
    overwrite: bool = setting(False, "Replace the output folder of an earlier dpo run.", "Output", basic=True)
    logging_steps: int = setting(2, "Steps between log lines.", "Output", ge=1, le=MOST)
    eval_steps: int | None = setting(
        None, "Steps between evaluations on the held-out pairs.", "Output", ge=1, le=MOST
    )
    resume: bool = setting(
        False,
        "Go on with the interrupted run in the output folder; begin one where there is none.",
        "Output",
    )
    resume_anyway: bool = setting(
        False, "With --resume: accept changes that affect only speed, output or rounding.", "Output"
    )
    save_minutes: float = setting(
        10, "Minutes between checkpoints; 0 for none by time.", "Output", ge=0, le=MOST
    )
    signal_grace: float = setting(
        0, "Seconds to go on training after SIGTERM before saving and stopping.", "Output", ge=0, le=MOST
    )
    save_steps: int | None = setting(None, "Steps between checkpoints.", "Output", ge=1, le=MOST)
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "Precision of the weights written; auto keeps that of the model, and fp32 for adapters.",
        "Output",
    )
    save_total_limit: int = setting(2, "Number of checkpoints to keep.", "Output", ge=1, le=MOST)
    stop_on_collapse: bool = setting(
        False, "Stop the run if the model collapses, and keep the best checkpoint.", "Output"
    )
    report_to: Strings = setting((), "Trackers: tensorboard, wandb, trackio or mlflow, repeatable.", "Output")
    trl: dict[str, Any] = setting(
        {}, "Any other field of TRL's DPOConfig, as key=value (TOML: a [trl] table).", "Output"
    )

    @field_validator("trl")
    @classmethod
    def _known_to_trl(cls, table: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return table if recorded(info) else check_trl_table(table, taken=frozenset(cls.model_fields))

    @field_validator("optim")
    @classmethod
    def _is_installed(cls, name: str, info: ValidationInfo) -> str:
        return name if recorded(info) else check_optimizer(name)

    @model_validator(mode="after")
    def _one_warmup(self, info: ValidationInfo) -> OptimizationConfig:
        if self.warmup_steps > 1 and self.warmup_steps != int(self.warmup_steps):
            msg = f"warmup_steps: must be whole steps, or a share below 1, not {self.warmup_steps}"
            raise ValueError(msg)
        given = self.model_fields_set - of_preset(info)
        if self.warmup_ratio is not None and self.warmup_steps and "warmup_steps" in given:
            msg = "warmup_ratio: given besides warmup_steps; the warm-up is said by one of them"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _losses_and_weights(self) -> OptimizationConfig:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            msg = f"loss_weights: {len(self.loss_weights)} weights for {len(self.loss_type)} losses"
            raise ValueError(msg)
        if "exo_pair" in self.loss_type and self.label_smoothing == 0:
            msg = "label_smoothing: the exo_pair loss needs a value above 0; its paper uses 0.001"
            raise ValueError(msg)
        for name, asked, losses in (
            ("use_weighting", self.use_weighting, _UNWEIGHTED),
            ("f_divergence_type", self.f_divergence_type != "reverse_kl", _REVERSE_KL_ONLY),
        ):
            if asked and (alone := losses.intersection(self.loss_type)):
                msg = f"{name}: TRL does not offer it with the loss {', '.join(sorted(alone))}"
                raise ValueError(msg)
        return self


_UNWEIGHTED: frozenset[str] = frozenset({"hinge", "aot", "aot_unpaired"})
"""Losses that TRL cannot weight: two sort the pairs, and the gradient of the third is lost to an operation in place."""

_REVERSE_KL_ONLY: frozenset[str] = frozenset(
    {"nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down"}
)
"""Losses in which the term that depends only on the prompt does not cancel, so that TRL refuses other divergences."""

PRESET_SETTINGS = frozenset(
    name
    for name, field in OptimizationConfig.model_fields.items()
    if setting_of(field)["panel"] in {"Loss", "Optimizer", "LoRA"} or name in LengthConfig.model_fields
) - {"optim", "recipe"}
"""What the preset of a model may set: how it is trained, and nothing else.

A preset comes with the model, from whoever made it. What is read, written, run or sent is the user's to say. `optim`
is left out because the name of an optimizer may stand for code of another package, `recipe` because it names a file.
"""
