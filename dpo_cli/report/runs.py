"""What a command prints when it is done, and the files that people read in its output folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from dpo_cli.errors import TrainingError
from dpo_cli.report.comparison import show_comparison
from dpo_cli.report.console import stdout, visible_line, write_json
from dpo_cli.report.figures import duration
from dpo_cli.report.html import is_comparison, write_html
from dpo_cli.report.model_card import write_model_card
from dpo_cli.report.record import RunRecord, comparison_record, identity_record, train_record
from dpo_cli.run_folder import disk_in_words, result_file

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.jobs.identity_shift import IdentityShiftResult
    from dpo_cli.jobs.train import TrainResult


def write_identity_report(folder: Path, result: IdentityShiftResult) -> None:
    """Write `report.html` and the model card of an identity shift."""
    _write(folder, identity_record(result))


def write_train_report(folder: Path, result: TrainResult) -> None:
    """Write `report.html` and the model card of a training run."""
    _write(folder, train_record(result))


def show_identity_shift(result: IdentityShiftResult, *, as_json: bool = False) -> None:
    """Print the result of `dpo identity-shift`.

    Raises:
        VerdictFailed: The run's own checks say no; printed all the same.
        TrainingError: The run was ended early; printed all the same.
    """
    if as_json:
        write_json(result.to_json())
    else:
        console = stdout()
        _show_origins(result, console)
        console.print(Text(visible_line(result.pairs.choice)))
        console.print(Text(visible_line(result.pairs.summary())))
        if result.template_renamed:
            console.print(
                Text(
                    f"The chat template contained the old name {result.template_renamed} times; it was renamed."
                )
            )
        for what, count in result.pairs.left_alone.items():
            console.print(
                Text(f"Not changed {count} times (a longer name or an address): {visible_line(what)}")
            )
        _show_stopped(result.training.stopped_early, console)
        if result.training.learning is not None:
            console.print(Text(visible_line(result.training.learning.sentence())))
        if result.comparison is not None:
            console.print()
            show_comparison(result.comparison, console)
        _show_end(result, console)
    _require_passed(result.comparison, result)


def show_train(result: TrainResult, *, as_json: bool = False) -> None:
    """Print the result of `dpo train`.

    Raises:
        VerdictFailed: The run's own checks say no; printed all the same.
        TrainingError: The run was ended early; printed all the same.
    """
    if as_json:
        write_json(result.to_json())
    else:
        console = stdout()
        _show_origins(result, console)
        _show_stopped(result.training.stopped_early, console)
        if result.comparison is not None:
            show_comparison(result.comparison, console)
        _show_end(result, console)
    _require_passed(result.comparison, result)


def comparison_file(html: str | None) -> Path | None:
    """Where `--html` goes, checked before models are loaded.

    Raises:
        OutputError: The file must not be written: it is not a report of an earlier comparison; or it cannot be.
    """
    return None if html is None else result_file(html, "--html", is_comparison)


def show_compare(comparison: Comparison, *, html: Path | None = None, as_json: bool = False) -> None:
    """Print the result of `dpo compare`, and write it as HTML where wanted.

    Args:
        comparison: The result.
        html: From `comparison_file`.
        as_json: Print one JSON document.

    Raises:
        TrainingError: The HTML file cannot be written; the result is printed all the same.
        VerdictFailed: The checks say no; printed all the same.
    """
    if as_json:
        write_json(comparison.to_json())
    else:
        show_comparison(comparison)
    if html is not None:
        with disk_in_words("the report", html):
            write_html(html, comparison_record(comparison))
    _require_passed(comparison)


def _write(folder: Path, record: RunRecord) -> None:
    try:
        write_html(folder / "report.html", record)
    finally:  # the card does not need what the report may fail on
        write_model_card(folder, record)


def _require_passed(
    comparison: Comparison | None, result: IdentityShiftResult | TrainResult | None = None
) -> None:
    """Fail where the verdict does, where a run collapsed though the weights that were kept pass, and where something is missing."""
    if comparison is not None and comparison.verdict is not None:
        comparison.verdict.require()
    if result is None:
        return
    if result.training.stopped_early:
        raise TrainingError(f"the run was stopped early: {result.training.stopped_early}")
    if result.problems:
        raise TrainingError(
            f"the trained model is in {result.output_dir}, but some steps after training failed:\n"
            + "\n".join(result.problems)
        )


def _show_origins(result: IdentityShiftResult | TrainResult, console: Console) -> None:
    if result.preset:
        values = ", ".join(f"{name} {value}" for name, value in result.preset.items())
        console.print(Text(f"Settings from the model's preset: {visible_line(values)}", style="dim"))
    if result.recipe is not None:
        console.print(Text(visible_line(result.recipe.sentence()), style="dim"))


def _show_stopped(reason: str | None, console: Console) -> None:
    if reason:
        console.print(Text.assemble(("The run was stopped early: ", "bold yellow"), visible_line(reason)))


def _show_end(result: IdentityShiftResult | TrainResult, console: Console) -> None:
    console.print()
    seconds, folder = result.seconds, visible_line(str(result.output_dir))
    spent = ", ".join(f"{visible_line(stage)} {duration(value)}" for stage, value in seconds.items())
    console.print(Text(f"Time: {spent}; in all {duration(sum(seconds.values()))}", style="dim"))
    end = "." if result.problems else "; open report.html there."
    console.print(Text(f"Everything is in {folder}{end}"), soft_wrap=True)
