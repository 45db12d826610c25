"""The end of a command: its result on standard output, as text or as one JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from dpo_cli.errors import TrainingError, VerdictFailed
from dpo_cli.evaluation.compare import answers_json
from dpo_cli.report.answers import show_answers
from dpo_cli.report.comparison import show_comparison
from dpo_cli.report.figures import duration
from dpo_cli.report.text import stdout, visible_line, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.evaluation.scores import Answer
    from dpo_cli.jobs.identity_shift import IdentityShiftResult
    from dpo_cli.jobs.train import TrainResult
    from dpo_cli.training.trainer import TrainingResult


def show_identity_shift(result: IdentityShiftResult, *, as_json: bool) -> None:
    """Print what `dpo identity-shift` did.

    Raises:
        VerdictFailed: If the verdict is FAIL; after everything was printed.
    """
    if as_json:
        write_json(result.to_json())
    else:
        console = stdout()
        show_comparison(result.comparison, console)
        console.print()
        _line(console, "Pairs", result.pairs.summary())
        for what, count in result.pairs.left_alone.items():
            _line(console, "Left alone", f"{what} ({count} times): a longer name or an address")
        if result.template_renamed:
            _line(console, "Chat template", f"the old name stood in it {result.template_renamed} times and was renamed")
        _training(console, result.training, result.preset)
        _times(console, result.seconds)
        _line(console, "Written", str(result.output_dir))
    require_pass(result.comparison, result.training)


def show_train(result: TrainResult, *, as_json: bool) -> None:
    """Print what `dpo train` did.

    Raises:
        VerdictFailed: If the verdict is FAIL; after everything was printed.
    """
    if as_json:
        write_json(result.to_json())
    else:
        console = stdout()
        if result.comparison is not None:
            show_comparison(result.comparison, console)
            console.print()
        _line(console, "Pairs", result.data.accounting.summary())
        _training(console, result.training, result.preset)
        _times(console, result.seconds)
        _line(console, "Written", str(result.output_dir))
    require_pass(result.comparison, result.training)


def show_compare(comparison: Comparison, *, as_json: bool) -> None:
    """Print what `dpo compare` found.

    Raises:
        VerdictFailed: If the verdict is FAIL; after everything was printed.
    """
    if as_json:
        write_json(comparison.to_json())
    else:
        show_comparison(comparison)
    require_pass(comparison)


def show_test(model: str, answers: Sequence[Answer], *, as_json: bool) -> None:
    """Print what `dpo test` heard."""
    if as_json:
        write_json(answers_json(model, answers))
    else:
        show_answers(model, answers)


def require_pass(comparison: Comparison | None, training: TrainingResult | None = None) -> None:
    """Say by an error that a verdict is FAIL, or that a run was ended early.

    Raises:
        VerdictFailed: With the checks that failed.
        TrainingError: If the run collapsed, and nothing was compared that could fail.
    """
    stopped = training.stopped_early if training else None
    failed = [c for c in comparison.verdict.checks if not c.passed] if comparison and comparison.verdict else []
    if failed:
        words = "; ".join(f"{c.check.label}: {c.value:.3g}, threshold {c.threshold:g}" for c in failed)
        raise VerdictFailed(words, hint=stopped or "")
    if stopped:
        raise TrainingError(f"the run was ended early: {stopped}")


def _training(console: Console, training: TrainingResult, preset: dict[str, object]) -> None:
    figures = training.metrics
    words = f"{training.steps} steps in {duration(training.seconds)}, engine {training.engine}, {training.device}, {training.dtype}"
    for name, label in (("loss", "loss"), ("rewards/margins", "margin"), ("rewards/accuracies", "accuracy")):
        if name in figures:
            words += f", {label} {figures[name]:.3g}"
    _line(console, "Training", words)
    if preset:
        _line(console, "Preset", ", ".join(f"{key} = {value}" for key, value in preset.items()) + " (flags win)")


def _times(console: Console, seconds: dict[str, float]) -> None:
    total = sum(seconds.values())
    _line(console, "Time", f"{duration(total)}: " + ", ".join(f"{stage} {duration(s)}" for stage, s in seconds.items()))


def _line(console: Console, label: str, text: str) -> None:
    console.print(Text.assemble((f"{label}: ", "bold"), visible_line(text)))
