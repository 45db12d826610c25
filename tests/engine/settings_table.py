"""Run every setting, keep what was found, and write the table of docs/performance.md: `python -m engine.settings_table`."""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from pathlib import Path

from engine.settings import FELL_BACK, PARTLY, REFUSED, SAME, SETTINGS, TOLERANCE, run

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "figures" / "engine-settings.json"
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"

SHORT = {
    "other noise": "random numbers in the model's own code", "dropout": "dropout", "NEFTune": "NEFTune noise",
    "activated LoRA": "activated LoRA", "prompt-learning": "prompt learning", "linear_attention": "recurrent layers",
    "attention interface": "attention outside of transformers' interface", "keywords": "attention that takes no keywords",
    "s_aux": "attention sinks", "position_ids": "a batch with position ids", "padded on the right": "padding on the left or within",
    "labels that": "labels on padding", "padding beyond": "padding that scales positions",
}  # fmt: skip


def in_words(reason: str) -> str:
    """A reason as the table gives it."""
    return next((words for mark, words in SHORT.items() if mark in reason), reason)


def in_markdown(results: list[dict[str, str]]) -> str:
    """A row for each family: how many settings came out how, and why the engine did not run."""
    lines = [
        "| what is varied | settings | same | some batches by TRL's forward | all by TRL's forward | refused by both | why TRL's forward |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    families = [*dict.fromkeys(r["family"] for r in results)]
    for family in [*families, None]:
        rows = [r for r in results if family in (None, r["family"])]
        counts = Counter(r["outcome"] for r in rows)
        reasons = dict.fromkeys(in_words(r["reason"]) for r in rows if r["outcome"] in (PARTLY, FELL_BACK))
        cells = [len(rows), *(counts[outcome] for outcome in (SAME, PARTLY, FELL_BACK, REFUSED))]
        name, why = (family, "; ".join(reasons)) if family else ("**all**", "")
        lines.append(f"| {name} | {' | '.join(map(str, cells))} | {why} |")
    return "\n".join(lines)


def main() -> None:
    """Run every setting; a difference ends with its name."""
    logging.disable(logging.WARNING)
    results = []
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            found = run(setting, Path(folder))
        print(f"{setting.family}: {setting.name}: {found.outcome} {found.reason}", flush=True)  # noqa: T201 - a script
        results.append({
            "family": setting.family, "name": setting.name, "outcome": found.outcome, "reason": found.reason[:200],
            "difference": f"{found.difference:.1e}",
        })  # fmt: skip
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = DOCS / "performance.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(
        f"{before}{BEGIN}\n{in_markdown(results)}\n{END}{rest.partition(END)[2]}", encoding="utf-8"
    )
    worst = max(float(r["difference"]) for r in results if float(r["difference"]) <= TOLERANCE)
    print(f"largest difference within the usual tolerance: {worst:.1e}")  # noqa: T201 - a script


if __name__ == "__main__":
    main()
