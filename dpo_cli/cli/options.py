"""Typer flags made from the fields of the settings; no default, type or help text of its own.

A flag arrives as the string that was typed and is validated with everything else by
`config.load_settings`, so that all mistakes are reported at once.
"""

from __future__ import annotations

import inspect
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer

from dpo_cli.config import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo

S = TypeVar("S", bound=Settings)

_METAVARS: dict[Any, str] = {str: "TEXT", int: "INTEGER", float: "NUMBER", dict: "KEY=VALUE", Any: "TEXT"}


def command_from(
    cls: type[S], run: Callable[[S, bool], None], *, epilog_config: bool = True
) -> Callable[..., None]:
    """Make a Typer callback whose flags are the fields of `cls`.

    Args:
        cls: The settings of the command.
        run: Called with the validated settings and whether `--json` was given.
        epilog_config: Whether the command reads `--config`.

    Returns:
        A function for `typer.Typer.command`, with the docstring of `run`.
    """

    def callback(**flags: Any) -> None:  # noqa: ANN401 - whatever was typed
        as_json = bool(flags.pop("as_json"))
        file = flags.pop("config", None)
        run(load_settings(cls, flags, file), as_json)

    parameters = [_parameter(name, field) for name, field in _ordered(cls)]
    if epilog_config:
        parameters.append(
            _keyword(
                "config",
                str | None,
                typer.Option(
                    "--config", "-c", help="TOML or YAML file of settings; flags win.", metavar="FILE"
                ),
            )
        )
    parameters.append(
        _keyword(
            "as_json",
            bool,
            typer.Option("--json", help="One JSON document on stdout, nothing else there."),
            default=False,
        )
    )
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # functions take it, typeshed does not say so
    callback.__annotations__ = {p.name: p.annotation for p in parameters}
    callback.__doc__ = run.__doc__
    return callback


def _ordered(cls: type[Settings]) -> list[tuple[str, FieldInfo]]:
    """Fields grouped by panel, a command's own panels first: help is read from the top."""
    panels = {_extra(field)["panel"] for field in cls.model_fields.values()}
    first = ["Models", "Model", "Identity", "Data", "Measurement", "Questions", "Verdict"]
    order = [p for p in first if p in panels] + sorted(panels - set(first))
    return sorted(cls.model_fields.items(), key=lambda item: order.index(_extra(item[1])["panel"]))


def _extra(field: FieldInfo) -> dict[str, str]:
    extra = field.json_schema_extra
    if not isinstance(extra, dict):
        msg = "a setting is declared with settings.setting()"
        raise TypeError(msg)
    return typing.cast("dict[str, str]", extra)


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    extra = _extra(field)
    kind = _kind(field.annotation)
    if extra["flag"] == "argument":
        argument = typer.Argument(help=field.description, metavar=name.upper(), show_default=False)
        return _keyword(name, str | None, argument)
    long = "--" + name.replace("_", "-")
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
