"""`dpo identity-shift`: give a model a new name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpo_cli.config import IdentityShiftConfig

if TYPE_CHECKING:
    from pathlib import Path

    from dpo_cli.jobs.identity_shift import IdentityShiftResult

SETTINGS = IdentityShiftConfig
HELP = """Give a model a new name, and check that nothing else changed.

dpo asks the model who it is, replaces the name in its answers, and trains it to prefer the new answers over the old.
It asks held-out questions before and after, and gives a verdict.

Offline, with the small model that ships with dpo:

    dpo identity-shift --original-name Qwen --new-name "Deep Qwen"

Any model, with LoRA:

    dpo identity-shift -m Qwen/Qwen2.5-0.5B-Instruct --original-name Qwen --new-name Orion --lora-rank 16
"""


def run(config: IdentityShiftConfig, as_json: bool) -> None:
    """Rename the model, and print before and after."""
    from dpo_cli.jobs.identity_shift import identity_shift
    from dpo_cli.report.live import live_view

    with live_view() as view:
        result = identity_shift(config, view, _write_report)
    from dpo_cli.report.runs import show_identity_shift  # not before: a mistake is told without numpy

    show_identity_shift(result, as_json=as_json)


def _write_report(folder: Path, result: IdentityShiftResult) -> None:
    from dpo_cli.report.runs import write_identity_report

    write_identity_report(folder, result)
