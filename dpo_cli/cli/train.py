"""`dpo train`: DPO on preference pairs."""

from __future__ import annotations

from dpo_cli.config import DPOTrainingConfig

SETTINGS = DPOTrainingConfig
HELP = """Train a model on preference pairs.

With no flags it teaches the small model that ships with dpo to answer briefly. Every row that cannot be used
is counted, with the reason, before training starts. Held-out pairs are scored before and after.

    dpo train
    dpo train -m ./my-model -d pairs.jsonl --eval-fraction 0.1 -o ./tuned
    dpo train -m HuggingFaceTB/SmolLM2-135M-Instruct -d trl-lib/ultrafeedback_binarized --lora-rank 16
    dpo train --config dpo_output/config.toml -o ./again
"""


def run(config: DPOTrainingConfig, as_json: bool) -> None:
    """Train, and print the scores."""
    from dpo_cli.jobs.train import train
    from dpo_cli.report.live import live_view
    from dpo_cli.report.runs import show_train, write_train_report

    with live_view() as view:
        result = train(config, view, write_train_report)
    show_train(result, as_json=as_json)
