"""One training of a policy that is in memory: TRL's loop, what watches it, and the weights it ends with."""

from __future__ import annotations

import contextlib
import shutil
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from datasets import IterableDataset
from transformers import PrinterCallback, set_seed
from trl.trainer.utils import disable_dropout_in_model

from dpo_cli.engine.length_scaled_rope import length_limit
from dpo_cli.errors import ConfigError, OutputError, TrainingError
from dpo_cli.events import Noted, Progress, RunFinished, RunStarted, Warned, ignore
from dpo_cli.models.devices import choose_dtype
from dpo_cli.models.finite import not_finite_weights, trained_parameters
from dpo_cli.models.memory import keep_memory, out_of_memory_in_words, peak_memory_bytes
from dpo_cli.run_folder import TRIAL, disk_in_words, require_room
from dpo_cli.run_folder.disk import room_missing
from dpo_cli.training.advice import settings_that_help
from dpo_cli.training.alarms import Alarms
from dpo_cli.training.callbacks import CollapseCallback, EventCallback, ProbeCallback
from dpo_cli.training.checkpoint import CheckpointedTrainer, Checkpoints
from dpo_cli.training.checkpoint_files import checkpoint_bytes, keep_trained, of_the_same_run, trained_result
from dpo_cli.training.fingerprint import run_fingerprint
from dpo_cli.training.interruption import SaveCallback, StopRequest
from dpo_cli.training.learning import DevQuestions, Learning, LearningCallback, laid_out
from dpo_cli.training.policy import require_end_token, save_policy
from dpo_cli.training.quiet import quiet_trl
from dpo_cli.training.trl_config import lora_config, trl_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import DPOConfig

    from dpo_cli.config import OptimizationConfig
    from dpo_cli.events import OnEvent
    from dpo_cli.models.generate import Message
    from dpo_cli.models.locate import LocatedModel
    from dpo_cli.run_folder.checkpoints import Checkpoint

    Policy = tuple[PreTrainedModel, PreTrainedTokenizerBase]


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
        learning: How a new name was learnt; None where dev questions were not asked.
        resumed_at: Steps after which the run was interrupted and went on in another process.
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
    learning: Learning | None = None
    resumed_at: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The figures without the history, for `--json` and for the run's files."""
        return {key: value for key, value in asdict(self).items() if key != "history"}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TrainingResult:
        """From what `asdict` gave, read back from JSON."""
        warnings = [Warned(**warning) for warning in record["warnings"]]
        learning = record["learning"] and Learning.from_record(record["learning"])
        return cls(**(dict(record) | {"warnings": warnings, "learning": learning}))


@dataclass(frozen=True)
class Probe:
    """A question that is put to the model some times in a run, and its longest answer in tokens."""

    conversation: Sequence[Message]
    max_new_tokens: int


