"""What CONTRIBUTING promises and what runs before a commit are what the Makefile and the tools say."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def recipe(target):
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]


def test_pre_commit_runs_the_tools_of_make_check():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0][
        "hooks"
    ]
    before_commit = {hook["entry"].removeprefix(".venv/bin/") for hook in hooks}
    checked = {
        line.strip().removeprefix("$(BIN)/").removesuffix(" .") for line in recipe("check").splitlines()
    }
    assert {tool for tool in checked if "mkdocs" not in tool} == before_commit


def test_make_check_builds_the_documentation_strictly():
    assert "mkdocs build --strict" in recipe("check")


def test_the_workflow_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert ".ci/run" in [step.get("run") for step in workflow["jobs"]["check"]["steps"]]


def test_contributing_names_what_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)`", text):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for path in re.findall(r"`((?:tests|scripts|docs|config|jobs|\.ci)/[\w./]*)`", text):
        assert (ROOT / path).exists() or (ROOT / "dpo_cli" / path).exists(), path
