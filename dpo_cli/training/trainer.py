"""DPOTrainerWrapper: preference pairs in, a trained model and its figures out."""

from __future__ import annotations

import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from datasets import IterableDataset
from peft import PeftModel
from transformers import PrinterCallback, set_seed
from trl.trainer.utils import disable_dropout_in_model

from dpo_cli.config import DPOTrainingConfig, apply_preset
from dpo_cli.data.load import load_dpo_dataset
from dpo_cli.engine.length_scaled_rope import length_limit
from dpo_cli.engine.trainer import SharedPrefixTrainer
from dpo_cli.errors import ConfigError, ModelError, TrainingError
from dpo_cli.events import Progress, RunFinished, RunStarted, Warned, ignore
from dpo_cli.models.devices import choose_device, choose_dtype
from dpo_cli.models.locate import locate_policy, read_preset
from dpo_cli.models.memory import keep_memory, out_of_memory_in_words, peak_memory_bytes
from dpo_cli.synthesis.identity import JOB as IDENTITY_SHIFT
from dpo_cli.training.alarms import Alarms
from dpo_cli.training.callbacks import CollapseCallback, EventCallback, ProbeCallback
from dpo_cli.training.one_process import refuse_several_processes
from dpo_cli.training.output import OutputFolder, model_folders, write_history
from dpo_cli.training.policy import load_policy, require_end_token, save_policy
from dpo_cli.training.quiet import quiet_trl
from dpo_cli.training.trackers import require_trackers
from dpo_cli.training.trl_config import lora_config, trl_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import DPOConfig

    from dpo_cli.events import OnEvent
    from dpo_cli.models.generate import Message


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave.

    Attributes:
        steps: Optimizer steps taken.
        seconds: Wall-clock seconds of the training loop.
        metrics: TRL's figures of the last logged step.
        history: One record a logged step or evaluation: "step" and TRL's figures.
        engine: The forward pass that was used.
        device: Where it ran.
        dtype: Arithmetic it used.
        peak_memory_bytes: Highest memory of the process.
        stopped_early: Why the run was ended before its last step, and what was kept; else None.
        warnings: What looked wrong on the way.
        fallback_reason: Why the engine is not the one that was asked for; None when it is.
        engine_forwards: Batches that the engine scored, of the policy and of the reference.
        trl_forwards: Batches that went to TRL's forward although the engine was in place, by reason.
    """

    steps: int
    seconds: float
    metrics: dict[str, float]
    history: list[dict[str, float]]
    engine: str
    device: str
    dtype: str
    peak_memory_bytes: int
    stopped_early: str | None = None
    warnings: list[Warned] = field(default_factory=list)
    fallback_reason: str | None = None
    engine_forwards: int = 0
    trl_forwards: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The figures without the history, for `--json` and for the run's files."""
        return {key: value for key, value in asdict(self).items() if key != "history"}


