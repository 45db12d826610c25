"""What a checkpoint remembers besides weights, and how a run goes on from one as if it had never stopped."""

# ruff: noqa: ANN401 - transformers' trainer is Any, and what it keeps between steps is not public

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from dpo_cli.engine.trainer import SharedPrefixTrainer
from dpo_cli.errors import TrainingError
from dpo_cli.run_folder.checkpoints import Checkpoint, new_checkpoint, rotate
from dpo_cli.run_folder.disk import disk_in_words, refuse_to_fill
from dpo_cli.training.checkpoint_files import (
    checkpoint_bytes,
    link,
    put_tensors,
    read_state,
    tensors_of,
    weights_digest,
    write_fingerprint,
    write_state,
)
from dpo_cli.training.random_state import read_random_state, write_random_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TRAINER: Final = "trainer_state.json"  # transformers' name
_ARGUMENTS: Final = "training_args.bin"  # likewise
_REFERENCE: Final = "reference.safetensors"


class Part(Protocol):
    """A part of a run that remembers something between steps. A new one is a new entry in `Checkpoints.parts`."""

    def state(self) -> dict[str, Any]:
        """What is remembered, as JSON can hold it."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Remember what another process did."""


@dataclass
class Checkpoints:
    """Where checkpoints go, and what is in them.

    Attributes:
        folder: The run's folder.
        limit: How many are kept.
        save_model: Writes model or adapter and tokenizer into a folder.
        parts: Our own parts, by a name that stays.
        files: Gives files that belong to a checkpoint as they are now; they are never written in place.
        fingerprint: What decides the result, see `training.fingerprint`.
        resume: The checkpoint that the run goes on from; None at the start.
        required: A checkpoint that the disk refuses ends the run; else that is told.
        warn: Called with a sentence and the step.
        interrupted: Whether the run ends because somebody asked it to, and will go on.
        saved: Steps that were saved in this process.
    """

    folder: Path
    limit: int
    save_model: Callable[[Path], None]
    parts: dict[str, Part] = field(default_factory=dict)
    files: Callable[[], list[Path]] = list
    fingerprint: dict[str, Any] = field(default_factory=dict)
    resume: Checkpoint | None = None
    required: bool = False
    warn: Callable[[str, int], None] = lambda _message, _step: None
    interrupted: Callable[[], bool] = lambda: False
    saved: list[int] = field(default_factory=list)

    @property
    def found(self) -> Path | None:
        """The folder of the checkpoint that the run goes on from."""
        return None if self.resume is None else self.resume.folder


