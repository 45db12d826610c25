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
from typer.core import TyperGroup

from dpo_cli import __version__
from dpo_cli.cli.pages import group_page
from dpo_cli.cli.usage import no_such_command, usage_errors
from dpo_cli.engine.cache_folder import cache_folder
from dpo_cli.errors import DpoError, RunFinishedAlready, UserError
from dpo_cli.redaction import redact
from dpo_cli.report.streams import finish_streams, prepare_streams

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from dpo_cli.cli.options import SettingsCommand


class Row(NamedTuple):
    """A command: its one-line help and the help panel it stands in. Its code is `dpo_cli.cli.<name>`."""

    panel: str
    help: str


COMMANDS = {
    "identity-shift": Row("Train", "Give a model a new name, and check that nothing else changed."),
    "train": Row("Train", "Train a model on preference pairs."),
    "resume": Row("Train", "Go on with a run that was interrupted."),
    "test": Row("Ask", "Ask a model."),
    "compare": Row("Ask", "Compare two models side by side, with scores and a verdict."),
    "check": Row("Before training", "Report what is in a data set and what is wrong with it."),
    "bench": Row("Before training", "Measure this machine: our engine against TRL's."),
}

START = 'dpo identity-shift --original-name Qwen --new-name "Deep Qwen"'
"""The command to try first: it needs nothing but what is installed."""

ABOUT = f"""dpo changes what a language model prefers, with Direct Preference Optimization (DPO), and shows what else changed.

Try this first. It works offline and takes half a minute:

  {START}"""

END = """`dpo COMMAND --help` explains a command, with examples.

Exit codes: 0 done, 1 the run failed, 2 invalid input (nothing was written), 3 the verdict is FAIL."""


class Commands(TyperGroup):
    """A group that imports a command's module when that command is run, not before."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - Typer's context, by Typer's signature
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> SettingsCommand | None:  # noqa: ANN401, ARG002 - as above
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        from dpo_cli.cli.options import command_from  # brings pydantic and the settings

        module = import_module(f"dpo_cli.cli.{cmd_name.replace('-', '_')}")
        return command_from(module.SETTINGS, module.run, cmd_name, module.HELP)

    def get_help(self, ctx: Any) -> str:  # noqa: ANN401 - as above
        """Every command in a line, without importing any."""
        rows = [(name, row.panel, row.help) for name, row in COMMANDS.items()]
        return group_page(ABOUT, rows, self.get_params(ctx), END)

    def make_context(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - as above
        """Read what was typed before the command."""
        with usage_errors("dpo"):
            return super().make_context(*args, **extra)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - as above
        """The command that was typed, or the one that was probably meant."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise no_such_command(args[0], COMMANDS)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    name="dpo",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    ctx: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Answer `dpo` and `dpo --version`; with a command there is nothing to do."""
    if version:
        typer.echo(f"dpo-cli {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(UserError.exit_code)


def main() -> NoReturn:
    """Run `dpo`: the one error boundary. Errors with an explanation are drawn, bugs keep their traceback."""
    prepare_streams()
    _keep_libraries_in_place()
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: stays ignored
            signal.signal(number, _stop)
    if not sys.warnoptions:
        warnings.simplefilter(
            "ignore"
        )  # of libraries, to each other; what concerns the user we say ourselves
    try:
        code = _run()
    except Exception:
        sys.excepthook = _show_bug  # Typer has set its own
        raise
    finally:
        finish_streams()
    sys.exit(code)


def _keep_libraries_in_place() -> None:
    """Have libraries write into dpo's cache and nowhere else, and draw without a window whatever is set for other programs."""
    cache = cache_folder()
    os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "torchinductor"))
    os.environ["MPLBACKEND"] = "svg"


def _run() -> int:
    """Run the command; what comes out of it as an exit code."""
    try:
        code = _command()
        sys.stdout.flush()  # here, where a disk that is full can still be said
    except RunFinishedAlready as done:
        typer.echo(done.message, err=True)
        return done.exit_code
    except DpoError as error:
        return _show(error)
    except KeyboardInterrupt as stop:
        _show_notes(stop)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read our output is gone, and knows it
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _refused(error)
    return code


def _command() -> int:
    try:
        app(prog_name="dpo")
    except SystemExit as stop:
        _show_notes(stop)
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def _refused(error: OSError) -> int:
    """The exit code when a disk refused a write; every other error is a bug."""
    from dpo_cli.run_folder.disk import refusal

    reason = refusal(error)
    if reason is None:
        raise error
    return _show(DpoError(f"{error.filename or 'a file'}: could not be written ({reason})"))


def _show(error: DpoError) -> int:
    from dpo_cli.report.error import show_error

    show_error(error)
    return error.exit_code


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as Python does, without the secrets and the control characters that its message may hold."""
    from dpo_cli.report.console import visible

    sys.stderr.write(visible(redact("".join(traceback.format_exception(kind, error, trace)))))


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
