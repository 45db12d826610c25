"""What `dpo bench` measures: this project's engine and stock TRL in alternation, each time in a fresh process."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.bench.worker import WorkerResult, WorkerSpec
from dpo_cli.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dpo_cli.events import OnProgress

OURS, STOCK, AS_INSTALLED = "shared-prefix", "trl", "trl-as-installed"
CACHED = "shared-prefix, references stored"
WARMUP = 1


@dataclass(frozen=True)
class EngineFigures:
    """What was measured for one engine, one entry per repetition; memory in bytes.

    Attributes:
        pairs_per_second: References included.
        peak_memory_bytes: Of the process, or of the device.
        loss: By step, of the last repetition, warm-up included.
        note: Why something else ran than was asked for; empty otherwise.
    """

    pairs_per_second: list[float]
    peak_memory_bytes: list[int]
    loss: list[float]
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Medians, and the loss by step."""
        return {
            "pairs_per_second": statistics.median(self.pairs_per_second),
            "peak_memory_bytes": round(statistics.median(self.peak_memory_bytes)),
            "loss": self.loss,
        }


@dataclass(frozen=True)
class BenchResult:
    """A finished measurement.

    Attributes:
        engines: Name to figures: `shared-prefix`, the same with references found on disk, `trl`, and where
            asked for `trl-as-installed`.
        dtype: What both multiplied in.
        floor_fraction: Time that the useful operations take at the measured rate, over the time taken.
        rate: That rate, operations per second.
        pairs: Measured in each repetition.
        batch_size: Pairs per step.
    """

    engines: dict[str, EngineFigures]
    dtype: str
    floor_fraction: float
    rate: float
    pairs: int
    batch_size: int

    def ratios(self, name: str, over: str = STOCK) -> list[float]:
        """Speed of one engine over that of another, by repetition."""
        fast, slow = self.engines[name].pairs_per_second, self.engines[over].pairs_per_second
        return [a / b for a, b in zip(fast, slow, strict=True)]

    def memory_ratios(self, name: str = OURS, over: str = STOCK) -> list[float]:
        """Peak memory of one engine over that of another, by repetition."""
        ours, theirs = self.engines[name].peak_memory_bytes, self.engines[over].peak_memory_bytes
        return [a / b for a, b in zip(ours, theirs, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """The document of `dpo bench --json`; every number is a median over the repetitions, but the ratio's range."""
        ratios = self.ratios(OURS)
        return {
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            "memory_ratio": statistics.median(self.memory_ratios()),
            "floor_fraction": self.floor_fraction,
            "engines": {name: figures.to_json() for name, figures in self.engines.items()},
        }


def run_bench(
    rows: Sequence[dict[str, Any]],
    spec: WorkerSpec,
    *,
    repetitions: int,
    engines: Sequence[str] = (STOCK, OURS),
    on_progress: OnProgress = lambda _done, _total: None,
) -> BenchResult:
    """Measure engines in alternation.

    Args:
        rows: Pairs in TRL's layout; at least `(WARMUP + spec.steps) * spec.batch_size` of them.
        spec: What to measure; `engine`, `rows`, `warmup` and `cache_folder` are filled in here.
        repetitions: Rounds in which each engine runs once.
        engines: Which, in their order within a round.
        on_progress: Called with (processes done, processes in all).

    Returns:
        The figures.

    Raises:
        TrainingError: A process failed; its last words are in the message.
    """
    results: dict[str, list[WorkerResult]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        file.write_text(json.dumps(list(rows)), encoding="utf-8")
        for round_ in range(repetitions):
            for index, name in enumerate(engines):
                cache = str(Path(folder) / f"cache-{round_}")  # a new one each round: references are computed
                task = replace(spec, engine=name, rows=str(file), warmup=WARMUP, cache_folder=cache)
                results[name].append(run_worker(task, Path(folder)))
                on_progress(round_ * len(engines) + index + 1, repetitions * len(engines))
    return _conclude(results, spec)


def run_worker(spec: WorkerSpec, folder: Path) -> WorkerResult:
    """Measure once, in a fresh process.

    Args:
        spec: What to measure.
        folder: For the files that are passed to and fro.

    Raises:
        TrainingError: The process failed.
    """
    told, found = folder / "spec.json", folder / "result.json"
    found.unlink(missing_ok=True)
    told.write_text(json.dumps(asdict(spec)), encoding="utf-8")
    command = [sys.executable, "-m", "dpo_cli.bench.worker", str(told), str(found)]
    done = subprocess.run(command, capture_output=True, check=False, text=True, errors="replace")
    if done.returncode != 0 or not found.exists():
        killed = done.returncode < 0
        words = "it was killed, probably because memory ran out" if killed else last_words(done.stderr)
        raise TrainingError(
            f"Measuring {spec.engine} failed: {words}",
            hint="Try fewer pairs per step (--per-device-train-batch-size) or shorter ones (--max-length).",
        )
    return WorkerResult(**json.loads(found.read_text(encoding="utf-8")))


def last_words(stderr: str) -> str:
    """The last line of a failed process's output that says something."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"


def _conclude(results: dict[str, list[WorkerResult]], spec: WorkerSpec) -> BenchResult:
    figures: dict[str, EngineFigures] = {}
    for name, runs in results.items():
        memory, loss, note = [r.peak_memory_bytes for r in runs], runs[-1].loss, runs[-1].note
        speed = [r.pairs / (r.step_seconds + r.reference_seconds) for r in runs]
        figures[name] = EngineFigures(speed, memory, loss, note)
        if name == OURS:
            speed = [r.pairs / r.step_seconds for r in runs]
            figures[CACHED] = EngineFigures(speed, memory, loss, note)
    ours = results.get(OURS) or next(iter(results.values()))
    rate = statistics.median(r.rate for r in ours)
    seconds = statistics.median((r.step_seconds + r.reference_seconds) / r.pairs for r in ours)
    return BenchResult(
        engines=figures,
        dtype=ours[0].dtype,
        floor_fraction=ours[0].useful_flops / rate / seconds if seconds else math.nan,
        rate=rate,
        pairs=ours[0].pairs,
        batch_size=spec.batch_size,
    )
