"""What happens between steps: figures and probe answers go out as events, collapse ends the run."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from dpo_cli.errors import TrainingError, first_line
from dpo_cli.events import Evaluated, Event, OnEvent, ProbeAnswered, RunStarted, StepLogged, Warned
from dpo_cli.models.finite import not_finite_weights, trained_parameters
from dpo_cli.models.generate import generate
from dpo_cli.models.memory import peak_memory_bytes
from dpo_cli.run_folder.folder import BEST, CANDIDATE, INITIAL
from dpo_cli.training.alarms import not_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

    from dpo_cli.models.generate import Message

PROBES_IN_A_RUN = 10
"""How often a probe question is answered, and how often the best weights may be kept."""

UNTRAINED_ACCURACY = 0.5
"""What weights must beat to be kept in place of those from before training, which prefer neither completion."""

_SLOWER = "Lower --learning-rate, or use --dtype float32. --stop-on-collapse keeps the best weights."

_SUMMARY = ("train_runtime", "train_loss", "total_flos", "train_samples_per_second", "train_steps_per_second")


class EventCallback(TrainerCallback):
    """Tells the outside what TRL logs, one event a logging step, and keeps the history.

    Args:
        on_event: Where events go.
        run: What is said when training begins; the number of steps is filled in then.
    """

    def __init__(self, on_event: OnEvent, run: RunStarted) -> None:
        self.on_event = on_event
        self.run = run
        self.history: list[dict[str, float]] = []
        self.resumed_at: list[int] = []
        self.started = time.perf_counter()
        self._seconds_before = 0.0

    def state(self) -> dict[str, Any]:
        """What was logged so far, and how long that took."""
        seconds = time.perf_counter() - self.started
        return {"history": self.history, "seconds": seconds, "resumed_at": self.resumed_at}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what another process has logged."""
        self.history[:] = state["history"]
        self.resumed_at = list(state["resumed_at"])
        self._seconds_before = state["seconds"]

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Say what is about to happen."""
        del args, control
        self.started = time.perf_counter() - self._seconds_before
        if state.global_step:
            self.resumed_at.append(state.global_step)
        self.on_event(replace(self.run, total_steps=state.max_steps))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Emit one line of figures."""
        del args, control
        figures = {
            k: float(v) for k, v in (logs or {}).items() if isinstance(v, (int, float)) and k not in _SUMMARY
        }
        if not figures or not ({"loss", "eval_loss"} & set(figures)):
            return
        self.history.append({"step": state.global_step, **figures})
        if "eval_loss" in figures:
            self.on_event(Evaluated(state.global_step, figures))
            return
        self.on_event(
            StepLogged(
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=float(state.epoch or 0.0),
                seconds=time.perf_counter() - self.started,
                metrics=figures,
                pairs_seen=state.global_step * self.run.pairs_per_step,
                tokens_seen=int(figures.get("num_tokens", 0)),
                peak_memory_bytes=peak_memory_bytes(self.run.device),
            )
        )


