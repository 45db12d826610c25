"""The page on settings shows the recipes as they are."""

from __future__ import annotations

import math
from pathlib import Path

from dpo_cli.config.recipes import RECIPE_SETTINGS, RECIPES

PAGE = (Path(__file__).parents[2] / "docs/choosing-settings.md").read_text(encoding="utf-8")


def size(parameters):
    if math.isinf(parameters):
        return "larger"
    return f"up to {parameters / 1e9:g}B" if parameters >= 1e9 else f"up to {parameters / 1e6:g}M"


def test_every_recipe_is_a_row_of_the_page_with_its_figures_and_its_source():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if line.startswith(("| `train`", "| `identity-shift`"))
    ]
    expected = [
        [
            f"`{row.job}`", "LoRA" if row.lora else "full", size(row.up_to),
            *(f"{row.settings[key]:g}" if key in row.settings else "" for key in ("learning_rate", "num_train_epochs", "beta")),
            row.source,
        ]
        for row in RECIPES
    ]  # fmt: skip
    assert [[*cells[:6], cells[-1]] for cells in rows] == expected


def test_the_page_names_what_a_recipe_file_may_set():
    assert all(f"`{name}`" in PAGE for name in RECIPE_SETTINGS)
