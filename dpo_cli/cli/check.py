"""`dpo check`: what is in a data set and what is wrong with it."""

from __future__ import annotations

from dpo_cli.config import CheckConfig

SETTINGS = CheckConfig
HELP = """Report what is in a data set and what is wrong with it, without training.

It reads the data as `dpo train` does, with the model's tokenizer, chat template and truncation, and accounts for every
row. The exit code is 0 if the data can be trained on, 2 if not.

    dpo check pairs.jsonl
    dpo check pairs.jsonl -m ./my-model --max-length 2048
    dpo check trl-lib/ultrafeedback_binarized --split test --json
"""


def run(config: CheckConfig, as_json: bool) -> None:
    """Check the data, and print what was found."""
    from dpo_cli.jobs.check import check
    from dpo_cli.report.check import show_check
    from dpo_cli.report.live import live_view

    with live_view() as view:
        result = check(config, view)
    show_check(result, as_json=as_json)