class ProbeCallback(TrainerCallback):
    """Asks the model as it is now, some times in a run.

    Args:
        on_event: Where the answer goes.
        tokenizer: The model's tokenizer.
        probe: The question with its system prompt.
        max_new_tokens: Longest answer.
    """

    def __init__(
        self,
        on_event: OnEvent,
        tokenizer: PreTrainedTokenizerBase,
        probe: Sequence[Message],
        max_new_tokens: int,
    ) -> None:
        self.on_event = on_event
        self.tokenizer = tokenizer
        self.probe = probe
        self.max_new_tokens = max_new_tokens

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,  # noqa: ANN401 - a model or a PeftModel
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Ask before the first update: what the alarms compare later answers with."""
        del args, control
        if not state.global_step:  # else it was asked when the run began
            self._ask(model, 0)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,  # noqa: ANN401 - a model or a PeftModel
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Ask, every tenth of the run."""
        del args, control
        if state.global_step % max(1, state.max_steps // PROBES_IN_A_RUN) == 0:
            self._ask(model, state.global_step)

    def _ask(self, model: Any, step: int) -> None:  # noqa: ANN401 - a model or a PeftModel
        [answer] = generate(model, self.tokenizer, [self.probe], max_new_tokens=self.max_new_tokens)
        self.on_event(ProbeAnswered(step, self.probe[-1]["content"], answer.text or answer.thinking))


_WATCHED: dict[str, type[StepLogged | Evaluated | ProbeAnswered]] = {
    kind.__name__: kind for kind in (StepLogged, Evaluated, ProbeAnswered)
}
"""Events that the alarms look at; a checkpoint keeps them, so that the alarms see them again."""


@dataclass(frozen=True)
class _Kept:
    """Weights on disk: after which step, and the accuracy they were seen to have."""

    step: int
    accuracy: float


class CollapseCallback(TrainerCallback):
    """Ends a run in which the model is being ruined, and puts the best weights back.

    Every event passes through here on its way out, see `listen`; the alarms' warnings follow the event
    that raised them. It must come after the callbacks whose events it judges.

    The figures of a step are those of the weights before its update. Weights are therefore a candidate at
    first, and are the best only when a later step has been logged without a collapse: with its accuracy.

    Args:
        on_event: Where events and warnings go.
        watch: The alarms: an event in, the warnings that it raises out.
        stop: Whether a collapse ends the run.
        folder: Where the best weights are kept meanwhile.
    """

    def __init__(
        self, on_event: OnEvent, watch: Callable[[Event], list[Warned]], folder: Path, *, stop: bool
    ) -> None:
        self.on_event = on_event
        self.watch = watch
        self.stop = stop
        self.reason: str | None = None
        self.warnings: list[Warned] = []
        self._initial_file = folder / INITIAL
        self._best_file = folder / BEST
        self._candidate_file = folder / CANDIDATE
        self._best = _Kept(0, UNTRAINED_ACCURACY)
        self._candidate: int | None = None
        self._figures: Callable[[], Any] | None = None
        self._last_step = 0
        self._watched: list[Event] = []

    def __enter__(self) -> Self:
        """Keep weights from now on."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the weights that were kept meanwhile; after a failure the best ones stay, if training made them."""
        best = self._best_file if error is not None else None
        for file in {self._initial_file, self._best_file, self._candidate_file} - {best}:
            file.unlink(missing_ok=True)

    @property
    def ended(self) -> bool:
        """Whether the run ends because the model is being ruined."""
        return self.reason is not None

    def files(self) -> list[Path]:
        """The weights that a checkpoint needs besides its own; those from before training come with the model."""
        return [file for file in (self._best_file, self._candidate_file) if file.exists()]

    def state(self) -> dict[str, Any]:
        """What was said and seen so far."""
        return {
            "watched": [[type(event).__name__, asdict(event)] for event in self._watched],
            "warnings": [asdict(warning) for warning in self.warnings],
            "reason": self.reason,
            "best": asdict(self._best),
            "candidate": self._candidate,
            "last_step": self._last_step,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what another process has said and seen; nothing is said again."""
        for kind, values in state["watched"]:
            event = _WATCHED[kind](**values)
            self._watched.append(event)
            self.watch(event)
        self.warnings[:] = [Warned(**warning) for warning in state["warnings"]]
        self.reason = state["reason"]
        self._best = _Kept(**state["best"])
        self._candidate = state["candidate"]
        self._last_step = state["last_step"]

    def keep_initial(self, model: Any) -> None:  # noqa: ANN401 - a model or a PeftModel
        """Keep the weights as they are before the first update: a run may be ruined by its first step."""
        if self.stop:
            save_weights(model, self._initial_file)

    def watch_steps(self, trainer: Any) -> None:  # noqa: ANN401 - transformers' trainer
        """Look at the loss and the gradient of every step, also of those that are not logged."""
        self._figures = lambda: (trainer._tr_loss, trainer.last_grad_norm)  # noqa: SLF001 - the sum since the last log

    def listen(self, event: Event) -> None:
        """Pass an event on, then the warnings it raises."""
        self.on_event(event)
        if isinstance(event, tuple(_WATCHED.values())):
            self._watched.append(event)
        for warning in self.watch(event):
            self.warnings.append(warning)
            self.on_event(warning)
            if warning.collapse and self.stop and self.reason is None:
                self.reason = warning.message
        if isinstance(event, StepLogged) and self.reason is None:
            self._promote(event)

    def warn(self, message: str, step: int) -> None:
        """Say that batches do not run on the engine that was asked for."""
        self.warnings.append(Warned("engine", message, "", step))
        self.on_event(self.warnings[-1])

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Have this step logged, and with that judged, if its loss or gradient is no number."""
        del state
        if self._figures is None:
            return
        loss, norm = (torch.as_tensor(figure, dtype=torch.float32) for figure in self._figures())
        if not_finite({"loss": float(loss), "grad_norm": float(norm)}, scaled_loss=args.fp16):
            control.should_log = True

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,  # noqa: ANN401 - a model or a PeftModel
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Keep the weights while all is well, and end the run when it is not.

        Raises:
            TrainingError: If a checkpoint is due and weights are no numbers, and none were kept to go back to.
        """
        del args
        self._last_step = state.global_step
        if control.should_save and (ruined := not_finite_weights(trained_parameters(model))):
            self._ruined(state.global_step, ruined)
            control.should_save, control.should_training_stop = False, True
        if not self.stop:
            return
        if self.reason is not None:
            control.should_training_stop = True
        elif self._candidate is None and state.global_step % -(-state.max_steps // PROBES_IN_A_RUN) == 0:
            save_weights(model, self._candidate_file)
            self._candidate = state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """End the run at once when a figure has shown that the model is ruined.

        Raises:
            TrainingError: If loss or gradient are no numbers, and no weights were kept to go back to.
        """
        if self.reason is not None:
            control.should_training_stop = True
            return
        figures: dict[str, float] = {
            name: logs[name] for name in ("loss", "grad_norm") if logs and name in logs
        }
        if not_finite(figures, scaled_loss=args.fp16):
            raise TrainingError(
                f"step {state.global_step}: the loss is {figures.get('loss')} and the gradient norm "
                f"{figures.get('grad_norm')}; the weights are ruined and the run was stopped",
                hint=_SLOWER,
            )

    def _promote(self, event: StepLogged) -> None:
        """Make the candidate the best if the figures are of it, or of weights after it, and are good."""
        if self._candidate is None or event.step <= self._candidate:
            return
        accuracy = event.metrics.get("rewards/accuracies", 0.0)
        if accuracy > UNTRAINED_ACCURACY and accuracy >= self._best.accuracy:
            self._candidate_file.replace(self._best_file)
            self._best = _Kept(self._candidate, accuracy)
        self._candidate = None

    def restore(self, model: Any) -> str | None:  # noqa: ANN401 - a model or a PeftModel
        """After a stopped run, put the best weights back.

        Args:
            model: The policy.

        Returns:
            Why the run was ended early and what was kept; None when it was not ended.

        Raises:
            TrainingError: If the last step ruined the weights, and none were kept.
        """
        if ruined := not_finite_weights(trained_parameters(model)):
            self._ruined(self._last_step, ruined)
        if self.reason is None:
            return None
        load_weights(model, self._best_file if self._best.step else self._initial_file)
        kept_step = f"of step {self._best.step}" if self._best.step else "from before the first step"
        return f"{self.reason} The weights {kept_step} were kept."

    def _ruined(self, step: int, what: str) -> None:
        """End the run on weights that are no numbers: with those that were kept, or as a failure."""
        if not self.stop:
            raise TrainingError(
                f"step {step}: {what}; the weights are ruined and the run was stopped", hint=_SLOWER
            )
        self.reason = self.reason or f"Step {step}: {what}; the weights are ruined."


def save_weights(model: Any, file: Path) -> None:  # noqa: ANN401 - a model or a PeftModel
    """Write the weights that are trained.

    Raises:
        TrainingError: If the disk refuses them.
    """
    trained = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    part = file.with_name(f"{file.name}.part")
    try:
        save_file(trained, part)
        part.replace(file)  # a checkpoint may share the earlier file
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{file.parent}: the best weights cannot be kept there during the run ({first_line(error)})",
            hint="Free some space on that disk, or give --no-stop-on-collapse.",
        ) from error


def load_weights(model: Any, file: Path) -> None:  # noqa: ANN401 - a model or a PeftModel
    """Put weights back that `save_weights` has written."""
    kept = load_file(file)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in kept:
                parameter.copy_(kept[name])
