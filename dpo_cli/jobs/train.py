"""Train on preference pairs, and show what it changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from dpo_cli.config import DPOTrainingConfig, user_path
from dpo_cli.data.load import open_pairs
from dpo_cli.errors import ConfigError, OutputError
from dpo_cli.events import Noted, OnEvent, ignore
from dpo_cli.jobs.prepare import prepare
from dpo_cli.jobs.run import json_file, json_lines
from dpo_cli.run_folder import result_file, write_file
from dpo_cli.text.questions import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from dpo_cli.config import Recipe
    from dpo_cli.data.load import LoadedPairs, OpenPairs
    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.evaluation.examination import Examination
    from dpo_cli.models.locate import LocatedModel
    from dpo_cli.training.loop import TrainingResult

SHIPPED = "shipped-preferences"
"""The table of a model's preset for the pairs that ship with dpo."""

QUESTIONS_SHOWN = 12
"""Prompts of held-out pairs that are answered before and after."""


_REWARD_KEYS = {"row", "chosen", "rejected", "margin"}
"""Of a line that `--save-rewards` writes, see `evaluation.implicit_rewards.reward_records`."""


@dataclass(frozen=True)
class TrainResult:
    """Everything known about a finished run.

    Attributes:
        config: The settings as they were used.
        preset: Those of them that came from the model's preset.
        recipe: Those that came from a recipe; None without one.
        data: The pairs and where every row went.
        training: What the training loop gave.
        comparison: Before and after on held-out pairs; None when there are none.
        seconds: Stage to wall-clock seconds.
        output_dir: Where everything was written.
        problems: What could not be done once the model was trained, a sentence each.
    """

    config: DPOTrainingConfig
    preset: dict[str, Any]
    data: LoadedPairs
    training: TrainingResult
    comparison: Comparison | None
    seconds: dict[str, float]
    output_dir: Path
    problems: Sequence[str] = ()
    recipe: Recipe | None = None

    def to_json(self) -> dict[str, Any]:
        """The document that `dpo train --json` prints."""
        document: dict[str, Any] = {
            "output_dir": str(self.output_dir),
            "steps": self.training.steps,
            "metrics": self.training.metrics,
            "train": self.training.to_json(),
            "data": self.data.to_json(),
            "preset": self.preset,
            "recipe": None if self.recipe is None else asdict(self.recipe),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "problems": list(self.problems),
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
    job = config.command if config.dataset else SHIPPED
    run = prepare(config, on_event, job=job, reads=_reads)
    config, stages = run.config, run.stages
    opened = open_pairs(_with_shipped_pairs(config))  # a missing file is said before anything is loaded
    rewards_file = _rewards_file(config)
    with stages.stage("loading the libraries"):
        from dpo_cli.evaluation.examination import examine
        from dpo_cli.evaluation.implicit_rewards import reward_records
        from dpo_cli.jobs.asking import (
            ask_settings,
            note_cut_thinking,
            note_system_prompt,
            note_whole_batches,
            questions_with_room,
        )
        from dpo_cli.models.memory import out_of_memory_in_words
    with run.folder, out_of_memory_in_words():
        with stages.stage("reading pairs"):
            data = _read_pairs(opened, config, run.located, on_event)
        heldout = list(data.eval or ())
        if rewards_file is not None and not heldout:
            raise ConfigError(
                "--save-rewards: there are no held-out pairs to write rewards for",
                hint="Give --eval-dataset or --eval-fraction.",
            )
        policy = run.load_policy(data.train)
        system_prompt = ""
        if heldout:
            system_prompt = note_system_prompt(policy[1], config, on_event)
            note_whole_batches(policy[0], on_event)
        questions = questions_with_room(
            policy, questions_from(heldout, system_prompt), system_prompt, on_event
        )
        how: dict[str, Any] = {
            "settings": ask_settings(config, config.truncation),
            "pairs": heldout,
            "on_progress": stages.progress,
        }
        before: Examination | None = None
        if heldout:
            with stages.stage("held-out pairs before"):
                before = examine(policy, questions, name=config.model, **how)
            note_cut_thinking(before.answers, on_event)
        training, trained = run.train(
            policy, data.train, eval_pairs=data.eval, probe=probe_conversation(heldout)
        )
        run.save(training, trained)
        run.write("data.json", lambda: json_file(data.to_json()))
        after: Examination | None = None
        comparison: Comparison | None = None
        if before is not None:
            after, comparison = run.judge(before, training, "held-out pairs after", questions, how)
        result = TrainResult(
            config,
            run.preset,
            data,
            trained,
            comparison,
            stages.seconds,
            run.folder.path,
            run.problems,
            run.recipe,
        )
        with stages.stage("writing"):
            if rewards_file is not None and before is not None and after is not None:
                rewards = reward_records(
                    before.pair_tokens, before.pair_log_probs, after.pair_log_probs, config.beta
                )
                run.attempt("--save-rewards", lambda: write_file(rewards_file, json_lines(rewards)))
            run.report(comparison, write_report and (lambda folder: write_report(folder, result)))
    return result


def _reads(config: DPOTrainingConfig) -> tuple[str | None, ...]:
    """What besides the model may be a file or folder that the run reads from."""
    return config.dataset, config.eval_dataset, config.chat_template


def _read_pairs(
    opened: OpenPairs, config: DPOTrainingConfig, located: LocatedModel, on_event: OnEvent
) -> LoadedPairs:
    """Read the pairs as the model will see them, and say what is to be said about them."""
    from dpo_cli.models.loading import load_tokenizer

    tokenizer = load_tokenizer(located, **config.of_tokenizer)
    data = opened.load(tokenizer, config.truncation, inspect=True, keep_ids=True, on_event=on_event)
    for line in data.summary():
        on_event(Noted(line))
    for finding in data.check.findings if data.check else []:
        on_event(Noted(f"{finding.name} ({finding.count} rows): {finding.advice}"))
    return data


def _rewards_file(config: DPOTrainingConfig) -> Path | None:
    """Where `--save-rewards` goes; what could not be written after training is refused before it."""
    if config.save_rewards is None:
        return None
    file = result_file(config.save_rewards, "--save-rewards", _holds_rewards)
    if user_path(config.output_dir, OutputError).resolve() in file.parents:
        raise OutputError(
            f"--save-rewards {file}: is in the output folder, which is replaced when the run finishes",
            hint="Name a file outside of it.",
        )
    return file


def _holds_rewards(file: Path) -> bool:
    """Whether a file holds what `--save-rewards` writes and nothing else."""
    try:
        with file.open(encoding="utf-8") as lines:
            return all(json.loads(line).keys() == _REWARD_KEYS for line in lines)
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


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


def probe_conversation(pairs: list[dict[str, Any]]) -> list[dict[str, str]] | None:
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
