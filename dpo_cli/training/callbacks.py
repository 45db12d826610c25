"""What happens between steps: figures and probe answers go out as events, collapse ends the run."""

from __future__ import annotations

import math
import resource
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from dpo_cli.errors import TrainingError
from dpo_cli.events import Evaluated, Event, OnEvent, ProbeAnswered, RunStarted, StepLogged, Warned
from dpo_cli.models.generate import generate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

    from dpo_cli.models.generate import Message

PROBES_IN_A_RUN = 10
"""How often a probe question is answered, and how often the best weights may be kept."""

_SUMMARY = ("train_runtime", "train_loss", "total_flos", "train_samples_per_second", "train_steps_per_second")


def peak_memory_bytes() -> int:
    """Highest memory of this process so far, in bytes: the device's on CUDA, resident memory elsewhere."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
        self.started = time.perf_counter()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Say what is about to happen."""
        del args, control
        self.started = time.perf_counter()
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
                peak_memory_bytes=peak_memory_bytes(),
            )
        )
        if not math.isfinite(figures["loss"]) or not math.isfinite(figures.get("grad_norm", 0.0)):
            raise TrainingError(
                f"step {state.global_step}: the loss is {figures['loss']} and the gradient norm {figures.get('grad_norm')}; "
                "the weights are ruined and the run was ended",
                hint="Lower --learning-rate, or use --dtype float32.",
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
        self._ask(model, state.global_step)

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
        self.on_event(ProbeAnswered(step, self.probe[-1]["content"], answer.text))


class CollapseCallback(TrainerCallback):
    """Ends a run in which the model is being ruined, and puts the best weights back.

    Every event passes through here on its way out, see `listen`; the alarms' warnings follow the event
    that raised them.

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
        self.file = folder / "best.safetensors"
        self.best: tuple[float, int] | None = None
        self.reason: str | None = None
        self.warnings: list[Warned] = []
        self.latest: StepLogged | None = None

    def listen(self, event: Event) -> None:
        """Pass an event on, then the warnings it raises."""
        self.on_event(event)
        if isinstance(event, StepLogged):
            self.latest = event
        for warning in self.watch(event):
            self.warnings.append(warning)
            self.on_event(warning)
            if warning.collapse and self.stop and self.reason is None:
                self.reason = warning.message

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,  # noqa: ANN401 - a model or a PeftModel
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Keep the weights as they are before the first update: a run may be ruined by its first step."""
        del args, control
        if self.stop:
            self._keep(model, 0.0, state.global_step)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,  # noqa: ANN401 - a model or a PeftModel
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Keep the weights while all is well, and end the run when it is not."""
        del args
        if not self.stop:
            return
        if self.reason is not None:
            control.should_training_stop = True
        elif self.latest is not None and state.global_step % max(1, state.max_steps // PROBES_IN_A_RUN) == 0:
            self._keep(model, self.latest.metrics.get("rewards/accuracies", 0.0), state.global_step)

    def _keep(self, model: Any, accuracy: float, step: int) -> None:  # noqa: ANN401 - a model or a PeftModel
        if self.best is not None and accuracy < self.best[0]:
            return
        self.best = (accuracy, step)
        trained = {
            name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad
        }
        save_file(trained, self.file)

    def restore(self, model: Any) -> str | None:  # noqa: ANN401 - a model or a PeftModel
        """After a stopped run, put the best weights back.

        Returns:
            Why the run was ended early and what was kept; None when it was not ended.
        """
        if self.reason is None or self.best is None:
            return None
        kept = load_file(self.file)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in kept:
                    parameter.copy_(kept[name])
        kept_step = f"of step {self.best[1]}" if self.best[1] else "from before the first step"
        return f"{self.reason} The weights {kept_step} were kept."
