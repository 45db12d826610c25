"""Train on preference pairs, and show what it changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from dpo_cli.config import DPOTrainingConfig, apply_preset, user_path
from dpo_cli.data.load import open_pairs
from dpo_cli.errors import ConfigError, OutputError
from dpo_cli.events import Noted, OnEvent, ignore
from dpo_cli.jobs.files import write_run_files
from dpo_cli.jobs.stages import Stages
from dpo_cli.models.locate import LocatedModel, locate_policy, read_preset
from dpo_cli.text.questions import Question
from dpo_cli.training.one_process import refuse_several_processes
from dpo_cli.training.output import OutputFolder, model_folders
from dpo_cli.training.trackers import require_trackers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from dpo_cli.data.load import LoadedPairs, OpenPairs
    from dpo_cli.evaluation.compare import Comparison, Examination
    from dpo_cli.training.trainer import TrainingResult

SHIPPED = "shipped-preferences"
"""The table of a model's preset for the pairs that ship with dpo."""

QUESTIONS_SHOWN = 12
"""Prompts of held-out pairs that are answered before and after."""


@dataclass(frozen=True)
class TrainResult:
    """Everything known about a finished run.

    Attributes:
        config: The settings as they were used.
        preset: Those of them that came from the model's preset.
        data: The pairs and where every row went.
        training: What the training loop gave.
        comparison: Before and after on held-out pairs; None when there are none.
        seconds: Stage to wall-clock seconds.
        output_dir: Where everything was written.
    """

    config: DPOTrainingConfig
    preset: dict[str, Any]
    data: LoadedPairs
    training: TrainingResult
    comparison: Comparison | None
    seconds: dict[str, float]
    output_dir: Path

    def to_json(self) -> dict[str, Any]:
        """The document that `dpo train --json` prints."""
        document: dict[str, Any] = {
            "output_dir": str(self.output_dir),
            "steps": self.training.steps,
            "metrics": self.training.metrics,
            "train": self.training.to_json(),
            "data": self.data.to_json(),
            "preset": self.preset,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }
        if self.comparison is not None:
            document |= {
                "comparison": self.comparison.to_json(),
                "verdict": self.comparison.to_json()["verdict"],
            }
        return document


def shipped_pairs(part: str) -> str:
    """Path of the preference pairs that ship with dpo: `part` is "train" or "heldout"."""
    return str(resources.files("dpo_cli.data") / "preferences" / f"{part}.jsonl")


def train(
    config: DPOTrainingConfig,
    on_event: OnEvent = ignore,
    write_report: Callable[[Path, TrainResult], None] | None = None,
) -> TrainResult:
    """Read the pairs, account for every row, train, score held-out pairs before and after, write the folder.

    Args:
        config: The settings.
        on_event: Called with each event, see `dpo_cli.events`.
        write_report: Called with the unfinished output folder and the result, to add report and model card.

    Raises:
        UserError: If a setting, the model, the data or the output folder is wrong; nothing has been written then.
        TrainingError: If the run could not finish.
    """
    refuse_several_processes()
    require_trackers(config.report_to)
    located = locate_policy(config)
    job = config.command if config.dataset else SHIPPED
    preset, origin = read_preset(located, job, lora=config.lora_rank is not None)
    config, preset = apply_preset(config, preset, origin)
    opened = open_pairs(_with_shipped_pairs(config))  # a missing file is said before anything is loaded
    folder = OutputFolder(
        config.output_dir, config, overwrite=config.overwrite, inputs=model_folders(located)
    )
    stages = Stages(on_event)
    with stages.stage("loading the libraries"):
        from dpo_cli.evaluation.compare import compare_examinations, examine
        from dpo_cli.evaluation.implicit_rewards import reward_records
        from dpo_cli.jobs.asking import ask_settings, note_system_prompt, thresholds_of
        from dpo_cli.models.memory import out_of_memory_in_words
        from dpo_cli.training.policy import load_policy
        from dpo_cli.training.trainer import DPOTrainerWrapper
    with folder, out_of_memory_in_words():
        with stages.stage("reading pairs"):
            data = _read_pairs(opened, config, located, on_event)
        with stages.stage("loading the model"):
            loaded = load_policy(located, config, pairs=data.train, on_event=on_event)
        heldout = list(data.eval or ())
        _check_rewards_file(config, heldout)
        system_prompt = note_system_prompt(loaded[1], config, on_event) if heldout else ""
        questions = questions_from(heldout, system_prompt)
        how: dict[str, Any] = {
            "settings": ask_settings(config, config.truncation),
            "pairs": heldout,
        }
        how["on_progress"] = stages.progress
        before: Examination | None = None
        if heldout:
            with stages.stage("held-out pairs before"):
                before = examine(loaded, questions, name=config.model, **how)
        with stages.stage("training"):
            trainer = DPOTrainerWrapper(
                config.model,
                train_dataset=data.train,
                eval_dataset=data.eval,
                training_config=config,
                loaded=loaded,
                probe=questions_prompt(heldout),
                preset=preset,
                on_event=on_event,
            )
            training = trainer.train(into=folder.staging)
        comparison = None
        if before is not None:
            with stages.stage("held-out pairs after"):
                after = examine(
                    (trainer.model, trainer.tokenizer), questions, name=str(folder.path), before=before, **how
                )
            comparison = compare_examinations(
                before, after, beta=config.beta, thresholds=thresholds_of(config)
            )
        result = TrainResult(config, preset, data, training, comparison, stages.seconds, folder.path)
        with stages.stage("writing"):
            trainer.write_model(folder.staging)
            write_run_files(folder.staging, training, comparison)
            (folder.staging / "data.json").write_text(
                json.dumps(data.to_json(), indent=2) + "\n", encoding="utf-8"
            )
            if write_report:
                write_report(folder.staging, result)
            if config.save_rewards and before is not None:
                rewards = reward_records(
                    before.pair_tokens, before.pair_log_probs, after.pair_log_probs, config.beta
                )
                write_rewards(user_path(config.save_rewards, OutputError), rewards)
    return result


