"""Typer flags made from the fields of the settings; no default, type or help text of its own.

A flag arrives as the string that was typed and is validated with everything else by
`config.load_settings`, so that all mistakes are reported at once.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

import typer
from typer.core import TyperCommand

from dpo_cli.cli.pages import command_page
from dpo_cli.cli.surroundings import refuse_unusable_surroundings
from dpo_cli.cli.usage import unexpected_argument, usage_errors
from dpo_cli.config import Settings, load_settings, setting_of
from dpo_cli.config.sources import flag_name
from dpo_cli.errors import RunFinishedAlready

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo

S = TypeVar("S", bound=Settings)

_METAVARS: dict[Any, str] = {str: "TEXT", int: "N", float: "X", dict: "KEY=VALUE", Any: "TEXT"}


PANELS = (
    "Identity",
    "Models",
    "Model",
    "Data",
    "Measurement",
    "Questions",
    "Output",
    "Optimizer",
    "LoRA",
    "Loss",
)
"""The groups of `--help`, in the order in which a person thinks: what, on what, where to, how long. Others follow."""


class SettingsCommand(TyperCommand):
    """A command whose flags are settings: `--help` shows what most runs need, `--help-all` everything."""

    settings: type[Settings]

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:  # noqa: ANN401 - Typer's context, by Typer's signature
        """Read what was typed after the command.

        Raises:
            ConfigError: A flag or an argument that this command does not have.
        """
        with usage_errors(f"dpo {self.name}"):
            context = super().make_context(info_name, args, parent, allow_extra_args=True, **extra)
        if context.args and not context.resilient_parsing:
            raise unexpected_argument(
                context.args[0], self.name, takes_data="dataset" in self.settings.model_fields
            )
        return context

    def get_help(self, ctx: Any) -> str:  # noqa: ANN401 - as above
        """The first page."""
        return self.page(ctx, everything=False)

    def page(self, ctx: Any, *, everything: bool) -> str:  # noqa: ANN401 - as above
        """The help of this command, in whole or what most runs need."""
        options = self.get_params(ctx)
        fields = self.settings.model_fields
        shown = [
            one
            for one in options
            if everything or one.name not in fields or setting_of(fields[one.name])["basic"]
        ]
        usage = " ".join([ctx.command_path, *self.collect_usage_pieces(ctx)])
        left_out = len(options) - len(shown)
        end = f"{left_out} more settings: {ctx.command_path} --help-all" if left_out else ""
        return command_page(usage, self.help or "", shown, end)


def command_from(cls: type[S], run: Callable[[S, bool], None], name: str, text: str) -> SettingsCommand:
    """Make a command whose flags are the fields of `cls`.

    Args:
        cls: The settings of the command.
        run: Called with the validated settings and whether `--json` was given.
        name: What is typed after `dpo`.
        text: What `--help` says before the flags; indented paragraphs are examples.
    """

    def callback(**flags: Any) -> None:  # noqa: ANN401 - whatever was typed
        refuse_unusable_surroundings()
        as_json = bool(flags.pop("as_json"))
        flags.pop("help_all")
        file = flags.pop("config")
        try:
            run(load_settings(cls, flags, file), as_json)
        except RunFinishedAlready as done:
            if as_json:
                typer.echo(json.dumps({"finished": True, "message": done.message}))
            raise

    parameters = [_parameter(key, field) for key, field in _ordered(cls)]
    parameters += [
        _keyword(
            "config",
            str | None,
            typer.Option(
                "--config", "-c", help="TOML or YAML file of settings; flags override it.", metavar="FILE"
            ),
        ),
        _keyword(
            "as_json",
            bool,
            typer.Option("--json", help="Print one JSON document and nothing else on stdout."),
            default=False,
        ),
        _keyword(
            "help_all",
            bool,
            typer.Option(
                "--help-all", help="Show every setting and exit.", is_eager=True, callback=_show_all
            ),
            default=False,
        ),
    ]
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # functions take it, typeshed does not say so
    callback.__annotations__ = {p.name: p.annotation for p in parameters}
    holder = typer.Typer(add_completion=False)
    holder.command(name, cls=SettingsCommand, help=text)(callback)
    command = cast("SettingsCommand", typer.main.get_command(holder))
    command.settings = cls
    return command


def _show_all(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        typer.echo(cast("SettingsCommand", ctx.command).page(ctx, everything=True))
        raise typer.Exit


def _ordered(cls: type[Settings]) -> list[tuple[str, FieldInfo]]:
    """Fields in the order of `PANELS`; help is read from the top."""
    rank = {panel: place for place, panel in enumerate(PANELS)}
    return sorted(
        cls.model_fields.items(), key=lambda item: rank.get(setting_of(item[1])["panel"], len(rank))
    )


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    extra = setting_of(field)
    kind = _kind(field.annotation)
    if extra["flag"] == "argument":
        argument = typer.Argument(
            help=field.description,
            rich_help_panel=extra["panel"],
            metavar=name.upper(),
            show_default=False,
        )
        return _keyword(name, str | None, argument)
    long = flag_name(name)
    declarations = [f"{long}/--no-{long[2:]}" if kind is bool else long]
    if extra["flag"]:
        declarations.append(extra["flag"])
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    option = typer.Option(
        *declarations,
        help=_help(field, choices),
        rich_help_panel=extra["panel"],
        metavar=None if kind is bool else "NAME" if choices else _METAVARS[kind],
        show_default=False,
        autocompletion=(lambda: list(choices)) if choices else None,
    )
    if kind is bool:
        return _keyword(name, bool | None, option)
    return _keyword(name, list[str] | None if _repeats(field.annotation) else str | None, option)


def _keyword(name: str, annotation: Any, option: Any, default: Any = None) -> inspect.Parameter:  # noqa: ANN401 - types as values
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option]
    )


def _kind(annotation: Any) -> Any:  # noqa: ANN401 - types as values
    """The type of one typed value: without None, Annotated, tuple and dict."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return _kind(next(a for a in get_args(annotation) if a is not types.NoneType))
    if get_origin(annotation) is tuple:
        return _kind(get_args(annotation)[0])
    return get_origin(annotation) if get_origin(annotation) is dict else annotation


def _repeats(annotation: Any) -> bool:  # noqa: ANN401 - types as values
    if get_origin(annotation) is Annotated:
        return _repeats(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_repeats(a) for a in get_args(annotation))
    return get_origin(annotation) in (tuple, dict)


def _help(field: FieldInfo, choices: tuple[str, ...]) -> str:
    """The description, the choices and the default, in one sentence each."""
    text = field.description or ""
    if choices:
        text += f" One of {', '.join(choices)}."
    default = field.default
    if field.is_required() or default is None or default in ((), {}, "", False):
        return text
    shown = (
        "on"
        if default is True
        else ", ".join(map(str, default))
        if isinstance(default, tuple)
        else str(default)
    )
    return f"{text} (default: {shown})"
