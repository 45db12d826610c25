"""What was typed wrong, said as every other error is said."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typer.exceptions import TyperException

from dpo_cli.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@contextmanager
def usage_errors(command: str) -> Iterator[None]:
    """Raise what Typer has to say about flags and arguments as an error of ours.

    Args:
        command: What was typed so far, whose help is the hint.

    Raises:
        ConfigError: In place of Typer's error.
    """
    try:
        yield
    except TyperException as error:
        raise ConfigError(_message(error), hint=f"See `{command} --help`.") from None


def no_such_command(name: str, commands: Iterable[str]) -> ConfigError:
    """The error for a mistyped command, with the one that was meant."""
    return ConfigError(f"{name}: no such command{_advice(name, commands)}", hint="See `dpo --help`.")


def unexpected_argument(argument: str, command: str | None, *, takes_data: bool) -> ConfigError:
    """The error for a word that is neither a flag nor its value; often it is the data."""
    flag = f" Data is given as --dataset {argument}." if takes_data else ""
    return ConfigError(f"{argument}: unexpected argument", hint=f"See `dpo {command} --help`.{flag}")


def _message(error: Any) -> str:  # noqa: ANN401 - Typer's errors
    name = getattr(error, "option_name", None)
    if name is None or not hasattr(error, "possibilities"):
        return str(error.format_message())
    return f"{name}: no such flag{_advice(name, _flags(error.ctx))}"


def _flags(context: Any) -> list[str]:  # noqa: ANN401 - Typer's context
    return [flag for one in context.command.get_params(context) for flag in (*one.opts, *one.secondary_opts)]


def _advice(name: str, known: Iterable[str]) -> str:
    one_letter = len(name.lstrip("-")) == 1
    near = [] if one_letter else difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {near[0]}?" if near else ""
