"""The files of an output folder, besides the model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dpo_cli.characters import escaped_json
from dpo_cli.training.output import write_history

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.training.trainer import TrainingResult


def write_run_files(folder: Path, training: TrainingResult, comparison: Comparison | None) -> None:
    """Write `metrics.jsonl` and `comparison.json`."""
    write_history(folder, training.history)
    if comparison is not None:
        text = escaped_json(json.dumps(comparison.to_json(), indent=2, ensure_ascii=False))
        (folder / "comparison.json").write_text(text + "\n", encoding="utf-8")


def write_pairs(folder: Path, pairs: Iterable[dict[str, Any]]) -> None:
    """Write `pairs.jsonl`, which `dpo train --dataset` reads."""
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(escaped_json(json.dumps(pair, ensure_ascii=False)) + "\n" for pair in pairs)