class DPOTrainerWrapper:
    """Train a model on preference pairs with DPO.

    Args:
        model_name: "embedded", a folder, a LoRA adapter's folder or a hub id.
        dataset_name: Preference pairs: a file, a folder or a hub id; in place of `train_dataset`.
        train_dataset: Preference pairs in TRL's layout.
        training_config: Settings; `DPOTrainingConfig()` if None. Its `model` and `dataset` are not used.
            Settings that were not given are taken from the model's preset, if it has one and `preset` is None.
        ref_model: Reference model; None takes the policy as it is before training.
        use_gpu: Train on CUDA or MPS; else on the CPU, unless `training_config.device` says otherwise.
        max_samples: Train on at most this many pairs.
        eval_dataset: Held-out pairs in TRL's layout.
        loaded: The model and tokenizer, if they are in memory already.
        probe: A question that is put to the model some times in the run.
        preset: What the model's preset has given to `training_config` already; none is read then.
        on_event: Called with each event of the run, see `dpo_cli.events`.

    Raises:
        ConfigError: If there are no pairs, or two sources of them, or several processes.
        ModelError: If there is no such model.
        DataError: If the pairs cannot be read.
    """

    def __init__(  # noqa: PLR0917 - the specification's signature
        self,
        model_name: str,
        dataset_name: str | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        training_config: DPOTrainingConfig | None = None,
        ref_model: PreTrainedModel | None = None,
        use_gpu: bool = False,
        max_samples: int | None = None,
        *,
        eval_dataset: Dataset | None = None,
        loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None,
        probe: Sequence[Message] | None = None,
        preset: Mapping[str, Any] | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        refuse_several_processes()
        if (dataset_name is None) == (train_dataset is None):
            raise ConfigError("give either dataset_name or train_dataset: pairs come from one of them")
        config = training_config or DPOTrainingConfig()
        require_trackers(config.report_to)
        self.model_name = model_name
        self.located = locate_policy(config, model_name)
        if preset is None:
            made_for = getattr(getattr(train_dataset, "info", None), "builder_name", None)
            job = IDENTITY_SHIFT if made_for == IDENTITY_SHIFT else config.command
            found, origin = read_preset(self.located, job, lora=config.lora_rank is not None)
            config, preset = apply_preset(config, found, origin)
        self.config, self.preset = config, dict(preset)
        self.device = str(loaded[0].device.type) if loaded else _device(config.device, use_gpu=use_gpu)
        if isinstance(ref_model, PeftModel):
            raise ModelError(
                "ref_model: is an adapter on a base, and must be one model",
                hint="Give ref_model.merge_and_unload().",
            )
        self.ref_model = ref_model
        self.probe = probe
        self.on_event = on_event
        self.eval_dataset = eval_dataset
        self._loaded = loaded
        self.train_dataset: Dataset | IterableDataset
        if dataset_name is not None:
            self.train_dataset = load_dpo_dataset(dataset_name, max_samples=max_samples)
        elif train_dataset is not None:
            self.train_dataset = train_dataset if max_samples is None else train_dataset.take(max_samples)
        self.result: TrainingResult | None = None

    @cached_property
    def _policy(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return self._loaded or load_policy(
            self.located, self.config, device=self.device, pairs=self.train_dataset, on_event=self.on_event
        )

    @property
    def model(self) -> PreTrainedModel:
        """The policy; after `train`, the trained one."""
        return self._policy[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's tokenizer."""
        return self._policy[1]

    def train(self, *, into: Path | None = None) -> TrainingResult:
        """Train, and write the configuration's `output_dir`: model, tokenizer, settings and figures.

        Args:
            into: An existing folder for checkpoints; nothing else is written then, see `save`.

        Raises:
            OutputError: If the output folder cannot or must not be written; before anything is trained.
            TrainingError: If memory runs out, or the loss is no number and no weights were kept.
            ModelError: If the tokenizer cannot end the pairs.
            ConfigError: If TRL refuses a setting.
        """
        if into is not None:
            return self._train(into)
        with self._folder(self.config.output_dir) as folder:
            result = self._train(folder.staging)
            self._write(folder.staging, result)
        return result

    def save(self, output_dir: str | None = None) -> Path:
        """Write the trained model, its tokenizer, settings and figures.

        Args:
            output_dir: A folder that does not exist or is empty; the configuration's unless given.

        Raises:
            OutputError: If it cannot or must not be written.
            TrainingError: If nothing was trained yet.
        """
        if self.result is None:
            raise TrainingError("there is nothing to save yet: call train() first")
        with self._folder(output_dir or self.config.output_dir) as folder:
            self._write(folder.staging, self.result)
        return folder.path

    def write_model(self, folder: Path) -> None:
        """Write the model or adapter in safetensors, and the tokenizer, into an existing folder."""
        save_policy(self.model, self.tokenizer, self.located, folder)

    def _folder(self, path: str) -> OutputFolder:
        settings = self.config.model_copy(update={"model": self.model_name})
        inputs = model_folders(self.located)
        return OutputFolder(path, settings, overwrite=self.config.overwrite, inputs=inputs)

    def _write(self, folder: Path, result: TrainingResult) -> None:
        self.write_model(folder)
        write_history(folder, result.history)

    def _train(self, folder: Path) -> TrainingResult:
        keep_memory()
        set_seed(self.config.seed)
        require_end_token(self.model_name, self.tokenizer, self.train_dataset)
        dtype = choose_dtype(
            self.config.dtype,
            torch.device(self.device),
            parameters=self.model.num_parameters(),
        )
        autocast = str(dtype).removeprefix("torch.")
        arguments = trl_arguments(
            self.config,
            folder=folder,
            autocast=autocast,
            on_cpu=self.device == "cpu",
            evaluate=self.eval_dataset is not None,
            precompute=self._knows_references(),
        )
        run = RunStarted(
            total_steps=0,
            pairs=getattr(self.train_dataset, "num_rows", 0),
            pairs_per_step=self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps,
            engine=self.config.engine,
            device=self.device,
            dtype=autocast,
        )
        alarms = Alarms(self.config.loss_type, beta=self.config.beta, scaled_loss=arguments.fp16)
        collapse = CollapseCallback(self.on_event, alarms, folder, stop=self.config.stop_on_collapse)
        events = EventCallback(collapse.listen, run)
        try:
            with out_of_memory_in_words(), quiet_trl():
                trainer = self._trainer(arguments, events, collapse)
                note = _note(self.preset, trainer.fallback_reason)
                events.run = replace(run, engine=trainer.engine, note=note)
                trainer.train()
            seconds = time.perf_counter() - events.started
            forwards = trainer.forwards
            for reason, count in forwards.handed_over.items():
                total = forwards.packed + forwards.handed_over.total()
                collapse.warn(
                    f"{count} of {total} forwards were TRL's own: {reason}.", trainer.state.global_step
                )
            policy = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
            self._policy = (policy, self.tokenizer)
            stopped = collapse.restore(self.model)
        finally:
            collapse.forget()
        last = next((h for h in reversed(events.history) if "loss" in h), {})
        self.result = TrainingResult(
            steps=trainer.state.global_step,
            seconds=seconds,
            metrics={k: v for k, v in last.items() if k != "step"},
            history=events.history,
            engine=trainer.engine,
            device=self.device,
            dtype=autocast,
            peak_memory_bytes=peak_memory_bytes(self.device),
            stopped_early=stopped,
            warnings=collapse.warnings,
            fallback_reason=trainer.fallback_reason,
            engine_forwards=forwards.packed,
            trl_forwards=dict(forwards.handed_over),
        )
        self.on_event(RunFinished(self.result.steps, seconds, self.result.metrics, stopped))
        return self.result

    def _knows_references(self) -> bool:
        """Whether a pair's reference can be known before training.

        A stream cannot be walked twice; where positions are scaled by the length of a batch, a row's score depends on
        the rows beside it.
        """
        streamed = any(isinstance(p, IterableDataset) for p in (self.train_dataset, self.eval_dataset))
        limit, longest = length_limit(self.model), self.config.max_length
        return not streamed and (limit is None or (longest is not None and longest <= limit))

    def _trainer(
        self, arguments: DPOConfig, events: EventCallback, collapse: CollapseCallback
    ) -> SharedPrefixTrainer:
        callbacks: list[TrainerCallback] = [events]
        if self.probe is not None:
            longest = min(64, self.config.max_new_tokens)
            callbacks.append(ProbeCallback(collapse.listen, self.tokenizer, self.probe, longest))
        callbacks.append(collapse)  # after those whose events it judges
        if "disable_dropout" not in self.config.trl:
            for model in (self.model, self.ref_model):
                if model is not None:
                    disable_dropout_in_model(model)  # before new adapters come, which may have theirs on
        evaluated = arguments.eval_strategy != "no" or arguments.eval_on_start
        config = self.config
        try:
            trainer = SharedPrefixTrainer(
                model=self.model,
                ref_model=self.ref_model,
                args=arguments,
                train_dataset=self.train_dataset,
                eval_dataset=self.eval_dataset if evaluated else None,
                processing_class=self.tokenizer,
                peft_config=lora_config(
                    config.lora_rank,
                    alpha=config.lora_alpha,
                    dropout=config.lora_dropout,
                    modules=config.lora_target_modules,
                ),
                callbacks=callbacks,
                engine=config.engine,
                on_reference=lambda done, total: self.on_event(
                    Progress("reference log-probabilities", done, total)
                ),
                notice=lambda text: self.on_event(Warned("reference-cache", text, "", 0)),
                on_handover=collapse.warn,
            )
        except (ValueError, NotImplementedError) as error:
            if not _said_by_trl(error):
                raise
            raise ConfigError(f"TRL refuses these settings: {error}") from error
        trainer.remove_callback(PrinterCallback)  # figures go out as events
        return trainer


def _said_by_trl(error: BaseException) -> bool:
    """Whether TRL's constructor refused something, and not our engine, which it calls for the references."""
    rooms = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    first = next((index for index, room in enumerate(rooms) if room.startswith("trl.")), None)
    return first is not None and not any(room.startswith("dpo_cli.") for room in rooms[first:])


def _device(wanted: str, *, use_gpu: bool) -> str:
    if wanted == "auto" and not use_gpu:
        return "cpu"
    device = choose_device(wanted).type
    if use_gpu and wanted == "auto" and device == "cpu":
        raise ModelError(
            "use_gpu: there is neither CUDA nor MPS here", hint="Leave out use_gpu to train on the CPU."
        )
    return str(device)


def _note(preset: dict[str, Any], fallback_reason: str | None) -> str:
    """What is worth saying when training begins: the preset, and why TRL's forward runs if it does."""
    notes = []
    if preset:
        notes.append("preset of the model: " + ", ".join(f"{key} {value}" for key, value in preset.items()))
    if fallback_reason:
        notes.append(f"TRL's own forward runs: {fallback_reason}")
    return "; ".join(notes)
