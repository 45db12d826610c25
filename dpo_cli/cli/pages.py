"""Help as a person reads it: what a command does, examples, then its flags in two columns, wrapped and never cut.

Plain text, so that `--help` need not import rich.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

WIDEST = 120
"""Columns after which a line of prose is hard to read; a wider terminal stays empty there."""
NARROWEST = 30
TWO_COLUMNS = 60
"""On a narrower terminal every explanation stands below its flag."""
FLAG_COLUMN = 26
"""Columns for the flags; a longer one stands on a line of its own, above its explanation."""

OWN = "Other"
"""The heading of what every command has: `--config`, `--json`, `--help`."""


def page_width() -> int:
    """Columns of the terminal, or of COLUMNS; 80 where neither is known."""
    return max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST))


def group_page(about: str, commands: Iterable[tuple[str, str, str]], options: Iterable[Any], end: str) -> str:
    """The page of `dpo` itself.

    Args:
        about: What it is for.
        commands: Name, heading and help of each command.
        options: Typer's parameters of the group.
        end: What is said last; indented lines stay as they are.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for command, heading, text in commands:
        groups.setdefault(heading, []).append((command, text))
    groups["Options"] = [(_flag(one), one.help or "") for one in options]
    return _page("dpo COMMAND [OPTIONS]", about, groups, end)


def command_page(usage: str, about: str, options: Iterable[Any], end: str) -> str:
    """The page of one command.

    Args:
        usage: What is typed.
        about: What the command does; indented paragraphs are examples.
        options: Typer's parameters that are shown, in their order.
        end: What is said last.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for one in options:
        groups.setdefault(one.rich_help_panel or OWN, []).append((_flag(one), one.help or ""))
    return _page(usage, about, groups, end)


def _page(usage: str, about: str, groups: Mapping[str, list[tuple[str, str]]], end: str) -> str:
    width = page_width()
    widest = max(len(flag) for rows in groups.values() for flag, _ in rows)
    column = min(widest + 2, FLAG_COLUMN) if width >= TWO_COLUMNS else 6
    parts = [f"{_heading('Usage')} {usage}", *_prose(about, width)]
    parts += [_table(heading, rows, width, column) for heading, rows in groups.items()]
    return "\n\n".join([*parts, *_prose(end, width)])


def _prose(text: str, width: int) -> Iterator[str]:
    """Paragraphs, wrapped; an indented one is what somebody types, and stays whole."""
    for paragraph in filter(None, text.strip("\n").split("\n\n")):
        if paragraph.startswith(" "):
            yield "\n".join(_typed(line.strip(), width) for line in paragraph.splitlines())
        else:
            yield textwrap.fill(" ".join(paragraph.split()), width)


def _typed(command: str, width: int) -> str:
    """A command to copy, broken before a flag where it is too long for a line."""
    lines = [""]
    for part in re.split(r" (?=-)", command):
        if (
            lines[-1] and len(lines[-1]) + len(part) + 5 > width
        ):  # two blanks before, one between, a backslash after
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]} {part}".strip()
    return "  " + " \\\n      ".join(lines)


def _table(heading: str, rows: Iterable[tuple[str, str]], width: int, column: int) -> str:
    lines = [_heading(heading)]
    for flag, text in rows:
        wrapped = textwrap.wrap(text, width - column - 2, break_on_hyphens=False) or [""]
        if len(flag) + 2 > column:
            lines.append(f"  {flag}")
        else:
            lines.append(f"  {flag:{column}}{wrapped.pop(0)}")
        lines += [" " * (column + 2) + line for line in wrapped]
    return "\n".join(line.rstrip() for line in lines)


def _flag(option: Any) -> str:  # noqa: ANN401 - Typer's parameter
    """`-m, --model TEXT`; a switch that is on is shown with the word that turns it off."""
    if option.param_type_name == "argument":
        return str(option.metavar)
    names = sorted(option.opts, key=len)
    if option.is_flag:
        if option.secondary_opts and (option.help or "").endswith("(default: on)"):
            names = [f"--[no-]{names[-1][2:]}"]
        return ", ".join(names)
    return f"{', '.join(names)} {option.metavar}"


def _heading(text: str) -> str:
    return typer.style(f"{text}:", bold=True)
