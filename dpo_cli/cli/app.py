"""The `dpo` command: registration, and the one place where errors become exit codes.

Nothing heavy is imported here: `dpo --help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from dpo_cli.errors import DpoError
from dpo_cli.redaction import redact

if TYPE_CHECKING:
    from types import FrameType, TracebackType


class Row(NamedTuple):
    """A command: its one-line help and the help panel it stands in. Its code is `dpo_cli.cli.<name>`."""

    panel: str
    help: str


COMMANDS = {
    "identity-shift": Row(
        "Train", "Give a model a new name: it answers, the name is replaced, DPO does the rest."
    ),
    "train": Row("Train", "Train a model on preference pairs."),
    "test": Row("Ask", "Ask a model."),
    "compare": Row("Ask", "Compare two models side by side, with figures and a verdict."),
    "check": Row("Before training", "Say what is in a data set and what is wrong with it."),
    "bench": Row("Before training", "Measure this machine: our engine against TRL's."),
}

EPILOG = """Start here, offline, in half a minute:

  dpo identity-shift --original-name Qwen --new-name "Deep Qwen"

Exit codes: 0 done, 1 the run failed, 2 something given was wrong, 3 the verdict is FAIL."""


class LazyCommands(TyperGroup):
    """A group that imports a command's module when that command is run, not before."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - Typer's context, by Typer's signature
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 - Typer's classes
        """The command, or only its name and help while help is being printed."""
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=row.help, rich_help_panel=row.panel)
        module = import_module(f"dpo_cli.cli.{cmd_name.replace('-', '_')}")
        one = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        one.command(cmd_name, help=module.HELP, no_args_is_help=False)(module.command)
        return typer.main.get_command(one)

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Typer's classes
        """Print the help of the group without importing any command."""
        self._listing = True
        super().format_help(ctx, formatter)


app = typer.Typer(
    cls=LazyCommands,
    name="dpo",
    help="Change what a language model prefers: Direct Preference Optimization, with evidence after every run.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"dpo-cli {version('dpo-cli')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the options of `dpo` itself."""


def main() -> NoReturn:
    """Run `dpo`: the one error boundary. Errors with an explanation are drawn, bugs keep their traceback."""
    signal.signal(signal.SIGTERM, _stop)
    if not sys.warnoptions:
        warnings.simplefilter(
            "ignore"
        )  # of libraries, to each other; what concerns the user we say ourselves
    try:
        app()
        code = 0
    except SystemExit as stop:
        _show_notes(stop)
        code = stop.code if isinstance(stop.code, int) else 1
    except DpoError as error:
        from dpo_cli.report.error import show_error

        show_error(error)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output is gone; keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except Exception:
        sys.excepthook = _show_bug  # Typer has set its own
        raise
    sys.exit(code)


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as Python does, without the secrets that a library has put into its message."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _show_notes(stop: BaseException) -> None:
    """Print what was noted on an interruption on its way here, such as where checkpoints are; Typer wraps it twice."""
    error: BaseException | None = stop
    while error is not None:
        if hasattr(error, "__notes__"):
            from dpo_cli.report.error import show_notes

            show_notes(error)
        error = error.__cause__ or error.__context__


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + number)
