"""`dpo compare`: two models side by side."""

from __future__ import annotations

from dpo_cli.config import CompareConfig

SETTINGS = CompareConfig
HELP = """Compare two models side by side, with scores and a verdict.

The models are loaded one after the other and asked the same questions. With no flags, the model of the last run
is compared with the one it was trained from.

    dpo compare
    dpo compare --before embedded --after ./dpo_output -q "Who are you?"
    dpo compare --before ./a --after ./b --pairs heldout.jsonl --html report.html --json
"""


def run(config: CompareConfig, as_json: bool) -> None:
    """Compare, and print the scores."""
    from dpo_cli.jobs.compare import compare
    from dpo_cli.report.live import live_view
    from dpo_cli.report.runs import comparison_file, show_compare

    html = comparison_file(config.html)
    with live_view() as view:
        comparison = compare(config, view)
    show_compare(comparison, html=html, as_json=as_json)
