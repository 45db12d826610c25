"""Where settings come from: defaults < preset of the model < file < flags. Merged raw, validated once.

Every mistake is reported, each with its source: `run.toml: learning_rte: unknown key, did you mean
learning_rate?`, `--beta: must be greater than 0, not -1`.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, TypeVar, get_origin

from pydantic import TypeAdapter, ValidationError

from dpo_cli.characters import escaped_toml
from dpo_cli.config.files import parse_toml, read_settings_file
from dpo_cli.config.settings import Settings
from dpo_cli.errors import ConfigError, listed
from dpo_cli.redaction import find_secret, redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

S = TypeVar("S", bound=Settings)


def flag_name(field: str) -> str:
    """The flag of a setting: `learning_rate` -> `--learning-rate`."""
    return "--" + field.replace("_", "-")


def load_settings(
    cls: type[S], flags: Mapping[str, Any], file: str | None = None, *, recorded: bool = False
) -> S:
    """Build the settings of a command from flags and a file.

    Args:
        cls: The settings of the command.
        flags: Field name to what stood on the command line (strings, booleans, lists of strings);
            None and empty lists mean "not given".
        file: Path of a TOML or YAML file whose top-level keys are field names.
        recorded: Whether they are those of a run that has been, of which nothing is asked any more.

    Raises:
        ConfigError: One line for each mistake, with its source.
    """
    problems: dict[str, str] = {}
    merged: dict[str, Any] = {}
    source: dict[str, str] = {}
    of_file: set[str] = set()
    if file is not None:
        table = read_settings_file(file)
        table = _unknown_keys_out(cls, table, file, problems)
        merged |= table
        source |= {key: f"{file}: {key}" for key in table}
        of_file = set(table)
    for key, raw in flags.items():
        if raw is None or raw in ([], ()):
            continue
        source[key] = flag_name(key)
        of_file.discard(key)
        try:
            merged[key] = _from_command_line(cls, key, raw)
        except (ValidationError, ValueError) as error:
            problems[key] = f"{flag_name(key)}: {_first_message(error)}"
            merged.pop(key, None)
    return _validate(cls, merged, source, problems, {"recorded": recorded, "file": of_file})


def settings_from(cls: type[S], keywords: Mapping[str, Any], origin: str = "") -> S:
    """Build settings from keywords of Python.

    Args:
        cls: The settings.
        keywords: Field name to value.
        origin: Where they come from, if that is a file.

    Raises:
        ConfigError: One line for each mistake, with its keyword.
    """
    where = f"{origin}: " if origin else ""
    return _validate(cls, dict(keywords), {key: f"{where}{key}" for key in keywords}, {})


def apply_preset(config: S, preset: Mapping[str, Any], origin: str) -> tuple[S, dict[str, Any]]:
    """Fill what the user did not give from the preset recorded with a model.

    Args:
        config: Settings as given by the user.
        preset: Field name to value.
        origin: The preset's file, named in errors.

    Returns:
        The settings, and those of the preset's values that took effect.

    Raises:
        ConfigError: If the preset itself holds an unknown key or a bad value.
    """
    used = {key: value for key, value in preset.items() if key not in config.model_fields_set}
    if not used:
        return config, {}
    given = {key: getattr(config, key) for key in config.model_fields_set}
    source = {key: f"{origin}: {key}" for key in used} | {key: key for key in given}
    # What was given is known to go together; where each came from is not known any more.
    context = {"preset": used.keys(), "file": given.keys()}
    return _validate(type(config), {**used, **given}, source, {}, context), used


def to_toml(config: Settings, comment: str) -> str:
    """Write settings as the TOML text that `--config` reads back; None is left out, TOML has no word for it.

    Settings that were checked hold no secret; one that came by another way is hidden.
    """
    import tomlkit

    document = tomlkit.document()
    for line in comment.splitlines():
        document.add(tomlkit.comment(line))
    values = config.model_dump(mode="python", exclude_none=True)
    for once in ("overwrite", "resume", "resume_anyway"):  # said anew each time
        values.pop(once, None)
    for key, value in sorted(values.items(), key=lambda item: isinstance(item[1], dict)):
        if value != {}:
            document.add(key, list(value) if isinstance(value, tuple) else value)
    return escaped_toml(redact(tomlkit.dumps(document)))


def _from_command_line(cls: type[Settings], key: str, raw: Any) -> Any:  # noqa: ANN401 - a flag's value has any type
    annotation: Any = cls.model_fields[key].annotation
    if get_origin(annotation) is dict:
        return dict(_key_value(item) for item in raw)
    value = TypeAdapter(annotation).validate_python(raw, strict=False)
    return tuple(value) if isinstance(value, list) else value


_OF_PYTHON = {"True": True, "False": False}
"""Words that TOML does not know, and that nobody means as text: text is true, whatever it says."""


def _key_value(item: str) -> tuple[str, Any]:
    key, equals, text = item.partition("=")
    if not equals:
        shown = re.match(r"[\w.-]*", item)  # what follows a name may be a secret
        msg = f"'{shown[0] if shown else ''}' is not key=value"
        raise ValueError(msg)
    if text in _OF_PYTHON:
        return key.strip(), _OF_PYTHON[text]
    try:
        return key.strip(), parse_toml(f"v = {text}")["v"]
    except ValueError:
        return key.strip(), text


def _unknown_keys_out(
    cls: type[Settings], table: dict[str, Any], file: str, problems: dict[str, str]
) -> dict[str, Any]:
    known = {}
    for key, value in table.items():
        if key in cls.model_fields:
            known[key] = value
            continue
        near = difflib.get_close_matches(key, cls.model_fields, n=1)
        advice = f", did you mean {near[0]}?" if near else f": not a setting of dpo {cls.command}"
        problems[key] = f"{file}: {listed([key])}: unknown key{advice}"
    return known


def _validate(
    cls: type[S],
    merged: dict[str, Any],
    source: Mapping[str, str],
    problems: dict[str, str],
    context: dict[str, Any] | None = None,
) -> S:
    for key in list(merged):
        if secret := find_secret(merged[key], key):
            problems[key] = f"{source.get(key, key)}: {secret.sentence()}"
            del merged[key]
    try:
        config = cls.model_validate(merged, context=context)
    except ValidationError as error:
        for detail in error.errors():
            for key, message in _keys_and_messages(detail):
                where = source.get(key, flag_name(key) if key in cls.model_fields else key)
                problems.setdefault(key, f"{where}: {message}")
    if problems:
        raise ConfigError(
            "\n".join(problems.values()), hint=f"See `dpo {cls.command} --help`." if cls.command else ""
        )
    return config


def _keys_and_messages(detail: ErrorDetails) -> list[tuple[str, str]]:
    if detail["loc"]:
        return [(str(detail["loc"][0]), _message(detail))]
    # A check over several fields names its field in each line, see settings.py and effects.py.
    lines = _message(detail).splitlines()
    return [(key, message) for key, _, message in (line.partition(": ") for line in lines)]


def _first_message(error: ValidationError | ValueError) -> str:
    return _message(error.errors()[0]) if isinstance(error, ValidationError) else str(error)


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "is required"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "string_unicode":
        return "cannot be read as text: it is not UTF-8, or LC_ALL names a locale that is not"
    if detail["type"] == "finite_number":
        return f"must be a finite number, not {detail['input']}"
    text = detail["msg"].replace("Input should be", "must be").replace("String should", "must")
    given = repr(detail["input"])
    return f"{text}, not {given}" if len(given) <= 60 else text  # noqa: PLR2004 - a line of a terminal