def _read_pairs(
    opened: OpenPairs, config: DPOTrainingConfig, located: LocatedModel, on_event: OnEvent
) -> LoadedPairs:
    """Read the pairs as the model will see them, and say what is to be said about them."""
    from dpo_cli.models.loading import load_tokenizer

    tokenizer = load_tokenizer(
        located, trust_remote_code=config.trust_remote_code, chat_template=config.chat_template
    )
    data = opened.load(tokenizer, config.truncation, inspect=True, on_event=on_event)
    for line in data.summary():
        on_event(Noted(line))
    for finding in data.check.findings if data.check else []:
        on_event(Noted(f"{finding.name} ({finding.count} rows): {finding.advice}"))
    return data


def write_rewards(file: Path, records: Iterable[dict[str, float]]) -> None:
    """Write implicit rewards, one JSON object a line.

    Raises:
        OutputError: If the file cannot be written.
    """
    text = "".join(json.dumps(record) + "\n" for record in records)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--save-rewards {file}: cannot be written ({error.strerror})") from None


def _check_rewards_file(config: DPOTrainingConfig, heldout: list[dict[str, Any]]) -> None:
    """Refuse before training what could not be written after it."""
    if config.save_rewards is None:
        return
    if not heldout:
        raise ConfigError(
            "--save-rewards: there are no held-out pairs whose rewards could be written",
            hint="Give --eval-dataset or --eval-fraction.",
        )
    file = user_path(config.save_rewards, OutputError)
    if user_path(config.output_dir, OutputError).resolve() in file.resolve().parents:
        raise OutputError(
            f"--save-rewards {file}: is in the output folder, which is replaced when the run is done",
            hint="Name a file outside of it.",
        )
    if file.is_dir() or not file.parent.is_dir():
        what = "is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise OutputError(f"--save-rewards {file}: {what}")


def questions_from(pairs: Iterable[dict[str, Any]], system_prompt: str) -> list[Question]:
    """Prompts of held-out pairs that are a single question, to be answered before and after.

    A prompt of several turns, or with another system prompt than questions are asked with, is no question that can be
    asked alone.

    Args:
        pairs: In TRL's layout.
        system_prompt: Of every question.
    """
    questions: list[Question] = []
    for pair in pairs:
        turns = pair["prompt"] if isinstance(pair["prompt"], list) else []
        if len(turns) > 1 and turns[0] == {"role": "system", "content": system_prompt}:
            turns = turns[1:]
        if len(turns) == 1 and turns[0]["role"] == "user":
            questions.append(Question(turns[0]["content"], "held-out prompts"))
        if len(questions) == QUESTIONS_SHOWN:
            break
    return questions


def questions_prompt(pairs: list[dict[str, Any]]) -> list[dict[str, str]] | None:
    """The conversation that is put to the model while it trains: the first held-out one."""
    return pairs[0]["prompt"] if pairs and isinstance(pairs[0]["prompt"], list) else None


def _with_shipped_pairs(config: DPOTrainingConfig) -> DPOTrainingConfig:
    """The settings; where no data set is named, with the pairs that ship and their held-out part."""
    if config.dataset is not None:
        return config
    shipped = {"dataset": shipped_pairs("train")}
    if config.eval_dataset is None and not config.eval_fraction:
        shipped["eval_dataset"] = shipped_pairs("heldout")
    return config.model_copy(update=shipped)
