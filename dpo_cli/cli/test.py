"""`dpo test`: ask a model."""

from __future__ import annotations

from dpo_cli.config import AskConfig

SETTINGS = AskConfig
HELP = """Ask a model.

    dpo test -q "What is your name?"
    dpo test -m ./tuned --questions questions.txt --json
    dpo test -m ./tuned --interactive
"""


def run(config: AskConfig, as_json: bool) -> None:
    """Ask, and print the answers."""
    if config.interactive:
        from dpo_cli.report.chat import hold_conversation

        hold_conversation(config)
        return

    from dpo_cli.jobs.compare import ask
    from dpo_cli.report.answers import show_answers
    from dpo_cli.report.live import live_view

    with live_view() as view:
        name, answers = ask(config, view)
    show_answers(name, answers, as_json=as_json)
