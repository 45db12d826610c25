"""Measure the engines on a machine that others use too: CPU seconds of one thread instead of the clock on the wall.

Each round measures stock TRL, our engine, and where asked for TRL as installed, on pairs of its own, each in a
fresh process, with the workers of `dpo bench`. Results are appended to a file, a JSON line a process.

    OMP_NUM_THREADS=1 python scripts/measure_busy.py build/bench-model pairs.json results.jsonl --dtype bfloat16
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from dpo_cli.data.load import load_pairs
from dpo_cli.models.loading import load_tokenizer
from dpo_cli.models.locate import locate_model
from dpo_cli.training.bench import AS_INSTALLED, OURS, STOCK, run_worker
from dpo_cli.training.bench_worker import WorkerSpec


def main() -> None:
    """Measure and append."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("results", type=Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--as-installed", action="store_true")
    parser.add_argument("--label", default="")
    given = parser.parse_args()
    tokenizer = load_tokenizer(locate_model(given.model))
    rows = list(
        load_pairs(given.data, tokenizer=tokenizer, max_length=given.max_length, allow_drops=True).train
    )
    count = (1 + given.steps) * given.batch
    engines = [STOCK, OURS] + [AS_INSTALLED] * given.as_installed
    for round_ in range(given.rounds):
        chosen = [{k: r[k] for k in ("prompt", "chosen", "rejected")} for r in rows[round_ * count :][:count]]
        for engine in engines:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "rows.json"
                file.write_text(json.dumps(chosen))
                spec = WorkerSpec(
                    engine=engine, model=given.model, revision=None, trust_remote_code=False, chat_template=None,
                    rows=str(file), batch_size=given.batch, max_length=given.max_length, dtype=given.dtype, device="cpu",
                    lora_rank=None, steps=given.steps, warmup=1, cache_folder=folder, clock="cpu",
                )  # fmt: skip
                result = {"label": given.label, "round": round_, **asdict(run_worker(spec, Path(folder)))}
            with given.results.open("a") as out:
                out.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
