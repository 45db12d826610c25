"""Settings files: TOML and YAML, read with bounds, since a file may be a pipe, a bomb or a mistake.

Everything that a person writes for dpo to obey is read here: `--config`, presets of models, files of questions.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from dpo_cli.errors import ConfigError, first_line

SETTINGS_BYTES = 1 << 16
"""Largest file of settings: written by hand, they have some hundred lines, and PyYAML reads 15 KB in a second."""

DEEPEST = 32
"""Tables and lists inside of one another; settings need three."""

_INTEGERS = range(-(2**63), 2**63)
"""What TOML promises for integers; arithmetic on more digits takes minutes, and no setting means it."""

_LONG_KEY = re.compile(
    rf"""(?:^|[\[{{,])[ \t]*(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){{{DEEPEST}}}""", re.MULTILINE
)
"""A key such as `a.b.c`, too long: tomllib takes memory in the square of its length."""

YAML_ENDINGS = (".yaml", ".yml")


class UnreadableError(ValueError):
    """A file that is not read.

    Attributes:
        reason: Why: "No such file or directory", "not UTF-8 text".
        line: Where, counted from 1; None where it concerns the whole file.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.reason, self.line = reason, line


def read_settings_file(name: str, flag: str = "--config") -> dict[str, Any]:
    """The table in a TOML file, or in a YAML file if its name ends so.

    Args:
        name: Its path.
        flag: What it was given to.

    Raises:
        ConfigError: With the file and what is wrong with it.
    """
    try:
        text = read_bounded(name, limit=SETTINGS_BYTES)
    except UnreadableError as problem:
        if problem.line:
            raise ConfigError(f"{name}, line {problem.line}: is {problem.reason}") from None
        missing = problem.reason == os.strerror(errno.ENOENT)
        what = "no such file" if missing else f"cannot be read ({problem})"
        raise ConfigError(f"{name}: {what}", hint=f"Give {flag} the path of a TOML or YAML file.") from None
    yaml = name.lower().endswith(YAML_ENDINGS)
    try:
        return parse_yaml(text) if yaml else parse_toml(text)
    except ValueError as problem:
        raise ConfigError(f"{name}: is not valid {'YAML' if yaml else 'TOML'}: {problem}") from None


def read_bounded(name: str | Path, *, limit: int, encoding: str = "utf-8") -> str:
    """The text of a regular file of at most `limit` bytes. Pipes and devices, which may never end, are refused.

    Raises:
        UnreadableError: With the reason.
    """
    try:
        # Without waiting for whoever should write into a pipe.
        descriptor = os.open(Path(name).expanduser(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except RuntimeError:
        raise UnreadableError("no such home folder") from None
    except (OSError, ValueError) as problem:  # ValueError: a NUL byte in the name
        raise UnreadableError(getattr(problem, "strerror", None) or first_line(problem)) from None
    try:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            raise UnreadableError("Is a directory" if stat.S_ISDIR(kind) else "not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as problem:
        raise UnreadableError(problem.strerror or first_line(problem)) from None
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise UnreadableError(f"larger than {limit >> 10:,} KiB, the limit for such a file")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as problem:
        raise UnreadableError("not UTF-8 text", content[: problem.start].count(b"\n") + 1) from None


def parse_toml(text: str) -> dict[str, Any]:
    """The table that a TOML text holds.

    Raises:
        ValueError: In words, if it is none, nests too deep, or has a number that is too long.
    """
    if _LONG_KEY.search(text):
        raise ValueError(_TOO_DEEP)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(first_line(error)) from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:
        raise ValueError(_of_python(error)) from None
    _within_bounds(table)
    return table


def parse_yaml(text: str) -> dict[str, Any]:
    """The table that a YAML text holds: plain values only, no aliases, no key twice.

    Raises:
        ValueError: In words, if it is none, nests too deep, or has a number that is too long.
    """
    import yaml

    try:
        table = yaml.load(text, Loader=_yaml_loader())  # noqa: S506 - a SafeLoader, made stricter
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ValueError(
            f"{error.problem}{where}"
        ) from None  # its own text quotes the file, secrets included
    except yaml.YAMLError as error:
        raise ValueError(first_line(error)) from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:
        raise ValueError(_of_python(error)) from None
    if table is None:
        return {}
    if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
        msg = "must contain settings, one `key: value` per line"
        raise ValueError(msg)
    _within_bounds(table)
    return table


_TOO_DEEP = f"tables or lists are nested deeper than {DEEPEST}"
_TOO_LONG = "a number does not fit in 64 bits"


def _of_python(error: ValueError) -> str:
    """What Python says of a value; it reads no integer of more than 4,300 digits."""
    return _TOO_LONG if "digits" in str(error) else first_line(error)


def _within_bounds(table: dict[str, Any]) -> None:
    """Refuse what nests too deep or is too long a number: what comes after walks values by recursion."""
    level: list[Any] = [table]
    for _ in range(DEEPEST):
        inner = [part for value in level for part in (value.values() if isinstance(value, dict) else value)]
        if any(isinstance(part, int) and part not in _INTEGERS for part in inner):
            raise ValueError(_TOO_LONG)
        level = [part for part in inner if isinstance(part, (dict, list))]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _yaml_loader() -> Any:  # noqa: ANN401 - PyYAML has no types
    """PyYAML's safe loader without its traps: `5e-5` is a number, an alias or a key given twice a mistake."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 - PyYAML's signature
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise yaml.constructor.ConstructorError(None, None, "aliases are not supported", mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: ANN401 - PyYAML's signature
            seen = set()
            for key, _ in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else None
                if name in seen:
                    raise yaml.constructor.ConstructorError(None, None, "duplicate key", key.start_mark)
                seen.add(name)
            return super().construct_mapping(node, deep=deep)

    number = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader
