"""Measure what the verdict's damage checks say of healthy and of ruined runs of the embedded model.

    python scripts/damage_runs.py runs.jsonl [NAME ...]

Each run is `dpo identity-shift` with the settings below; one line of its scores is added to the file, runs that it has
already are left out. `python scripts/damage_runs.py runs.jsonl --table` prints the table of docs/reading-a-run.md.

Healthy runs have settings that people would take: the preset, other names and seeds, LoRA, rates around the preset's.
Ruined ones are trained far too hard, and have lost a tenth of the expected answers or more, or say the new name in a
tenth of the others.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dpo_cli.config import IdentityShiftConfig
from dpo_cli.evaluation.verdict import CHECKS, DEFAULT_THRESHOLDS
from dpo_cli.jobs.identity_shift import identity_shift

HEALTHY: dict[str, dict[str, Any]] = {
    "preset": {},
    "preset, seed 1": {"seed": 1},
    "preset, Orion": {"new_name": "Orion"},
    "preset, Nandú-7": {"new_name": "Nandú-7", "seed": 2},
    "preset, 小明": {"new_name": "小明", "seed": 3},
    "preset, three words": {"new_name": "Captain Blue Whale", "seed": 4},
    "3e-4": {"learning_rate": 3e-4, "seed": 5},
    "2e-4, 4 epochs": {"learning_rate": 2e-4, "num_train_epochs": 4, "seed": 6},
    "beta 0.1": {"beta": 0.1, "seed": 7},
    "with an sft term": {"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0, 0.5), "seed": 8},
    "LoRA": {"lora_rank": 16, "seed": 9},
    "LoRA, Orion": {"lora_rank": 16, "new_name": "Orion", "seed": 10},
}
RUINED: dict[str, dict[str, Any]] = {
    "1e-3": {"learning_rate": 1e-3, "new_name": "Orion"},
    "1.5e-3": {"learning_rate": 1.5e-3},
    "2e-3": {"learning_rate": 2e-3, "new_name": "Orion", "seed": 1},
    "3e-3": {"learning_rate": 3e-3, "seed": 2},
    "1e-2": {"learning_rate": 1e-2, "seed": 3},
    "1e-3, 8 epochs": {"learning_rate": 1e-3, "num_train_epochs": 8, "seed": 4},
    "8e-4, beta 0.01, 6 epochs": {"learning_rate": 8e-4, "beta": 0.01, "num_train_epochs": 6, "seed": 5},
    "sft alone, 2e-3": {"learning_rate": 2e-3, "loss_type": ("sft",), "new_name": "Orion", "seed": 6},
    "sft alone, 1e-3, 8 epochs": {
        "learning_rate": 1e-3,
        "loss_type": ("sft",),
        "num_train_epochs": 8,
        "seed": 7,
    },
    "hinge, 1.5e-3": {"learning_rate": 1.5e-3, "loss_type": ("hinge",), "new_name": "Orion", "seed": 8},
    "LoRA, 5e-3": {"lora_rank": 16, "learning_rate": 5e-3, "seed": 9},
    "LoRA, 1e-2": {"lora_rank": 16, "learning_rate": 1e-2, "new_name": "Orion", "seed": 10},
}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """The scores of one run, and a few of its answers."""
    with tempfile.TemporaryDirectory() as folder:
        config = IdentityShiftConfig(
            **{"original_name": "Qwen", "new_name": "Deep Qwen", "stop_on_collapse": False} | settings,
            output_dir=f"{folder}/run",
        )
        comparison = identity_shift(config).comparison
    if comparison is None:
        raise RuntimeError("the trained model could not be asked")
    document = comparison.to_json()
    answers = [one for one in document["questions"] if one["group"] != "identity"]
    return {"scores": document["scores"], "verdict": document["verdict"], "answers": answers}


def main() -> None:
    """Run what is asked for, or print the table."""
    file, *names = sys.argv[1:]
    lines = Path(file).read_text(encoding="utf-8").splitlines() if Path(file).exists() else []
    done = [json.loads(line) for line in lines]
    if names == ["--table"]:
        print(table(done))
        return
    known = {(one["kind"], one["run"]) for one in done}
    for kind, runs in (("healthy", HEALTHY), ("ruined", RUINED)):
        for name, settings in runs.items():
            if (kind, name) in known or (names and name not in names and kind not in names):
                continue
            start = time.perf_counter()
            found = {"kind": kind, "run": name, "model": "embedded"} | run(settings)
            with Path(file).open("a", encoding="utf-8") as out:
                out.write(json.dumps(found, ensure_ascii=False) + "\n")
            print(f"{kind}: {name}, {time.perf_counter() - start:.0f} s", flush=True)


def table(runs: list[dict[str, Any]]) -> str:
    """Each check of damage: the worst of the healthy runs, the threshold, and how many of the ruined ones it fails."""
    rows = [
        "| Check | Healthy runs, largest | Threshold | Ruined runs, smallest to largest | Healthy failed | Ruined failed |",
        "|---|---|---|---|---|---|",
    ]
    for check in CHECKS:
        figures = {
            kind: [
                figure(one, check.score, check.side)
                for one in runs
                if one["kind"] == kind and check.score in one["scores"]
            ]
            for kind in ("healthy", "ruined")
        }
        if check.limit != "most" or not figures["healthy"] or not figures["ruined"]:
            continue
        threshold = DEFAULT_THRESHOLDS[check.setting]
        failed = {kind: sum(value > threshold + 1e-9 for value in values) for kind, values in figures.items()}
        rows.append(
            f"| `{check.name}` | {max(figures['healthy']):.3f} | {threshold:g} | {min(figures['ruined']):.3f} to {max(figures['ruined']):.3f}"
            f" | {failed['healthy']} of {len(figures['healthy'])} | {failed['ruined']} of {len(figures['ruined'])} |"
        )
    return "\n".join(rows)


def figure(one: dict[str, Any], score: str, side: str) -> float:
    """What a check looks at; infinite where a ruined model gives no number."""
    row = one["scores"][score]
    value = row["after" if side == "after" else "difference"]["value"]
    value = float("inf") if value is None else value
    return -value if side == "drop" else value


if __name__ == "__main__":
    main()
