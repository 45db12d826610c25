"""The architecture page names files, functions and packages that are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([a-z_/]+/[a-z_]+\.py)`(?:,? `([A-Za-z_.]+)`)?", PAGE)


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_the_file_and_its_function_are_there(file, name):
    source = (ROOT / "dpo_cli" / file).read_text(encoding="utf-8")
    for part in name.split("."):
        assert not part or re.search(rf"^\s*(?:def|class) {part}\b", source, re.MULTILINE), name


def test_tables_to_extend_are_where_the_page_says():
    for name, file in re.findall(r"`([A-Z][A-Za-z_]+)` in `([a-z_/]+\.py)`", PAGE):
        source = (ROOT / "dpo_cli" / file).read_text(encoding="utf-8")
        assert re.search(rf"^(?:class )?{name}\b", source, re.MULTILINE), (name, file)


def test_every_package_is_on_the_page():
    tree = PAGE.split("```")[1]
    for path in (ROOT / "dpo_cli").iterdir():
        if path.name.startswith("_") or path.suffix not in {"", ".py"}:
            continue
        assert f"{path.name}/" in tree or path.name in tree, path.name


def test_the_order_of_the_packages_is_the_one_that_is_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    checked = [set(re.findall(r"dpo_cli\.(\w+)", layer)) for layer in contracts[0]["layers"]]
    line = PAGE.split("## Dependencies only point down")[1].strip().split(".\n")[0]
    assert [set(re.findall(r"`(\w+)`", layer)) for layer in line.split(">")] == checked


def test_the_loss_that_the_page_names_is_trls():
    from trl import DPOTrainer

    assert callable(DPOTrainer._compute_loss)
