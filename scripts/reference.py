"""Write docs/reference.md: every command and setting, from the table of commands and the fields of the settings.

python scripts/reference.py           # write the page
python scripts/reference.py --check   # exit with 1 if the page is stale
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dpo_cli.config as config_module
from dpo_cli.cli.app import COMMANDS, START
from dpo_cli.config import Settings, setting_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PAGE = Path(__file__).parents[1] / "docs/reference.md"

HEAD = """# Commands and settings

<!-- Written by scripts/reference.py from the fields of the settings: change them there. -->

Each setting is a flag (`--learning-rate`), a TOML key (`learning_rate`) and a Python keyword
(`DPOTrainingConfig(learning_rate=...)`). Flags override the file given with `--config`, which overrides `--recipe`, which
overrides the preset that comes with a model, which overrides the defaults. Unknown keys are errors. A setting that can be given several times is a list in
TOML. A file that ends in `.yaml` or `.yml` is read as YAML.

Settings end up in files that are shared, so a token, a key or an address with a password is refused. Set the environment
variable that the library reads instead: `HF_TOKEN`, `WANDB_API_KEY`, ...

Results go to stdout, everything else to stderr; `--json` puts one JSON document on stdout and nothing else.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the run failed |
| 2 | invalid input; nothing was written |
| 3 | the run finished, and its verdict is FAIL |
"""


def page() -> str:
    """The whole page, in Markdown."""
    classes = settings_classes()
    parts = [HEAD, "## Start\n\n```text\n" + START + "\n```\n"]
    parts += [command(name, row.help, classes[name]) for name, row in COMMANDS.items()]
    return "\n".join(parts)


def settings_classes() -> dict[str, type[Settings]]:
    """Command to the class of its settings."""
    found = [
        value
        for value in vars(config_module).values()
        if isinstance(value, type) and issubclass(value, Settings)
    ]
    return {cls.command: cls for cls in found if cls.command}


def command(name: str, summary: str, cls: type[Settings]) -> str:
    """The section of one command."""
    text = import_module(f"dpo_cli.cli.{name.replace('-', '_')}").HELP
    lines = [f"## dpo {name}\n", summary + "\n", *examples(text)]
    schema = cls.model_json_schema()["properties"]
    panels: dict[str, list[str]] = {}
    for key, field in cls.model_fields.items():
        panels.setdefault(setting_of(field)["panel"], []).append(row(key, field, schema[key]))
    for panel, rows in panels.items():
        lines += [
            f"### {panel} (`dpo {name}`)\n",
            "| setting | default | values | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    return "\n".join(lines)


def examples(text: str) -> list[str]:
    """The help text of a command: its first line is the summary, indented lines are commands."""
    paragraphs = text.strip().split("\n\n")[1:]
    return [
        "```text\n" + "\n".join(line.strip() for line in paragraph.splitlines()) + "\n```\n"
        if paragraph.startswith("    ")
        else paragraph + "\n"
        for paragraph in paragraphs
    ]


def row(key: str, field: FieldInfo, schema: dict[str, Any]) -> str:
    """The line of one setting."""
    short = setting_of(field)["flag"]
    name = f"`{key.upper()}`" if short == "argument" else f"`--{key.replace('_', '-')}`"
    if short and short != "argument":
        name += f", `{short}`"
    return f"| {name} | {default(field)} | {values(schema)} | {escaped(field.description or '')} |"


def default(field: FieldInfo) -> str:
    """The default as it would be typed; "required" where there is none."""
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`"


def values(schema: dict[str, Any]) -> str:
    """What a setting may be, from its JSON schema."""
    if "anyOf" in schema:
        return values(next(one for one in schema["anyOf"] if one.get("type") != "null"))
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return "several: " + values(schema["items"])
    names = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "on, off",
        "object": "key=value",
    }
    limits = {"exclusiveMinimum": "above", "minimum": "from", "maximum": "to", "exclusiveMaximum": "below"}
    bounds = [f"{word} {schema[key]:g}" for key, word in limits.items() if key in schema]
    return " ".join([names.get(schema.get("type", ""), "any"), *bounds])


def escaped(text: str) -> str:
    """Text that cannot end a table cell or start a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    """Write the page, or check it."""
    text = page()
    if "--check" in sys.argv[1:]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{PAGE} is stale: run python scripts/reference.py", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
