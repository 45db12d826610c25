"""`dpo bench`: measure this machine."""

from __future__ import annotations

from dpo_cli.config import BenchConfig

SETTINGS = BenchConfig
HELP = """Measure this machine: our engine against TRL's trainer.

Both train on the same pairs with the same model and settings, in turn, each time in a fresh process and after a
warm-up step. The output has pairs per second, peak memory, the loss of each step, the speed-up with its range,
and how close our engine comes to the limit of the machine.

    dpo bench
    dpo bench -m HuggingFaceTB/SmolLM2-135M-Instruct -d pairs.jsonl --pairs 40 --json
    dpo bench --generate
"""


def run(config: BenchConfig, as_json: bool) -> None:
    """Measure, and print the figures."""
    from dpo_cli.jobs.bench import bench, bench_generation
    from dpo_cli.report.bench import show_bench, show_generation
    from dpo_cli.report.live import live_view

    if config.generate:
        with live_view() as view:
            answered = bench_generation(config, view)
        show_generation(answered, as_json=as_json)
        return
    with live_view() as view:
        measured = bench(config, view)
    show_bench(measured, as_json=as_json)
