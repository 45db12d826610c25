"""`dpo bench`: measure this machine."""

from __future__ import annotations

from dpo_cli.config import BenchConfig

SETTINGS = BenchConfig
HELP = """Measure this machine: our engine against TRL's own trainer.

Both train the same pairs of the same model with the same settings, in alternation, each time in a fresh
process and after a warm-up step. Printed are pairs per second, peak memory, the loss of each step, their
ratio with its smallest and largest value, and how near our engine comes to what the machine can do.

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
