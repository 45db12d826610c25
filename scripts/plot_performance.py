"""Draw the figures of docs/performance.md: the packed row, and growth from the numbers of `measure_growth.py`.

python scripts/plot_performance.py docs/figures
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

COLOURS = {
    "prompt": "#7b8794",
    "common start": "#4c6fa5",
    "chosen": "#2f8f6b",
    "rejected": "#c2603a",
    "padding": "#e8eaed",
}
TITLES = {
    "prompt": "prompt tokens",
    "completion": "completion tokens",
    "batch": "pairs a step",
    "common": "common start, of 128 tokens",
}


def draw_rows(folder: Path) -> None:
    """TRL's two padded rows a pair, and the packed row."""
    pairs = [(9, 3, 6, 4), (4, 0, 5, 8)]
    figure, axes = plt.subplots(figsize=(8, 3.1))
    longest, top = 18, 5.6

    def strip(x: float, y: float, parts: list[tuple[str, int]]) -> float:
        for kind, width in parts:
            if width:
                axes.add_patch(
                    Rectangle((x, y), width, 0.7, facecolor=COLOURS[kind], edgecolor="white", linewidth=1.2)
                )
            x += width
        return x

    for prompt, common, chosen, rejected in pairs:
        for kind, rest in (("chosen", chosen), ("rejected", rejected)):
            used = prompt + common + rest
            strip(
                0,
                top,
                [("prompt", prompt), ("common start", common), (kind, rest), ("padding", longest - used)],
            )
            top -= 0.85
    axes.text(
        longest + 0.5, 4.3, "TRL: four rows, padded;\nLM head on every position", va="center", fontsize=9
    )
    x = 0.0
    for prompt, common, chosen, rejected in pairs:
        x = strip(
            x, 1.0, [("prompt", prompt), ("common start", common), ("chosen", chosen), ("rejected", rejected)]
        )
    axes.text(
        0,
        0.25,
        "shared-prefix: one row, nothing twice; LM head where a coloured token is predicted",
        fontsize=9,
    )
    for index, (kind, colour) in enumerate(COLOURS.items()):
        axes.add_patch(Rectangle((index * 7.2, 7.0), 0.9, 0.5, facecolor=colour))
        axes.text(index * 7.2 + 1.2, 7.25, kind, va="center", fontsize=9)
    axes.set_xlim(-0.3, 40)
    axes.set_ylim(0, 7.8)
    axes.axis("off")
    figure.tight_layout()
    figure.savefig(folder / "packed-row.svg")


def draw_growth(folder: Path) -> None:
    """Seconds a pair of both engines, one panel a sweep."""
    found = json.loads((folder / "growth.json").read_text())
    lines = {name: points for name, points in found.items() if len(points) > 1}
    figure, grid = plt.subplots(1, len(lines), figsize=(2.75 * len(lines) + 0.5, 2.9), squeeze=False)
    panels = grid[0]
    for panel, (name, points) in zip(panels, lines.items(), strict=True):
        for engine, colour in (("trl", "#7b8794"), ("shared-prefix", "#2f8f6b")):
            panel.plot(
                [p["value"] for p in points],
                [p[engine] for p in points],
                "o-",
                ms=3.5,
                color=colour,
                label=engine,
            )
        panel.set_xlabel(TITLES[name])
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("CPU seconds a pair")
    panels[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "growth.svg")


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    mpl.rcParams["svg.hashsalt"] = "dpo-cli"  # the same numbers give the same file
    mpl.rcParams["font.family"] = "DejaVu Sans"
    draw_rows(folder)
    draw_growth(folder)


if __name__ == "__main__":
    main()
