"""One measurement of `dpo bench`, in a process of its own: `python -m dpo_cli.training.bench_worker SPEC RESULT`.

SPEC is a JSON file with the fields of `WorkerSpec`, RESULT is written as JSON with those of `WorkerResult`.
"""

# ruff: noqa: ANN401 - trl's objects are Any to mypy

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class WorkerSpec:
    """What one process measures.

    Attributes:
        engine: `shared-prefix` or `trl`.
        model: Folder or hub id.
        pairs: JSON file, a list of rows in TRL's layout (`prompt`, `chosen`, `rejected`).
        batch_size: Pairs per step.
        max_length: TRL's.
        dtype: `float32`, or `bfloat16` for autocast.
        steps: Measured optimizer steps, after `warmup` unmeasured ones.
        warmup: Steps before the clock starts.
        keep_memory: Apply `models.precision.keep_memory` first.
        as_installed: Leave precision, checkpointing and allocator as TRL sets them (engine `trl` only).
        cache_folder: Where reference log-probabilities are kept between processes.
        learning_rate: Of both.
    """

    engine: str
    model: str
    pairs: str
    batch_size: int
    max_length: int
    dtype: str
    steps: int
    warmup: int
    keep_memory: bool
    as_installed: bool
    cache_folder: str
    learning_rate: float = 1e-6


@dataclass(frozen=True)
class WorkerResult:
    """What one process found.

    Attributes:
        engine: What ran.
        note: Why something else ran than was asked for; empty otherwise.
        seconds: Of the measured steps, with their share of computing references.
        reference_seconds: Of the reference pass over all pairs; 0 where references are part of the steps.
        pairs: Measured.
        peak_memory_bytes: Of the whole process (resident), or of the device.
        loss: By step, warm-up included.
        flops: Useful operations per measured pair (see `bench.useful_flops`), references included.
        rate: Matrix-product rate reached here in this precision, operations per second.
    """

    engine: str
    note: str
    seconds: float
    reference_seconds: float
    pairs: int
    peak_memory_bytes: int
    loss: list[float]


def peak_memory() -> int:
    """Most resident memory this process ever had, or most device memory, bytes."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent's memory too, it is inherited over fork
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def measure(spec: WorkerSpec) -> WorkerResult:
    """Train as `spec` says and time it."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from dpo_cli.training.engine_trainer import EngineTrainer

    if spec.keep_memory and not spec.as_installed:
        from dpo_cli.models.precision import keep_memory

        keep_memory()
    tokenizer = AutoTokenizer.from_pretrained(spec.model)
    model = AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.float32)
    rows = json.loads(Path(spec.pairs).read_text())
    stamps: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(_now())

    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {} if spec.as_installed else {
            "bf16": spec.dtype == "bfloat16", "activation_checkpointing": False,
        }  # fmt: skip
        ours = spec.engine == "shared-prefix"
        arguments = DPOConfig(
            output_dir=folder, per_device_train_batch_size=spec.batch_size, max_steps=spec.warmup + spec.steps,
            max_length=spec.max_length, learning_rate=spec.learning_rate, lr_scheduler_type="constant", logging_steps=1,
            report_to="none", save_strategy="no", disable_tqdm=True, seed=0, dataloader_pin_memory=False,
            use_cpu=not torch.cuda.is_available(), precompute_ref_log_probs=ours, **settings,
        )  # fmt: skip
        shared = {
            "model": model, "args": arguments, "train_dataset": Dataset.from_list(rows), "processing_class": tokenizer,
            "callbacks": [Clock()],
        }  # fmt: skip
        if ours:
            seconds: list[float] = []
            trainer: Any = _timed_references(EngineTrainer, seconds)(
                **shared, cache_folder=Path(spec.cache_folder)
            )
            note = "" if trainer.engine == spec.engine else str(trainer.fallback_reason)
        else:
            seconds, note = [0.0], ""
            trainer = DPOTrainer(**shared)
        trainer.train()
        computed = trainer.references_computed if ours else 0
    measured = spec.steps * spec.batch_size
    share = sum(seconds) * measured / computed if computed else 0.0
    return WorkerResult(
        engine=spec.engine,
        note=note,
        seconds=stamps[-1] - stamps[spec.warmup - 1] + share,
        reference_seconds=sum(seconds),
        pairs=measured,
        peak_memory_bytes=peak_memory(),
        loss=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    )


def _timed_references(trainer: Any, seconds: list[float]) -> Any:
    class Timed(trainer):
        def _compute_references(self, *args: Any) -> Any:
            start = _now()
            found = super()._compute_references(*args)
            seconds.append(_now() - start)
            return found

    return Timed


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Read the spec named by the first argument, write the result to the second."""
    spec = WorkerSpec(**json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(asdict(measure(spec))))


if __name__ == "__main__":
    main()
