"""DPOTrainerWrapper: preference pairs in, a trained model and its figures out."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from peft import PeftModel

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.data.load import load_dpo_dataset
from dpo_cli.errors import ConfigError, ModelError, TrainingError
from dpo_cli.events import Noted, ignore
from dpo_cli.models.devices import choose_device
from dpo_cli.models.locate import locate_policy, model_folders
from dpo_cli.run_folder import OutputFolder, history_text, write_file
from dpo_cli.training.filled import fill
from dpo_cli.training.loop import Training, TrainingResult
from dpo_cli.training.policy import load_policy
from dpo_cli.training.preflight import preflight

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.events import OnEvent


class DPOTrainerWrapper:
    """Train a model on preference pairs with DPO.

    Args:
        model_name: "embedded", a folder, a LoRA adapter's folder or a hub id.
        dataset_name: Preference pairs: a file, a folder or a hub id; in place of `train_dataset`.
        train_dataset: Preference pairs in TRL's layout.
        training_config: Settings; `DPOTrainingConfig()` if None. Its `model` and `dataset` are not used.
            Settings that were not given are taken from the model's preset, if it has one.
        ref_model: Reference model; None takes the policy as it is before training.
        use_gpu: Train on CUDA or MPS; else on the CPU, unless `training_config.device` says otherwise.
        max_samples: Train on at most this many pairs.
        eval_dataset: Held-out pairs in TRL's layout.
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
        on_event: OnEvent = ignore,
    ) -> None:
        if (dataset_name is None) == (train_dataset is None):
            raise ConfigError("give either dataset_name or train_dataset: pairs come from one of them")
        config = training_config or DPOTrainingConfig()
        preflight(config, evaluate=eval_dataset is not None)
        self.model_name = model_name
        self.located = locate_policy(config, model_name)
        job = getattr(train_dataset, "job", config.command)
        filled = fill(config, self.located, job, on_event)
        self.config, self.preset = filled.config, filled.preset
        self.device = _device(config.device, use_gpu=use_gpu)
        if isinstance(ref_model, PeftModel):
            raise ModelError(
                "ref_model: is an adapter on a base model, and must be a merged model",
                hint="Pass ref_model.merge_and_unload().",
            )
        self.ref_model = ref_model
        self.on_event = on_event
        self.eval_dataset = eval_dataset
        self._data = [Path(dataset_name).expanduser()] if dataset_name is not None else []
        self.train_dataset: Dataset | IterableDataset
        if dataset_name is not None:
            self.train_dataset = load_dpo_dataset(dataset_name, max_samples=max_samples)
        elif train_dataset is not None:
            self.train_dataset = train_dataset if max_samples is None else train_dataset.take(max_samples)
        self.result: TrainingResult | None = None

    @cached_property
    def _training(self) -> Training:
        policy = load_policy(
            self.located,
            self.config,
            device=self.device,
            pairs=self.train_dataset,
            on_event=self.on_event,
        )
        return Training(
            policy,
            self.located,
            self.config,
            self.train_dataset,
            eval_pairs=self.eval_dataset,
            ref_model=self.ref_model,
            preset=self.preset,
            on_event=self.on_event,
        )

    @property
    def model(self) -> PreTrainedModel:
        """The policy; after `train`, the trained one."""
        return self._training.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's tokenizer."""
        return self._training.tokenizer

    def train(self) -> TrainingResult:
        """Train, and write the configuration's `output_dir`: model, tokenizer, settings and figures.

        Raises:
            OutputError: If the output folder cannot or must not be written; before anything is trained.
            TrainingError: If memory or the disk runs out, or the loss is no number and no weights were kept.
            ModelError: If the tokenizer cannot end the pairs.
            ConfigError: If TRL refuses a setting.
        """
        with self._folder(self.config.output_dir, go_on=self.config.resume) as folder:
            self.result = self._training.run(folder.staging, folder.checkpoint)
            self._write(folder, self.result)
        return self.result

    def save(self, output_dir: str | None = None) -> Path:
        """Write the trained model, its tokenizer, settings and figures.

        Args:
            output_dir: A folder that does not exist or is empty; the configuration's unless given.

        Raises:
            OutputError: If it cannot or must not be written.
            TrainingError: If nothing was trained yet, or the disk refuses it.
        """
        if self.result is None:
            raise TrainingError("there is nothing to save yet: call train() first")
        with self._folder(output_dir or self.config.output_dir) as folder:
            self._write(folder, self.result)
        return folder.path

    def _folder(self, path: str, *, go_on: bool = False) -> OutputFolder:
        return OutputFolder(
            path,
            self.config.model_copy(update={"model": self.model_name}),
            overwrite=self.config.overwrite,
            inputs=model_folders(self.located),
            data=self._data,
            go_on=go_on,
            anyway=self.config.resume_anyway,
            notice=lambda text: self.on_event(Noted(text)),
        )

    def _write(self, folder: OutputFolder, result: TrainingResult) -> None:
        with self._training.stop as stop:
            self._training.save(folder.staging)
            folder.mark_trained()
            write_file(folder.staging / "metrics.jsonl", history_text(result.history))
            stop.obey()


def _device(wanted: str, *, use_gpu: bool) -> str:
    if wanted == "auto" and not use_gpu:
        return "cpu"
    device = choose_device(wanted).type
    if use_gpu and wanted == "auto" and device == "cpu":
        raise ModelError(
            "use_gpu: neither CUDA nor MPS is available", hint="Remove use_gpu to train on the CPU."
        )
    return str(device)
