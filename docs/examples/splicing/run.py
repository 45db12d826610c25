"""Which donor is used in this tissue? The whole experiment, or the same on a table of your own.

    python docs/examples/splicing/run.py --seeds 1 2 3
    python docs/examples/splicing/run.py --sites my_sites.csv

stdout has the table; what happens on the way goes to stderr; models, pairs, logs and `results.json` go to `--out`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import experiment
import language_model
import user_experiment

from dpo_cli.errors import DpoError
from dpo_cli.report.error import show_error


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parse(arguments)
    language_model.quiet()
    try:
        results = {}
        for seed in options.seeds:
            started = time.perf_counter()
            results[seed] = run_one(seed, options)
            experiment.say(f"seed {seed}: {time.perf_counter() - started:.0f} s")
    except DpoError as error:
        show_error(error)
        return error.exit_code
    options.out.mkdir(parents=True, exist_ok=True)
    document = {"engine": options.engine, "small": options.small, "replay": options.replay, "seeds": results}
    (options.out / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(list(results.values())))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Which donor is used in this tissue?")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one run for each")
    parser.add_argument(
        "--out", type=Path, default=Path("build/splicing"), help="folder for everything that is written"
    )
    parser.add_argument(
        "--engine", choices=["shared-prefix", "trl"], default="shared-prefix", help="engine of dpo train"
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="less than a fifth of the data: to see it run, not for the figures",
    )
    parser.add_argument(
        "--replay",
        type=float,
        default=0.25,
        help="share of pairs that are donor against decoy (0 leaves them out)",
    )
    parser.add_argument(
        "--sites", type=Path, nargs="+", help="tables of your own, see the page for their layouts"
    )
    parser.add_argument(
        "--margin",
        type=float,
        help="with --sites: least difference of a pair in the unit of the tables; half a standard deviation of its condition unless given",
    )
    return parser.parse_args(arguments)


def run_one(seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One seed, of the experiment or of the user's tables."""
    folder = options.out / f"seed-{seed}"
    if options.sites:
        return user_experiment.run_seed(
            seed, folder, options.sites, margin=options.margin, engine=options.engine, small=options.small
        )
    size = replace(experiment.SMALL if options.small else experiment.Size(), replay=options.replay)
    return experiment.run_seed(seed, folder, size, options.engine)


def table(runs: list[dict[str, dict[str, float]]]) -> str:
    """A Markdown table: mean of the runs and, with several, their standard deviation."""
    columns = [
        column
        for column in (*experiment.COLUMNS, *user_experiment.COLUMNS)
        if any(column in row for row in runs[0].values())
    ]
    columns = list(dict.fromkeys(columns))
    lines = ["| scorer | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for scorer in runs[0]:
        cells = [cell([run[scorer][column] for run in runs if column in run[scorer]]) for column in columns]
        lines.append(f"| {scorer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(values: list[float]) -> str:
    """Mean and standard deviation (n - 1)."""
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.3f} ± {deviation:.3f}"


if __name__ == "__main__":
    sys.exit(main())
