"""A run that is asked to stop: it finishes its step, saves and ends; asked again, it ends at once."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from transformers import TrainerCallback

from dpo_cli.events import Noted

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from transformers import TrainerControl, TrainerState, TrainingArguments

    from dpo_cli.events import OnEvent

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopRequest:
    """Takes the first signal that asks a run to end, and leaves the second one to whoever had it before.

    As a context manager it listens, and goes on listening after a block that came to its end: a trained model is to be
    written before the run ends. `release` stops that. A signal that is ignored stays ignored. Only the main thread can listen.

    Args:
        on_event: Told when a signal has come.
        grace: Seconds to go on after SIGTERM before stopping.

    Attributes:
        number: The signal that has come; None while there was none.
    """

    def __init__(self, on_event: OnEvent, *, grace: float = 0.0) -> None:
        self.on_event, self.grace = on_event, grace
        self.number: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Listen."""
        if not self._before and threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if before not in {signal.SIG_IGN, None}:
                    self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more after an exception."""
        if error is not None:
            self.release()

    def release(self) -> None:
        """Listen no more."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    @property
    def due(self) -> bool:
        """Whether the run is to stop now."""
        if self.number is None:
            return False
        waits = self.grace if self.number == signal.SIGTERM else 0.0
        return time.monotonic() - self._since >= waits

    def obey(self) -> None:
        """Listen no more, and end the process's work if it was asked to.

        Raises:
            KeyboardInterrupt: After SIGINT.
            SystemExit: After another signal, with 128 and its number.
        """
        self.release()
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is not None:
            raise SystemExit(128 + self.number)

    def _take(self, number: int, frame: FrameType | None) -> None:
        before = self._before[number]
        if self.number is not None:
            self.release()
            if callable(before):
                before(number, frame)
            else:
                signal.raise_signal(number)
            return
        self.number, self._since = number, time.monotonic()
        later = self.grace and number == signal.SIGTERM
        when = f"in {self.grace:g} seconds" if later else "after this step"
        with contextlib.suppress(RuntimeError):  # the signal came while a line was being written
            self.on_event(
                Noted(
                    f"{signal.Signals(number).name}: the run is saved and ends {when}; "
                    "a second signal ends it at once."
                )
            )


class SaveCallback(TrainerCallback):
    """Asks for a checkpoint when the last one is some minutes old, or when the run is to stop.

    Args:
        minutes: Between checkpoints; 0 for none by time.
        stop: Whether, and since when, the run is to stop.
    """

    def __init__(self, minutes: float, stop: StopRequest) -> None:
        self.minutes, self.stop = minutes, stop
        self._saved = time.monotonic()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Count from now."""
        del args, state, control
        self._saved = time.monotonic()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Save if it is time."""
        del args, state
        if self.minutes and time.monotonic() - self._saved >= 60 * self.minutes:
            control.should_save = True
        if self.stop.due:
            control.should_save = control.should_training_stop = True

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401 - by transformers' signature
    ) -> None:
        """Count from the checkpoint."""
        del args, state, control
        self._saved = time.monotonic()
