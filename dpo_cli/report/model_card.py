"""`README.md` of an output folder: a model card with the run's own figures."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from dpo_cli.report.console import visible, visible_line
from dpo_cli.report.figures import check_figure, score_figure, threshold_figure
from dpo_cli.run_folder import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.evaluation.scores import Answer
    from dpo_cli.report.record import RunRecord

EXAMPLES = 5
"""Questions shown with both answers."""


_MEASURED = (
    "What changed and what did not was measured during the run; `report.html` has everything, "
    "`comparison.json` the same for programs."
)


def write_model_card(folder: Path, record: RunRecord) -> None:
    """Write `README.md` into the output folder, in place of any that a library left there.

    Raises:
        OSError: The file cannot be written.
    """
    write_file(folder / "README.md", model_card(record))


def model_card(record: RunRecord) -> str:
    """The model card as Markdown; strings from outside stand in code spans and fences, where they are text."""
    kind = "LoRA adapter for" if record.adapter else "fine-tuned copy of"
    about = f"A {kind} {code(record.base)}, made with dpo-cli by Direct Preference Optimization. {_MEASURED}"
    parts = [_front_matter(record), f"# {_inline(record.title)}", about]
    if record.stopped_early:
        parts.append(f"**The run was stopped early:** {_inline(record.stopped_early)}")
    if record.comparison:
        parts += _figures(record.comparison)
    parts += ["## Use", fenced('dpo test --model . --question "What is your name?"', "sh")]
    if record.pairs:
        parts += [
            "## Data",
            "\n".join(f"- {_inline(name)}: {_inline(value)}" for name, value in record.pairs.items()),
        ]
    if record.warnings:
        parts += [
            "## Warnings",
            "\n".join(f"- step {one.step}: {_inline(one.message)}" for one in record.warnings),
        ]
    if record.settings:
        parts += ["## Settings", f"`{record.command}` repeats the run.", fenced(record.settings, "toml")]
    parts += [
        "## Run",
        "\n".join(f"- {_inline(name)}: {_inline(value)}" for name, value in record.facts.items()),
    ]
    return "\n\n".join(parts) + "\n"


def code(text: str) -> str:
    """A text as a Markdown code span, on one line, whatever back quotes it has."""
    shown = visible_line(text)
    quotes = "`" * (_longest_run(shown) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{quotes}{pad}{shown}{pad}{quotes}"


def fenced(text: str, language: str = "text") -> str:
    """A text as a Markdown code block that it cannot end by itself."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _inline(text: str) -> str:
    """A text as words in a line of Markdown: nothing in it is markup, a link or HTML.

    Addresses stand in a code span: a backslash does not keep GitHub from linking every `www.` and every `@`.
    """
    if re.search(r"www\.|@|://", text, re.IGNORECASE):
        return code(text)
    return re.sub(r"([\\`*_\[\]<>|~&]|^[#+-])", r"\\\1", visible_line(text))


def _front_matter(record: RunRecord) -> str:
    """The card's metadata; a JSON string is a YAML string too."""
    lines = [
        "---",
        f"library_name: {'peft' if record.adapter else 'transformers'}",
        "pipeline_tag: text-generation",
    ]
    # Only a hub id is one that the hub can link; a folder of this machine would be refused.
    if re.fullmatch(r"[\w.-]+/[\w.-]+", record.base) and not record.base.startswith("."):
        lines.append(f"base_model: {json.dumps(record.base)}")
    return "\n".join([*lines, "tags:", "- dpo", "- dpo-cli", "---"])


def _figures(comparison: Comparison) -> list[str]:
    parts: list[str] = []
    if comparison.verdict:
        parts += [f"## Verdict: {'PASS' if comparison.verdict.passed else 'FAIL'}"]
        parts += [
            "\n".join(
                f"- {'PASS' if one.passed else 'FAIL'}: {one.check.label}, {check_figure(one)} ({threshold_figure(one)})"
                for one in comparison.verdict.checks
            )
        ]
    rows = [
        f"| {row.label} | {score_figure(row.before)} | {score_figure(row.after)} | {score_figure(row.difference, signed=True)} | {row.after.n} |"
        for row in comparison.scores
    ]
    head = ["| Score | Before | After | Change | n |", "| --- | ---: | ---: | ---: | ---: |"]
    parts += ["## Figures", "With 95 % intervals over questions.", "\n".join([*head, *rows])]
    changed = [pair for pair in comparison.answers if pair[0].answer != pair[1].answer]
    if changed:
        parts += ["## Answers before and after", *(_example(old, new) for old, new in changed[:EXAMPLES])]
    return parts


def _example(old: Answer, new: Answer) -> str:
    return fenced(f"asked:  {old.question.text}\nbefore: {old.answer}\nafter:  {new.answer}")
