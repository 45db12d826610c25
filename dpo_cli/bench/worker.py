"""One measurement of `dpo bench`, in a process of its own: `python -m dpo_cli.bench.worker SPEC RESULT`.

SPEC is a JSON file with the fields of `WorkerSpec`; RESULT is written as JSON with those of `WorkerResult`.
"""

# ruff: noqa: ANN401 - trl's objects are Any to mypy

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.errors import DpoError, TrainingError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable


@dataclass(frozen=True)
class WorkerSpec:
    """What one process measures.

    Attributes:
        engine: `shared-prefix`, or `trl`, or `trl-as-installed` (its own precision, checkpointing, allocator).
        model: A name `locate_model` understands.
        revision: Of a hub model.
        base: Of an adapter, instead of the one that it names; None keeps that.
        of_tokenizer: Keywords of `load_tokenizer`.
        rows: JSON file, a list of pairs in TRL's layout.
        batch_size: Pairs per step.
        max_length: TRL's.
        dtype: `auto`, or what to multiply in.
        device: `auto`, `cpu`, `cuda` or `mps`.
        lora_rank: Train adapters of this rank; None trains all weights.
        steps: Measured optimizer steps, after `warmup` unmeasured ones.
        warmup: Steps before the clock starts.
        cache_folder: Where reference log-probabilities are kept; empty at the start, so that they are computed.
    """

    engine: str
    model: str
    revision: str | None
    base: str | None
    of_tokenizer: dict[str, Any]
    rows: str
    batch_size: int
    max_length: int
    dtype: str
    device: str
    lora_rank: int | None
    steps: int
    warmup: int
    cache_folder: str


@dataclass(frozen=True)
class WorkerResult:
    """What one process found.

    Attributes:
        engine: What ran.
        note: Why something else ran than was asked for; empty otherwise.
        dtype: What was multiplied in.
        step_seconds: Of the measured steps together.
        reference_seconds: Their share of computing references beforehand; 0 where that is part of the steps.
        pairs: Measured.
        peak_memory_bytes: Of the whole process (resident), or of the device.
        loss: By step, warm-up included.
        useful_flops: Operations a pair cannot do without, see `bench_floor`.
        rate: Operations per second that a matrix product reaches here in this precision.
    """

    engine: str
    note: str
    dtype: str
    step_seconds: float
    reference_seconds: float
    pairs: int
    peak_memory_bytes: int
    loss: list[float]
    useful_flops: float
    rate: float


def measure(spec: WorkerSpec) -> WorkerResult:
    """Train as `spec` says and time it."""
    from transformers import TrainerCallback

    from dpo_cli.bench.floor import matmul_rate, useful_flops
    from dpo_cli.models.devices import choose_device, choose_dtype
    from dpo_cli.models.loading import load_model, load_tokenizer
    from dpo_cli.models.locate import locate_model
    from dpo_cli.models.memory import keep_memory, peak_memory_bytes

    if spec.engine != "trl-as-installed":
        keep_memory()
    located = locate_model(spec.model, revision=spec.revision, base=spec.base)
    trust = spec.of_tokenizer["trust_remote_code"]
    device = choose_device(spec.device)
    tokenizer = load_tokenizer(located, **spec.of_tokenizer)
    model = load_model(located, dtype="float32", device=device.type, trust_remote_code=trust, trainable=True)
    dtype = choose_dtype(spec.dtype, device, parameters=model.num_parameters())
    stamps: list[float] = []
    now = clock(device.type)

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(now())

    with tempfile.TemporaryDirectory() as folder:
        trainer, reference = _trainer(spec, model, tokenizer, str(dtype).removeprefix("torch."), folder)
        trainer.add_callback(Clock())
        trainer.train()
    note = _who_computed(trainer, steps=spec.warmup + spec.steps) if spec.engine == "shared-prefix" else ""
    measured = spec.steps * spec.batch_size
    computed = getattr(trainer, "references_computed", 0)
    peak = peak_memory_bytes(device.type)
    return WorkerResult(
        engine=spec.engine,
        note=note,
        dtype=str(dtype).removeprefix("torch."),
        step_seconds=stamps[-1] - stamps[spec.warmup - 1],
        reference_seconds=sum(reference) * measured / computed if computed else 0.0,
        pairs=measured,
        peak_memory_bytes=peak,
        loss=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        useful_flops=useful_flops(trainer),
        rate=matmul_rate(dtype, device, now=now),
    )


def _who_computed(trainer: Any, *, steps: int) -> str:
    """Why another forward than the engine's computed batches of a finished run; empty if the engine computed all.

    Raises:
        TrainingError: The engine computed less than it claims.
    """
    if trainer.fallback_reason is not None:
        return str(trainer.fallback_reason)
    left: Counter[str] = trainer.forwards.handed_over
    if trainer.forwards.packed + left.total() < steps:
        raise TrainingError(
            f"the engine was asked for {trainer.forwards.packed} batches in {steps} steps",
            hint="Please report this: the measurement did not use the engine.",
        )
    return "; ".join(f"{count} batches: {reason}" for reason, count in left.items())


def _trainer(
    spec: WorkerSpec, model: Any, tokenizer: Any, dtype: str, folder: str
) -> tuple[Any, list[float]]:
    """The trainer to measure, and the list that its reference pass writes its seconds to."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from dpo_cli.engine.trainer import SharedPrefixTrainer
    from dpo_cli.training.trl_config import lora_config

    now = clock(model.device.type)

    class TimedReferences(SharedPrefixTrainer):
        def _compute_references(self, *args: Any) -> Any:
            start = now()
            found = super()._compute_references(*args)
            seconds.append(now() - start)
            return found

    seconds: list[float] = []
    ours = spec.engine == "shared-prefix"
    settings = (
        {}
        if spec.engine == "trl-as-installed"
        else {"bf16": dtype == "bfloat16", "fp16": dtype == "float16", "activation_checkpointing": False}
    )
    arguments = DPOConfig(
        output_dir=folder,
        per_device_train_batch_size=spec.batch_size,
        max_steps=spec.warmup + spec.steps,
        max_length=spec.max_length,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=0,
        dataloader_pin_memory=False,
        use_cpu=spec.device == "cpu" or model.device.type == "cpu",
        precompute_ref_log_probs=ours,
        **settings,
    )
    common = {
        "model": model,
        "args": arguments,
        "train_dataset": Dataset.from_list(json.loads(Path(spec.rows).read_text(encoding="utf-8"))),
        "processing_class": tokenizer,
        "peft_config": lora_config(spec.lora_rank),
    }
    if ours:
        return TimedReferences(**common, cache_folder=Path(spec.cache_folder)), seconds
    return DPOTrainer(**common), seconds


def clock(device: str) -> Callable[[], float]:
    """A function that gives seconds, after the device has done what it was told."""
    import torch

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return now


def main() -> None:
    """Read the spec named by the first argument, write the result to the second."""
    warnings.simplefilter("ignore")  # of libraries, to each other
    spec = WorkerSpec(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    try:
        result = measure(spec)
    except DpoError as error:
        sys.exit(error.message)  # the parent reads the last line
    Path(sys.argv[2]).write_text(json.dumps(asdict(result)), encoding="utf-8")


if __name__ == "__main__":
    main()
