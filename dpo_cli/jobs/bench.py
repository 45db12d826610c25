"""Measure this machine: our engine against TRL's, or batched generation against one question at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dpo_cli.config import DataConfig, Truncation
from dpo_cli.errors import DataError
from dpo_cli.events import OnEvent, ignore
from dpo_cli.jobs.stages import Stages
from dpo_cli.jobs.train import shipped_pairs
from dpo_cli.models.locate import locate_model
from dpo_cli.models.positions import length_within_positions

if TYPE_CHECKING:
    from dpo_cli.bench.generation import GenerationBench
    from dpo_cli.bench.training import BenchResult
    from dpo_cli.config import BenchConfig


def bench(config: BenchConfig, on_event: OnEvent = ignore) -> BenchResult:
    """Train the same pairs with both engines, in alternation, each time in a fresh process.

    Args:
        config: The settings.
        on_event: Called with each event, see `dpo_cli.events`.

    Returns:
        The figures.

    Raises:
        UserError: A setting, the model or the data set is wrong.
        TrainingError: A measurement failed.
    """
    located = locate_model(config.model, revision=config.model_revision, base=config.base)
    given = "max_length" in config.model_fields_set
    max_length = length_within_positions(config.max_length, located, given=given, on_event=on_event)
    stages = Stages(on_event)
    with stages.stage("loading the libraries"):
        from dpo_cli.bench.training import AS_INSTALLED, OURS, STOCK, WARMUP, run_bench
        from dpo_cli.bench.worker import WorkerSpec
        from dpo_cli.data.load import load_pairs
        from dpo_cli.models.loading import load_tokenizer

        tokenizer = load_tokenizer(located, **config.of_tokenizer)
    batch = config.per_device_train_batch_size
    steps = math.ceil(config.pairs / batch)
    with stages.stage("reading pairs"):
        source = config.dataset or shipped_pairs("train")
        data = DataConfig(dataset=source, allow_drops=True)
        pairs = load_pairs(data, tokenizer, Truncation(max_length)).train
        needed = (WARMUP + steps) * batch
        rows = list(pairs.take(needed))
    if len(rows) < needed:
        raise DataError(
            f"{source}: has {len(rows)} usable pairs, but {needed} are needed to warm up and measure",
            hint=f"Give --pairs {max(batch, len(rows) // batch * batch - batch)}, or more data.",
        )
    spec = WorkerSpec(
        engine="", model=config.model, revision=config.model_revision, base=config.base,
        of_tokenizer=config.of_tokenizer, rows="", batch_size=batch, max_length=max_length,
        dtype=config.dtype, device=config.device, lora_rank=config.lora_rank, steps=steps, warmup=WARMUP, cache_folder="",
    )  # fmt: skip
    engines = (STOCK, OURS, AS_INSTALLED) if config.as_installed else (STOCK, OURS)
    with stages.stage("measuring"):
        return run_bench(
            rows, spec, repetitions=config.repetitions, engines=engines, on_progress=stages.progress
        )


def bench_generation(config: BenchConfig, on_event: OnEvent = ignore) -> GenerationBench:
    """Ask the shipped identity questions in batches and one at a time.

    Args:
        config: The settings.
        on_event: Called with each event, see `dpo_cli.events`.

    Raises:
        UserError: A setting or the model is wrong.
    """
    located = locate_model(config.model, revision=config.model_revision, base=config.base)
    stages = Stages(on_event)
    with stages.stage("loading the model"):
        from dpo_cli.bench.generation import measure_generation
        from dpo_cli.models.loading import load_model, load_tokenizer
        from dpo_cli.text.questions import shipped_questions

        tokenizer = load_tokenizer(located, **config.of_tokenizer)
        model = load_model(
            located,
            dtype=config.dtype,
            device=config.device,
            trust_remote_code=config.trust_remote_code,
            on_event=on_event,
        )
        questions = [question.text for question in shipped_questions("identity_train")][: config.pairs]
    with stages.stage("measuring"):
        return measure_generation(
            model, tokenizer, questions, repetitions=config.repetitions, on_progress=stages.progress
        )
