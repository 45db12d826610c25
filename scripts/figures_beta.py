"""Measure what beta does, on the embedded model, and draw docs/images/beta.svg for the explainer.

    python scripts/figures_beta.py            # train, write docs/images/beta.json, draw
    python scripts/figures_beta.py --draw     # draw again from beta.json
    python scripts/figures_beta.py --small --out build/beta.json    # two values of beta, no figure

Every run starts from the same weights, sees the same pairs in the same order, and takes as many steps; only beta
differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parents[1] / "docs/images"
BETAS = (0.05, 0.1, 0.2, 0.5, 1.0)
SMALL = (0.2, 1.0)
EPOCHS = 3


def measure(beta: float, epochs: int, seed: int) -> dict[str, float]:
    """Train once.

    Returns:
        `divergence` from the reference on the reference's own answers in nats a token, `log_ratio_margin` and
        `chosen_log_ratio` in nats and the `accuracy` on held-out pairs.
    """
    from dpo_cli.config import DPOTrainingConfig
    from dpo_cli.jobs.train import train

    with tempfile.TemporaryDirectory() as folder:
        rewards = Path(folder) / "rewards.jsonl"
        config = DPOTrainingConfig(
            beta=beta,
            num_train_epochs=epochs,
            seed=seed,
            device="cpu",
            output_dir=str(Path(folder) / "out"),
            save_rewards=str(rewards),
        )
        result = train(config)
        rows = [json.loads(line) for line in rewards.read_text(encoding="utf-8").splitlines()]
    if result.comparison is None:
        message = "the shipped set has held-out pairs"
        raise RuntimeError(message)
    scores = {row.name: row.after.value for row in result.comparison.scores if row.after is not None}
    return {
        "beta": beta,
        "divergence": scores["divergence"],
        "log_ratio_margin": sum(row["margin"] for row in rows) / len(rows) / beta,
        "chosen_log_ratio": sum(row["chosen"] for row in rows) / len(rows) / beta,
        "accuracy": scores["reward_accuracy"],
    }


def table(rows: list[dict[str, float]]) -> str:
    """The table of the page, in Markdown."""
    lines = [
        "| β | divergence from the reference (nats a token) | log-ratio margin (nats) | change of log p, chosen (nats) |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['beta']:g} | {row['divergence']:.2f} | {row['log_ratio_margin']:.1f} | {row['chosen_log_ratio']:+.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def draw(rows: list[dict[str, float]], file: Path) -> None:
    """Two panels over beta: divergence, and the margin of log-ratios with the bounds that sigmoid saturation gives."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "dpo", "font.size": 9}
    betas = [row["beta"] for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.8), layout="constrained")
    panels: tuple[tuple[Any, str, str], ...] = (
        (axes[0], "divergence", "divergence from the reference\n(nats a token)"),
        (axes[1], "log_ratio_margin", "log-ratio margin, held-out pairs\n(nats)"),
    )
    for axis, key, label in panels:
        axis.plot(betas, [row[key] for row in rows], marker="o", color="#3f51b5")
        axis.set(xscale="log", xlabel="beta", ylabel=label, ylim=(0, None))
        axis.set_xticks(betas, [f"{beta:g}" for beta in betas])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


def main() -> int:
    """Measure unless told only to draw, then draw and print the table."""
    parser = argparse.ArgumentParser(description="What beta does, measured.")
    parser.add_argument("--draw", action="store_true", help="draw from the figures that are there")
    parser.add_argument("--small", action="store_true", help="two values of beta, nothing drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=IMAGES / "beta.json")
    options = parser.parse_args()
    if not options.draw:
        rows = []
        for beta in SMALL if options.small else BETAS:
            rows.append(measure(beta, EPOCHS, options.seed))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    rows = json.loads(options.out.read_text(encoding="utf-8"))
    if not options.small:
        draw(rows, options.out.with_suffix(".svg"))
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