class Training:
    """One training, from a loaded policy to a trained one.

    Args:
        policy: The model, in fp32 on its device, and its tokenizer.
        located: Where the model came from.
        config: The settings, the preset's included.
        pairs: Preference pairs in TRL's layout.
        eval_pairs: Held-out pairs in TRL's layout.
        ref_model: Reference model; None takes the policy as it is before training.
        probe: A question for the model while it trains.
        dev: Questions by which training ends when a name is learnt.
        preset: Those of the settings that came with the model, told when training begins.
        on_event: Called with each event, see `dpo_cli.events`.

    Attributes:
        model: The policy; after `run`, the trained one.
        tokenizer: Its tokenizer.
        stop: Whether a signal has asked the run to end.
    """

    def __init__(
        self,
        policy: Policy,
        located: LocatedModel,
        config: OptimizationConfig,
        pairs: Dataset | IterableDataset,
        *,
        eval_pairs: Dataset | None = None,
        ref_model: PreTrainedModel | None = None,
        probe: Probe | None = None,
        dev: DevQuestions | None = None,
        preset: Mapping[str, Any] | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        self.model, self.tokenizer = policy
        self.device = str(self.model.device.type)
        self.located, self.config, self.preset = located, config, dict(preset or {})
        self.pairs, self.eval_pairs = pairs, eval_pairs
        self.ref_model, self.probe, self.dev, self.on_event = ref_model, probe, dev, on_event
        self.stop = StopRequest(on_event, grace=config.signal_grace)
        self._fingerprint: dict[str, Any] = {}

    def run(self, folder: Path, resume: Checkpoint | None = None) -> TrainingResult:
        """Train.

        Args:
            folder: Where checkpoints go; an existing one.
            resume: The checkpoint to go on from.

        Raises:
            OutputError: If the trained model could not be saved there; before anything is trained.
            TrainingError: If memory or the disk runs out, or the loss is no number and no weights were kept.
            ModelError: If the tokenizer cannot end the pairs.
            ConfigError: If TRL refuses a setting, or the run that is gone on with was another one.
            KeyboardInterrupt: If SIGINT asked it to end; it has been saved.
            SystemExit: If another signal did.
        """
        keep_memory()
        set_seed(self.config.seed)
        require_end_token(self.located.name, self.tokenizer, self.pairs)
        now = run_fingerprint(self.located, self.tokenizer, self.pairs, self.eval_pairs, self.device)
        self._fingerprint = of_the_same_run(
            resume, now, anyway=self.config.resume_anyway, on_event=self.on_event
        )
        arguments = self._arguments(folder)
        run = self._announcement(arguments)
        alarms = Alarms(self.config.loss_type, beta=self.config.beta, scaled_loss=arguments.fp16)
        collapse = CollapseCallback(self.on_event, alarms, folder, stop=self.config.stop_on_collapse)
        events = EventCallback(collapse.listen, run)
        learner = None
        if self.dev is not None:
            learner = LearningCallback(collapse.listen, self.tokenizer, self.dev, events.history, folder)
        checkpoints = self._checkpoints(folder, events, collapse, learner, resume)
        adapters = self.config.lora_rank is not None
        if not adapters:
            self._try_saving(folder)
        with (
            learner or contextlib.nullcontext(),
            collapse,
            out_of_memory_in_words(),
            disk_in_words("a checkpoint", folder),
            quiet_trl(),
        ):
            trainer = self._trainer(arguments, events, collapse, learner, checkpoints)
            if adapters:
                self.model = trainer.model
                self._try_saving(folder)
            if resume is not None and (done := trained_result(resume.folder)) is not None:
                trainer.load_trained(resume.folder)
                self.model = trainer.model.eval()
                return TrainingResult.from_record(done)
            events.run = replace(run, engine=trainer.engine, note=_note(self.preset, trainer.fallback_reason))
            collapse.watch_steps(trainer)
            collapse.keep_initial(trainer.model)
            with self.stop if self.saves else contextlib.nullcontext():
                trainer.go_on()
                if trainer.state.global_step in checkpoints.saved:
                    self.stop.obey()
                seconds = time.perf_counter() - events.started
                _say_handovers(trainer, collapse)
                self.model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
                stopped = collapse.restore(self.model)
                learning = None
                if learner is not None:
                    learning = learner.restore(self.model, put_back=stopped is None)
                    learning = replace(learning, advice=settings_that_help(learning, self.config))
        last = next((h for h in reversed(events.history) if "loss" in h), {})
        result = TrainingResult(
            steps=trainer.state.global_step,
            seconds=seconds,
            metrics={k: v for k, v in last.items() if k != "step"},
            history=events.history,
            engine=trainer.engine,
            device=self.device,
            dtype=run.dtype,
            peak_memory_bytes=peak_memory_bytes(self.device),
            stopped_early=stopped,
            warnings=collapse.warnings,
            fallback_reason=trainer.fallback_reason,
            engine_forwards=trainer.forwards.packed,
            trl_forwards=dict(trainer.forwards.handed_over),
            learning=learning,
            resumed_at=events.resumed_at,
        )
        if learning is not None:
            self.on_event(Noted(learning.sentence()))
        self.on_event(RunFinished(result.steps, seconds, result.metrics, stopped))
        return result

    @property
    def saves(self) -> bool:
        """Whether checkpoints are written at all."""
        return bool(self.config.save_minutes or self.config.save_steps)

    def keep(self, folder: Path, result: TrainingResult) -> None:
        """Keep the trained model, which `save` has written, as a checkpoint to go on from when nothing but asking is left.

        Its files are linked, not copied.

        Args:
            folder: The run's folder.
            result: What the training gave.
        """
        with disk_in_words("the result of training", folder):
            keep_trained(folder, result.steps, self.model, self._fingerprint, asdict(result))

    def _checkpoints(
        self,
        folder: Path,
        events: EventCallback,
        collapse: CollapseCallback,
        learner: LearningCallback | None,
        resume: Checkpoint | None,
    ) -> Checkpoints:
        more: dict[str, LearningCallback] = {} if learner is None else {"learning": learner}
        return Checkpoints(
            folder,
            self.config.save_total_limit,
            lambda place: save_policy(self.model, self.tokenizer, self.located, place),
            parts={"events": events, "collapse": collapse, **more},
            files=lambda: collapse.files() + [file for part in more.values() for file in part.files()],
            fingerprint=self._fingerprint,
            resume=resume,
            required=self.config.save_steps is not None,
            warn=collapse.warn,
            interrupted=lambda: self.stop.due,
        )

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write the model or adapter in safetensors, and the tokenizer, into an existing folder.

        Args:
            folder: Where to.
            tokenizer: One to write in place of the policy's own.

        Raises:
            TrainingError: If a weight is no number, or the disk refuses it.
        """
        if ruined := not_finite_weights(trained_parameters(self.model)):
            raise TrainingError(
                f"{ruined}; the weights are ruined and were not written",
                hint="Lower --learning-rate, or use --dtype float32.",
            )
        shutil.rmtree(folder / TRIAL, ignore_errors=True)
        with disk_in_words("the trained model", folder):
            save_policy(
                self.model,
                tokenizer or self.tokenizer,
                self.located,
                folder,
                dtype=self.config.save_dtype,
            )

    def _try_saving(self, folder: Path) -> None:
        """Save the policy before it is trained: what fails now would fail when hours of training are in it.

        What was written stays until the trained model takes its room.
        """
        trained = sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)
        needed = trained * (1 + 2 * self.config.stop_on_collapse + (self.dev is not None))
        require_room(folder, needed, "weights")
        if self.saves and (short := room_missing(folder, needed + self._checkpoint_room())):
            self.on_event(Noted(f"The disk may fill up: with checkpoints this run writes {short}."))
        (folder / TRIAL).mkdir()
        try:
            with disk_in_words("the model", folder):
                save_policy(self.model, self.tokenizer, self.located, folder / TRIAL)
        except TrainingError as error:
            raise OutputError(error.message, hint=error.hint) from error

    def _checkpoint_room(self) -> int:
        """Bytes of the checkpoints that are kept, and of the one that is being written."""
        return checkpoint_bytes(self.model) * (self.config.save_total_limit + 1)

    def _arguments(self, folder: Path) -> DPOConfig:
        dtype = choose_dtype(
            self.config.dtype, torch.device(self.device), parameters=self.model.num_parameters()
        )
        return trl_arguments(
            self.config if self.dev is None else laid_out(self.config),
            folder=folder,
            autocast=str(dtype).removeprefix("torch."),
            on_cpu=self.device == "cpu",
            evaluate=self.eval_pairs is not None,
            precompute=self._knows_references(),
        )

    def _knows_references(self) -> bool:
        """Whether a pair's reference can be known before training.

        A stream cannot be walked twice; where positions are scaled by the length of a batch, a row's score depends on
        the rows beside it.
        """
        streamed = any(isinstance(pairs, IterableDataset) for pairs in (self.pairs, self.eval_pairs))
        limit, longest = length_limit(self.model), self.config.max_length
        return not streamed and (limit is None or longest <= limit)

    def _announcement(self, arguments: DPOConfig) -> RunStarted:
        return RunStarted(
            total_steps=0,
            pairs=getattr(self.pairs, "num_rows", 0),
            pairs_per_step=self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps,
            engine=self.config.engine,
            device=self.device,
            dtype="bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else "float32",
        )

    def _trainer(
        self,
        arguments: DPOConfig,
        events: EventCallback,
        collapse: CollapseCallback,
        learner: LearningCallback | None,
        checkpoints: Checkpoints,
    ) -> CheckpointedTrainer:
        # The learner knows how many steps are planned, which the first event tells.
        callbacks: list[TrainerCallback] = [events] if learner is None else [learner, events]
        if self.probe is not None:
            asked, longest = self.probe.conversation, min(64, self.probe.max_new_tokens)
            callbacks.append(ProbeCallback(collapse.listen, self.tokenizer, asked, longest))
        callbacks.append(SaveCallback(self.config.save_minutes, self.stop))
        callbacks.append(collapse)  # after those whose events it judges
        if "disable_dropout" not in self.config.trl:
            for model in (self.model, self.ref_model):
                if model is not None:
                    disable_dropout_in_model(model)  # before new adapters come, which may have theirs on
        evaluated = arguments.eval_strategy != "no" or arguments.eval_on_start
        config = self.config
        try:
            trainer = CheckpointedTrainer(
                checkpoints=checkpoints,
                model=self.model,
                ref_model=self.ref_model,
                args=arguments,
                train_dataset=self.pairs,
                eval_dataset=self.eval_pairs if evaluated else None,
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
            raise ConfigError(f"TRL rejects these settings: {error}") from error
        trainer.remove_callback(PrinterCallback)  # figures go out as events
        return trainer


def _said_by_trl(error: BaseException) -> bool:
    """Whether TRL's constructor refused something, and not our engine, which it calls for the references."""
    rooms = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    first = next((index for index, room in enumerate(rooms) if room.startswith("trl.")), None)
    return first is not None and not any(room.startswith("dpo_cli.") for room in rooms[first:])


def _say_handovers(trainer: CheckpointedTrainer, collapse: CollapseCallback) -> None:
    forwards = trainer.forwards
    total = forwards.packed + forwards.handed_over.total()
    for reason, count in forwards.handed_over.items():
        collapse.warn(f"{count} of {total} forwards were TRL's own: {reason}.", trainer.state.global_step)


def _note(preset: dict[str, Any], fallback_reason: str | None) -> str:
    """What is worth saying when training begins: the preset, and why TRL's forward runs if it does."""
    notes = []
    if preset:
        notes.append("preset of the model: " + ", ".join(f"{key} {value}" for key, value in preset.items()))
    if fallback_reason:
        notes.append(f"TRL's own forward runs: {fallback_reason}")
    return "; ".join(notes)
