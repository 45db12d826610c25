"""Compare two models, and ask one: what is asked when nothing is said, and of whom."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.config import EMBEDDED, CompareConfig, TestConfig
from dpo_cli.data.questions import Question, read_questions, shipped_questions
from dpo_cli.errors import ConfigError, DataError
from dpo_cli.events import OnEvent, ignore
from dpo_cli.jobs.stages import Stages
from dpo_cli.models.locate import locate_model

if TYPE_CHECKING:
    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.evaluation.scores import Answer

LAST_RUN = "./dpo_output"
"""Where `train` and `identity-shift` write unless told otherwise."""

FIRST_QUESTIONS = 6
"""Questions that `dpo test` asks when none is given."""


@dataclass(frozen=True)
class Run:
    """What an output folder says of the run that wrote it; empty for a model that dpo did not write."""

    settings: dict[str, Any]

    def text(self, key: str) -> str | None:
        """A setting that is a string."""
        value = self.settings.get(key)
        return value if isinstance(value, str) and value else None


def recorded_run(model: str) -> Run:
    """Read the `config.toml` beside a model, if dpo wrote one."""
    try:
        return Run(tomllib.loads((Path(model).expanduser() / "config.toml").read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return Run({})


def ask(config: TestConfig, on_event: OnEvent = ignore) -> tuple[str, list[Answer]]:
    """Ask one model.

    Returns:
        The model's name, and its answers in the order of the questions.

    Raises:
        UserError: If the model or the questions file is wrong.
    """
    name = model_to_test(config)
    questions = (
        _given(config.question, config.questions) or shipped_questions("identity_heldout")[:FIRST_QUESTIONS]
    )
    locate_model(name, revision=config.model_revision)
    stages = Stages(on_event)
    with stages.stage("loading the model"):
        from dpo_cli.evaluation.compare import answer_questions
        from dpo_cli.jobs.asking import ask_settings
        from dpo_cli.models.loading import load_model_and_tokenizer

        loaded = load_model_and_tokenizer(name, revision=config.model_revision, **_loading(config))
    with stages.stage("asking"):
        return name, answer_questions(*loaded, questions, ask_settings(config), on_progress=stages.progress)


def model_to_test(config: TestConfig) -> str:
    """The model that was named, else the last run's, else the embedded one."""
    return config.model or (LAST_RUN if Path(LAST_RUN).is_dir() else EMBEDDED)


def compare(config: CompareConfig, on_event: OnEvent = ignore) -> Comparison:
    """Compare two models, loaded one after the other.

    What is not said is taken from the run that wrote `after`: the base, the names, the held-out pairs, beta.

    Raises:
        UserError: If a model, the questions or the pairs are wrong.
    """
    after = config.after or LAST_RUN
    if config.after is None and not Path(LAST_RUN).is_dir():
        raise ConfigError(
            f"--after: is needed, there is no {LAST_RUN} here", hint="Train first, or name two models."
        )
    run = recorded_run(after)
    before = config.before or run.text("model") or locate_model(after).weights.name
    for name in (before, after):
        locate_model(name)
    old, new = _names(config, run)
    questions = _given(config.question, config.questions) or _general(old)
    pairs = config.pairs or _heldout_of(run)
    given = config.model_fields_set

    stages = Stages(on_event)
    with stages.stage("loading the libraries"):
        from dpo_cli.data.load import load_pairs
        from dpo_cli.evaluation.compare import run_comparison
        from dpo_cli.evaluation.scores import Names
        from dpo_cli.jobs.asking import ask_settings, thresholds_of
        from dpo_cli.models.loading import load_model_and_tokenizer
    loaded_pairs = list(load_pairs(pairs).train) if pairs else []
    with stages.stage("comparing"):
        return run_comparison(
            before,
            after,
            questions,
            load=lambda name: load_model_and_tokenizer(name, **_loading(config)),
            settings=ask_settings(config, max_length=config.max_length),
            pairs=loaded_pairs,
            names=Names(old, new) if old and new else None,
            beta=config.beta if "beta" in given else float(run.settings.get("beta", config.beta)),
            thresholds=thresholds_of(config),
            on_progress=lambda _, done, total: stages.progress(done, total),
        )


def _given(texts: tuple[str, ...], file: str | None) -> list[Question]:
    if any(not text.strip() for text in texts):
        raise DataError("--question: is empty")
    return [Question(text) for text in texts] + (read_questions(file) if file else [])


def _names(config: CompareConfig, run: Run) -> tuple[str | None, str | None]:
    old, new = config.original_name, config.new_name
    if (old is None) != (new is None):
        raise ConfigError("--original-name and --new-name: give both or none")
    return (old, new) if old else (run.text("original_name"), run.text("new_name"))


def _general(old_name: str | None) -> list[Question]:
    ordinary = shipped_questions("ordinary")
    return [*shipped_questions("identity_heldout"), *ordinary] if old_name else ordinary


def _heldout_of(run: Run) -> str | None:
    """The held-out pairs of a `dpo train` run: its own, or the shipped ones if it trained on those."""
    if "original_name" in run.settings or not run.settings:
        return None
    from dpo_cli.jobs.train import shipped_pairs

    return run.text("eval_dataset") or (None if run.text("dataset") else shipped_pairs("heldout"))


def _loading(config: CompareConfig | TestConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("dtype", "device", "trust_remote_code", "chat_template")}
