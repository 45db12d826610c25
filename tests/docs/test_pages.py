"""Every command and every Python block of README and docs runs, in order, page by page, in a folder of its own.

A comment before a block says what a test must know and a reader need not:

    <!-- docs-test: skip REASON -->            the block is not run
    <!-- docs-test: instead COMMAND -->        this is run in its place (smaller settings, which the page states)
    <!-- docs-test: first COMMAND -->          this is run before
    <!-- docs-test: exit 0 3 -->               exit codes that are fine (0 alone otherwise)
    <!-- docs-test: file NAME from PATH -->    a file of the repository is put there under that name
    <!-- docs-test: replace A -> B -->         from here on to the end of the page
    <!-- docs-test: table -->                  the next table of the page has the rows of one that a block before
                                               it printed; figures as "value ± spread" must hold the printed ones

A `text` block right after a Python block is what it prints. JSON blocks must be JSON.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if page.is_file()]
SHELL = {"bash", "sh", "console"}
SECONDS = 900
_PART = re.compile(
    r"^<!-- docs-test: (?P<note>.*?) -->$|^(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)$"
    r"|(?P<table>(?:^\|[^\n]*\n)+)",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Notes:
    """What the comments before a block say."""

    skip: str = ""
    instead: str = ""
    first: list[str] = field(default_factory=list)
    exits: set[int] = field(default_factory=lambda: {0})
    table: bool = False


class Page:
    """A page while it is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replaced: list[tuple[str, str]] = []
        self.notes = Notes()
        self.printed: list[str] = [""]
        self.after_python = False
        tools = folder / "bin"
        tools.mkdir()
        for name, command in (("dpo", f"{sys.executable} -m dpo_cli"), ("python", sys.executable)):
            (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
            (tools / name).chmod(0o755)
        for name in ("docs", "scripts", "dpo_cli"):
            (folder / name).symlink_to(ROOT / name)
        self.environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "120",
        }

    def take(self, part: re.Match[str]) -> None:
        """A comment, a block or a table, in the order of the page."""
        if part["note"] is not None:
            self.note(part["note"])
        elif part["table"] is not None:
            if self.notes.table:
                self.notes = Notes()
                compare_tables(part["table"], self.printed)
        else:
            self.block(part["language"], part["body"])

    def note(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "skip":
            self.notes.skip = rest
        elif word == "instead":
            self.notes.instead = rest
        elif word == "first":
            self.notes.first.append(rest)
        elif word == "exit":
            self.notes.exits = set(map(int, rest.split()))
        elif word == "table":
            self.notes.table = True
        elif word == "replace":
            self.replaced.append(tuple(rest.split(" -> ")))
        elif word == "file":
            name, path = rest.split(" from ")
            shutil.copy(ROOT / path, self.folder / name)
        else:
            raise AssertionError(f"docs-test: {text}: there is no such note")

    def block(self, language: str, body: str) -> None:
        notes, self.notes = self.notes, Notes()
        after_python, self.after_python = self.after_python, False
        if notes.skip:
            return
        if language == "text" and after_python:
            assert self.printed[-1].strip() == body.strip()
        elif language == "json":
            check_json(body)
        elif language in SHELL or language == "python":
            for command in notes.first:
                self.run(["bash", "-c", command], {0})
            body = notes.instead or body
            for old, new in self.replaced:
                body = body.replace(old, new)
            self.after_python = language == "python" and not notes.instead
            if self.after_python:
                self.run([sys.executable, "-c", body], notes.exits)
                return
            for command in commands(body):
                self.run(["bash", "-ec", command], notes.exits)

    def run(self, command: list[str], exits: set[int]) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = f"{command[-1]}\n--- stdout\n{done.stdout[-4000:]}\n--- stderr\n{done.stderr[-4000:]}"
        assert done.returncode in exits, f"exit code {done.returncode}: {said}"
        self.printed.append(done.stdout)


def check_json(body: str) -> None:
    """One JSON document, or one on each line."""
    try:
        json.loads(body)
    except ValueError:
        for line in body.splitlines():
            json.loads(line)


def commands(body: str) -> list[str]:
    """The commands of a shell block, without the prompts and the output of a `console` block.

    Each is run by itself, so that one whose verdict is FAIL (exit code 3) does not end the block.
    """
    lines = body.splitlines()
    typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
    joined = re.sub(r"\\\n\s*", "", "\n".join(typed))
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def rows_of(text: str) -> dict[str, list[str]]:
    """The rows of a Markdown table, by their first cell."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return {row[0]: row[1:] for row in rows if not set("".join(row)) <= set("-: ")}


def compare_tables(page: str, printed: list[str]) -> None:
    """Each figure of the page must hold the printed one within the spread beside it."""
    expected = rows_of(page)
    found = next(
        (table for text in reversed(printed) if (table := rows_of(text)).keys() == expected.keys()), None
    )
    assert found is not None, f"no block printed a table with the rows {list(expected)}"
    checked = 0
    for name, cells in expected.items():
        for cell, value in zip(cells, found[name], strict=True):
            if "±" in cell:
                middle, spread = (float(part) for part in cell.split("±"))
                assert abs(float(value) - middle) <= spread, (
                    f"{name}: printed {value}, and the page says {cell}"
                )
                checked += 1
    assert checked, "the table of the page has no figure with a spread"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_page_runs(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    run = Page(tmp_path)
    for part in _PART.finditer(text):
        run.take(part)


@pytest.fixture
def run_page(tmp_path):
    def run(text):
        page = Page(tmp_path)
        for part in _PART.finditer(text):
            page.take(part)

    return run


def test_a_wrong_output_is_found(run_page):
    run_page("```python\nprint(1 + 1)\n```\n\n```text\n2\n```\n")


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n",
        "```python\nraise SystemExit(1)\n```\n",
        "```bash\nfalse\ntrue\n```\n",
        "```bash\ntest a = \\\n  b\n```\n",
        "```json\n{'a': 1}\n```\n",
        "<!-- docs-test: skipp it -->\n",
    ],
)
def test_what_is_wrong_on_a_page_fails(run_page, text):
    with pytest.raises((AssertionError, ValueError)):
        run_page(text)


TABLE = "```bash\nprintf '| x | y |\\n|---|---|\\n| a | 0.83 |\\n'\n```\n\n<!-- docs-test: table -->\n| x | y |\n|---|---|\n| a | %s |\n"


def test_a_figure_inside_of_its_spread(run_page):
    run_page(TABLE % "0.80 ± 0.05")


@pytest.mark.parametrize("cell", ["0.80 ± 0.02", "0.83"])
def test_a_figure_outside_of_its_spread_or_without_one(run_page, cell):
    with pytest.raises(AssertionError):
        run_page(TABLE % cell)


def test_notes_are_obeyed(run_page):
    run_page(
        "<!-- docs-test: skip no -->\n```bash\nfalse\n```\n<!-- docs-test: exit 3 -->\n```bash\nexit 3\n```\n"
        "<!-- docs-test: replace false -> true -->\n```bash\nfalse\n```\n<!-- docs-test: instead true -->\n```bash\nexit 9\n```\n"
        "<!-- docs-test: file a.toml from pyproject.toml -->\n<!-- docs-test: first touch b -->\n```bash\ntest -f a.toml && test -f b\n```\n"
    )
