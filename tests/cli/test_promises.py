"""What users and their scripts rely on since version 0.1 is still there: additions are fine, a removal or a change fails.

`promises.json` was collected with the functions below from the version before the rooms were moved (commit b4666d4).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic_core import PydanticUndefined

from dpo_cli import config as config_module
from dpo_cli import errors
from dpo_cli.cli.app import COMMANDS, app, main

PROMISED = json.loads((Path(__file__).parent / "promises.json").read_text(encoding="utf-8"))

RECORDS = ("scores", "engines")
"""Objects of a document whose values all have the same keys."""
DATA = ("preset", "calls_itself", "left_alone", "dropped", "seconds")
"""Objects of a document whose keys are data, not names of ours."""

PAIRS = Path(config_module.__file__).parents[1] / "data/preferences/train.jsonl"
RUNS = {
    "identity-shift": "--original-name Qwen --new-name Orion --max-samples 8 --max-steps 1 --save-steps 1 -o renamed",
    "train": "-d pairs.jsonl --eval-fraction 0.3 --max-steps 1 --eval-steps 1 --save-rewards rewards.jsonl -o tuned",
    "test": "-m embedded -q Hello?",
    "compare": "--before embedded --after tuned -q Hello?",
    "check": "pairs.jsonl",
}


def flags() -> dict[str, dict[str, str]]:
    """Command to its flags, each with how it is typed."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, **group.context_settings)
    commands = {"dpo": group} | {name: group.get_command(context, name) for name in COMMANDS}
    found: dict[str, dict[str, str]] = {}
    for name, command in commands.items():
        of_command = found.setdefault(name, {})
        for parameter in command.get_params(context):
            if parameter.param_type_name == "argument":
                of_command[parameter.name.upper()] = "argument"
                continue
            kind = "switch" if parameter.is_flag else "repeatable" if parameter.multiple else "value"
            of_command |= dict.fromkeys([*parameter.opts, *parameter.secondary_opts], kind)
    return found


def settings() -> dict[str, dict[str, Any]]:
    """Command to the keys of its TOML file, each with its default and the words it takes."""
    classes = [value for value in vars(config_module).values() if isinstance(value, type)]
    found: dict[str, dict[str, Any]] = {}
    for cls in classes:
        if not getattr(cls, "command", ""):
            continue
        schema = cls.model_json_schema()["properties"]
        found[cls.command] = {
            key: {
                "default": default(field),
                **({"choices": words} if (words := choices(schema[key])) else {}),
            }
            for key, field in cls.model_fields.items()
        }
    return found


def default(field: Any) -> Any:
    if field.default is PydanticUndefined:
        return "required"
    return list(field.default) if isinstance(field.default, tuple) else field.default


def choices(schema: dict[str, Any]) -> list[str]:
    if "anyOf" in schema:
        return [word for part in schema["anyOf"] for word in choices(part)]
    return schema.get("enum") or choices(schema.get("items", {})) if schema else []


def exit_codes() -> dict[str, int]:
    """Class of an error to the exit code."""
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    return {cls.__name__: cls.exit_code for cls in classes if issubclass(cls, errors.DpoError)}


def keys(document: Any, at: str = "") -> set[str]:
    """Paths of the keys of a JSON document; [] stands for any item, * for any record."""
    if isinstance(document, list):
        return {path for item in document for path in keys(item, at + "[]")}
    if not isinstance(document, dict) or at.rpartition(".")[2] in DATA:
        return set()
    paths = set()
    for key, value in document.items():
        here = f"{at}.{key}".lstrip(".")
        record = at.rpartition(".")[2] in RECORDS
        paths |= {here} | keys(value, f"{at}.*" if record else here)
    return paths


def missing(promised: Any, found: Any, at: str) -> list[str]:
    """What was promised and is gone or different, each in a line."""
    if isinstance(promised, dict):
        gone = [f"{at}: {key} is gone" for key in promised if key not in found]
        return gone + [
            line
            for key in promised
            if key in found
            for line in missing(promised[key], found[key], f"{at}: {key}")
        ]
    if isinstance(promised, list) and isinstance(found, (list, set)):
        return [f"{at}: {one!r} is gone" for one in promised if one not in found]
    return [] if promised == found else [f"{at}: was {promised!r}, is {found!r}"]


def run(capsys, *arguments: str) -> tuple[int, str]:
    sys.argv = ["dpo", *arguments]
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code, capsys.readouterr().out


@pytest.mark.parametrize(
    ("subject", "collect"), [("flags", flags), ("settings", settings), ("exit codes", exit_codes)]
)
def test_what_was_promised_is_still_there(subject, collect):
    assert missing(PROMISED[subject], collect(), subject) == []


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dpo"])
    monkeypatch.chdir(tmp_path)
    lines = PAIRS.read_text(encoding="utf-8").splitlines()[:12]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def outcome(capsys, folder: Path) -> dict[str, Any]:
    """Exit codes, JSON keys and files of one run of each command."""
    found: dict[str, Any] = {"exits": {}, "documents": {}}
    for name, line in RUNS.items():
        code, printed = run(capsys, name, *line.split(), "--json")
        found["exits"][name] = code
        found["documents"][name] = sorted(keys(json.loads(printed)))
    for file in (folder / "tuned/comparison.json", folder / "tuned/data.json"):
        found["documents"][file.name] = sorted(keys(json.loads(file.read_text(encoding="utf-8"))))
    for file in (folder / "tuned/metrics.jsonl", folder / "rewards.jsonl", folder / "renamed/pairs.jsonl"):
        rows = [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()]
        found["documents"][file.name] = sorted(keys(rows))
    for name in ("renamed", "tuned"):
        found[name] = sorted(
            str(p.relative_to(folder / name)) for p in (folder / name).rglob("*") if p.is_file()
        )
    return found


def test_a_run_of_each_command_ends_prints_and_writes_as_promised(workplace, capsys):
    assert missing(PROMISED["runs"], outcome(capsys, workplace), "runs") == []


@pytest.mark.parametrize("subject", ["flags", "settings", "exit codes", "runs"])
def test_what_disappeared_or_changed_is_named(subject):
    lost = json.loads(json.dumps(PROMISED[subject]))
    inner = lost if subject == "exit codes" else lost[next(iter(lost))]
    key = next(iter(inner))
    value = inner.pop(key)
    assert missing(PROMISED[subject], lost, subject)[0].endswith(f"{key} is gone")
    inner[key] = "something else"
    assert str(value) in missing(PROMISED[subject], lost, subject)[0] or isinstance(value, dict)


def test_what_is_added_is_no_breach():
    assert missing({"a": ["x"]}, {"a": ["x", "y"], "b": 1}, "promises") == []
