"""`dpo identity-shift`: give a model a new name."""

from __future__ import annotations

from dpo_cli.config import IdentityShiftConfig

SETTINGS = IdentityShiftConfig
HELP = """Give a model a new name, and check that nothing else changed.

dpo asks the model who it is, trains it to prefer answers with the new name, asks held-out questions before and after,
and gives a verdict.

Offline, with the small model that ships with dpo:

    dpo identity-shift --original-name Qwen --new-name "Deep Qwen"

Any model, with LoRA:

    dpo identity-shift -m Qwen/Qwen2.5-0.5B-Instruct --original-name Qwen --new-name Orion --lora-rank 16
"""


def run(config: IdentityShiftConfig, as_json: bool) -> None:
    """Rename the model, and print before and after."""
    from dpo_cli.jobs.identity_shift import identity_shift
    from dpo_cli.report.live import live_view
    from dpo_cli.report.runs import show_identity_shift, write_identity_report

    with live_view() as view:
        result = identity_shift(config, view, write_identity_report)
    show_identity_shift(result, as_json=as_json)