class CheckpointedTrainer(SharedPrefixTrainer):
    """The trainer, with checkpoints that are whole or not there, and that forget nothing.

    transformers' own lose the loss since the last log line, TRL's figures of unlogged steps, the count of tokens, the
    reference that `sync_ref_model` moves and all that is ours.

    Args:
        *args: Of `SharedPrefixTrainer`.
        checkpoints: Where they go, and what is in them.
        **kwargs: Of `SharedPrefixTrainer`.
    """

    def __init__(self, *args: Any, checkpoints: Checkpoints, **kwargs: Any) -> None:
        self.checkpoints = checkpoints
        self._to_restore: dict[str, Any] | None = None
        self._epoch = self._epoch_began = 0
        super().__init__(*args, **kwargs)

    def go_on(self) -> None:
        """Train, from the checkpoint if there is one.

        Raises:
            TrainingError: If the checkpoint cannot be restored to the bit.
        """
        found = self.checkpoints.found
        if found is None:
            self.train()
            return
        self.args.eval_on_start = False  # it was, when the run began
        self._to_restore = read_state(found)
        for name, part in self.checkpoints.parts.items():
            part.load_state(self._to_restore["parts"][name])
        for name in self._to_restore["files"]:
            link(found / name, self.checkpoints.folder / name)
        self.train(resume_from_checkpoint=str(found))

    def load_trained(self, found: Path) -> None:
        """Load the weights of a checkpoint, and nothing else of it.

        Raises:
            TrainingError: If they cannot be restored to the bit.
        """
        self._to_restore = read_state(found)
        self._load_from_checkpoint(str(found))
        self._to_restore = None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        del trial
        kept = self.checkpoints
        if kept.interrupted() and self.state.global_step in kept.saved:
            return  # the end of an epoch that was interrupted
        self.store_flos()
        try:
            with disk_in_words("a checkpoint", kept.folder):
                refuse_to_fill(kept.folder, checkpoint_bytes(model))
                self._write_checkpoint()
        except TrainingError as error:
            if kept.required or kept.interrupted():
                raise
            kept.warn(f"No checkpoint was saved: {error.message}", self.state.global_step)
            return
        kept.saved.append(self.state.global_step)
        rotate(kept.folder, kept.limit, keep=self.state.best_model_checkpoint)

    def _write_checkpoint(self) -> None:
        kept, step = self.checkpoints, self.state.global_step
        best = f"checkpoint-{self.state.best_global_step}" if self.state.best_global_step else None
        if best is not None and (best == f"checkpoint-{step}" or (kept.folder / best).exists()):
            self.state.best_model_checkpoint = str(kept.folder / best)
        with new_checkpoint(kept.folder, step) as folder:
            kept.save_model(folder)
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            self._save_rng_state(str(folder))
            self.state.save_to_json(str(folder / _TRAINER))
            if self._moving_reference is not None:
                save_file(tensors_of(self._moving_reference), folder / _REFERENCE)
            files = kept.files()
            for file in files:
                link(file, folder / file.name)
            write_state(folder, self._state() | {"files": [file.name for file in files]})
            write_fingerprint(folder, kept.fingerprint)

    @property
    def _moving_reference(self) -> Any:
        return self.ref_model if getattr(self.args, "sync_ref_model", False) else None

    def _state(self) -> dict[str, Any]:
        """What TRL's trainer, the engine and our own parts have in memory and write nowhere."""
        return {
            "weights": weights_digest(self.model),
            "loss": float(self._tr_loss),
            "loss_total": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "tokens": self._total_train_tokens,
            "figures": {
                mode: {name: [float(value) for value in values] for name, values in figures.items()}
                for mode, figures in self._metrics.items()
            },
            "forwards": {"packed": self.forwards.packed, "handed_over": dict(self.forwards.handed_over)},
            "references": [self.references_computed, self.references_found],
            "epoch": self._epoch,
            "epoch_began": self._epoch_began,
            "stop": self._ends_here(),
            "parts": {name: part.state() for name, part in self.checkpoints.parts.items()},
        }

    def _ends_here(self) -> bool:
        """Whether training ends after this step, were it not interrupted."""
        if self.checkpoints.interrupted():
            return any(getattr(part, "ended", False) for part in self.checkpoints.parts.values())
        return bool(self.control.should_training_stop)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._tr_loss.fill_(state["loss"])
        self._total_loss_scalar = state["loss_total"]
        self._globalstep_last_logged = state["last_logged"]
        self._total_train_tokens = state["tokens"]
        for mode, figures in state["figures"].items():
            self._metrics[mode].clear()
            self._metrics[mode].update({name: list(values) for name, values in figures.items()})
        self.forwards.packed = state["forwards"]["packed"]
        self.forwards.handed_over.update(state["forwards"]["handed_over"])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        found = self.checkpoints.found
        if found is None or self._to_restore is None:
            return
        if self._moving_reference is not None:
            put_tensors(self._moving_reference, load_file(found / _REFERENCE))
        if weights_digest(self.model) != self._to_restore["weights"]:
            raise TrainingError(
                f"{found}: the weights of this model cannot be restored to the bit",
                hint="Start the run again without --resume.",
            )

    def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._init_training_state(*args, **kwargs)
        if self._to_restore is not None and self.state.best_global_step:
            best = self.checkpoints.folder / f"checkpoint-{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best) if best.is_dir() else None
        if self._to_restore is None or isinstance(self.train_dataset, Dataset):
            return result
        # transformers takes a stream for one pass, however often it was walked
        steps = self.state.global_step - self._to_restore["epoch_began"]
        return self._to_restore["epoch"], steps * self.args.gradient_accumulation_steps

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        state, self._to_restore = self._to_restore, None
        self._epoch = kwargs["epoch"]
        self._epoch_began = self.state.global_step if state is None else state["epoch_began"]
        if state is not None:
            self._restore(state)
            if state["stop"] or self.state.global_step >= self.state.max_steps:
                self._load_rng_state(str(self.checkpoints.found))
                self.control.should_training_stop = True  # transformers would take a step more
                return
        super()._run_epoch(*args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)  # for transformers' own trainer; ours reads no pickles
        torch.save(self.args, f"{output_dir}/{_ARGUMENTS}")
        write_random_state(Path(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            read_random_state(Path(checkpoint))
