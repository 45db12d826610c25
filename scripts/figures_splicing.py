"""Draw docs/images/splicing.svg from the results of the splicing experiment, and print the page's table.

    python docs/examples/splicing/run.py --seeds 346001 662693 715007 --out build/splicing
    python scripts/figures_splicing.py build/splicing/results.json

Several files, for instance of one seed each, are put together into docs/examples/splicing/results.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/examples/splicing/results.json"
FIGURE = ROOT / "docs/images/splicing.svg"
SHOWN = ("pair accuracy", "both tags right")
COLORS = ("#3f51b5", "#ff9800")

Run = dict[str, dict[str, float]]


def gather(files: list[Path]) -> dict[str, Any]:
    """One document of all seeds.

    Raises:
        SystemExit: If the files are of different experiments.
    """
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    settings = [{key: value for key, value in one.items() if key != "seeds"} for one in documents]
    if any(one != settings[0] for one in settings):
        sys.exit("these results are of different settings")
    seeds = {seed: run for one in documents for seed, run in one["seeds"].items()}
    return settings[0] | {"seeds": dict(sorted(seeds.items(), key=lambda item: int(item[0])))}


def draw(runs: list[Run], file: Path) -> None:
    """Bars of the means, a dot for each seed."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "dpo", "font.size": 9}
    scorers = list(runs[0])[::-1]
    figure, axis = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for offset, (column, color) in enumerate(zip(SHOWN, COLORS, strict=True)):
        places = [place + 0.18 - 0.36 * offset for place in range(len(scorers))]
        means = [sum(run[scorer][column] for run in runs) / len(runs) for scorer in scorers]
        axis.barh(places, means, height=0.34, color=color, alpha=0.75, label=column)
        for run in runs:
            axis.plot([run[scorer][column] for scorer in scorers], places, "k.", markersize=3)
    axis.set_yticks(range(len(scorers)), scorers)
    axis.set(xlim=(0, 1.02), xlabel="share of held-out pairs, and of adaptive events (a dot a seed)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", alpha=0.3)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


def main() -> int:
    """Gather, draw, print the table."""
    parser = argparse.ArgumentParser(description="The figure and the table of the splicing page.")
    parser.add_argument(
        "results", type=Path, nargs="*", help="results.json of runs; the shipped ones unless given"
    )
    parser.add_argument("--out", type=Path, default=FIGURE, help="where the figure goes")
    options = parser.parse_args()
    sys.path.insert(0, str(RESULTS.parent))
    import run

    if options.results:
        RESULTS.write_text(json.dumps(gather(options.results), indent=1) + "\n", encoding="utf-8")
    runs = list(json.loads(RESULTS.read_text(encoding="utf-8"))["seeds"].values())
    draw(runs, options.out)
    print(run.table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
