"""Measure what the verdict's damage checks say of healthy and of ruined runs of the embedded model.

    python scripts/damage_runs.py runs.jsonl [NAME ...]

Each run is `dpo identity-shift` with the settings below; one line is added to the file: what each check of damage looks at,
and the checks that failed. Runs that the file has already are left out. With `--table` as the name it prints the table of
docs/reading-a-run.md; the runs shown there are kept in docs/figures/damage.jsonl.

Healthy runs have settings that people would take: the preset, other names and seeds, LoRA, rates around the preset's.
Ruined ones are trained too hard, and have lost a tenth of the expected answers or more, or say the new name in a tenth of
the others.
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

OF_THE_NAME = ("old_name", "doubled_name")
"""Checks that look at the new name, not at damage."""

HEALTHY: dict[str, dict[str, Any]] = {
    "preset": {},
    "preset, seed 1": {"seed": 1},
    "preset, Orion": {"new_name": "Orion"},
    "preset, Nandú-7": {"new_name": "Nandú-7", "seed": 2},
    "preset, three words": {"new_name": "Captain Blue Whale", "seed": 4},
    "3e-4": {"learning_rate": 3e-4, "seed": 5},
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
    "hinge, 1.5e-3": {"learning_rate": 1.5e-3, "loss_type": ("hinge",), "new_name": "Orion", "seed": 8},
    "LoRA, 5e-3": {"lora_rank": 16, "learning_rate": 5e-3, "seed": 9},
    "LoRA, 1e-2": {"lora_rank": 16, "learning_rate": 1e-2, "new_name": "Orion", "seed": 10},
}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """What the checks of one run saw."""
    with tempfile.TemporaryDirectory() as folder:
        config = IdentityShiftConfig(
            **{"original_name": "Qwen", "new_name": "Deep Qwen", "stop_on_collapse": False} | settings,
            output_dir=f"{folder}/run",
        )
        comparison = identity_shift(config).comparison
    if comparison is None or comparison.verdict is None:
        raise RuntimeError("the trained model could not be asked")
    checks = comparison.verdict.to_json()["checks"]
    return {
        "figures": {check["name"]: check["value"] for check in checks},
        "failed": [check["name"] for check in checks if not check["passed"]],
    }


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
            found = {"kind": kind, "run": name} | run(settings)
            with Path(file).open("a", encoding="utf-8") as out:
                out.write(json.dumps(found, ensure_ascii=False) + "\n")
            print(f"{kind}: {name}, {time.perf_counter() - start:.0f} s", flush=True)


def table(runs: list[dict[str, Any]]) -> str:
    """Each check of damage: its threshold, and what it saw in healthy and in ruined runs."""
    rows = [
        "| Check | Threshold | Healthy runs, most | Failed | Ruined runs | Failed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for check in CHECKS:
        if check.limit != "most" or check.name in OF_THE_NAME:
            continue
        threshold = DEFAULT_THRESHOLDS[check.setting]
        cells = []
        for kind in ("healthy", "ruined"):
            seen = [figure(one["figures"][check.name]) for one in runs if one["kind"] == kind]
            failed = sum(value > threshold for value in seen)
            told = f"{max(seen):.3f}" if kind == "healthy" else f"{min(seen):.3f} to {max(seen):.3f}"
            cells += [told, f"{failed} of {len(seen)}"]
        rows.append(f"| `{check.name}` | {threshold:g} | {' | '.join(cells)} |")
    damage = [check.name for check in CHECKS if check.limit == "most" and check.name not in OF_THE_NAME]
    cells = []
    for kind in ("healthy", "ruined"):
        of_kind = [one for one in runs if one["kind"] == kind]
        failed = sum(any(name in one["failed"] for name in damage) for one in of_kind)
        cells += ["", f"{failed} of {len(of_kind)}"]
    return "\n".join([*rows, f"| any of them | | {' | '.join(cells)} |"])


def figure(value: float | None) -> float:
    """A figure of a check; infinite where a ruined model gives no number."""
    return float("inf") if value is None else value


if __name__ == "__main__":
    main()
