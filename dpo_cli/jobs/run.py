"""What both training jobs share: one training, one end that no report can spoil."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dpo_cli.characters import escaped_json
from dpo_cli.config import DPOTrainingConfig, IdentityShiftConfig, Recipe
from dpo_cli.errors import DpoError, first_line
from dpo_cli.events import Noted
from dpo_cli.redaction import redact
from dpo_cli.run_folder import OutputFolder, disk_in_words, history_text, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.evaluation.examination import Examination
    from dpo_cli.evaluation.scores import Rename
    from dpo_cli.jobs.stages import Stages
    from dpo_cli.models.generate import Message
    from dpo_cli.models.locate import LocatedModel
    from dpo_cli.text.questions import Question
    from dpo_cli.training.learning import DevQuestions
    from dpo_cli.training.loop import Training, TrainingResult

    Policy = tuple[PreTrainedModel, PreTrainedTokenizerBase]


C = TypeVar("C", DPOTrainingConfig, IdentityShiftConfig)
T = TypeVar("T")


@dataclass(frozen=True)
class Run(Generic[C]):
    """A training job, prepared.

    Attributes:
        config: The settings, the preset's and the recipe's included.
        preset: Those of them that came from the model's preset.
        recipe: Those that came from a recipe; None without one.
        located: The model.
        folder: The output folder; the job's work is done inside of it, as a context manager.
        stages: Times what is done.
        problems: What could not be done once the model was trained, a sentence each.
    """

    config: C
    preset: dict[str, Any]
    recipe: Recipe | None
    located: LocatedModel
    folder: OutputFolder
    stages: Stages
    problems: list[str] = field(default_factory=list)

    def load_policy(self, pairs: Dataset | IterableDataset | None = None) -> Policy:
        """Load the model that is trained, see `training.policy.load_policy`."""
        from dpo_cli.training.policy import load_policy

        with self.stages.stage("loading the model"):
            return load_policy(self.located, self.config, pairs=pairs, on_event=self.stages.on_event)

    def train(
        self,
        policy: Policy,
        pairs: Dataset | IterableDataset,
        *,
        eval_pairs: Dataset | None = None,
        probe: list[Message] | None = None,
        dev: DevQuestions | None = None,
    ) -> tuple[Training, TrainingResult]:
        """Train a loaded policy.

        Raises:
            DpoError: As `Training.run`.
        """
        from dpo_cli.training.loop import Probe, Training

        with self.stages.stage("training"):
            training = Training(
                policy,
                self.located,
                self.config,
                pairs,
                eval_pairs=eval_pairs,
                probe=None if probe is None else Probe(probe, self.config.max_new_tokens),
                dev=dev,
                preset=self.preset,
                on_event=self.stages.on_event,
            )
            return training, training.run(self.folder.staging, self.folder.checkpoint)

    def save(
        self,
        training: Training,
        result: TrainingResult,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        """Write the trained model before anything else is done with it, and then how its training went.

        Raises:
            TrainingError: If the disk refuses the model, or its weights are no numbers.
        """
        with training.stop, self.stages.stage("saving the model"):
            training.save(self.folder.staging, tokenizer)
            self.folder.mark_trained()
            if training.saves:
                self.attempt("what is needed to go on", lambda: self._keep(training, result))
            self.write("metrics.jsonl", lambda: history_text(result.history))
            training.stop.obey()

    def _keep(self, training: Training, result: TrainingResult) -> None:
        training.keep(self.folder.staging, result)
        self.folder.drop_checkpoints()

    def judge(
        self,
        before: Examination,
        training: Training,
        stage: str,
        questions: Sequence[Question],
        how: Mapping[str, Any],
        *,
        names: Rename | None = None,
    ) -> tuple[Examination | None, Comparison | None]:
        """Ask the trained model what was asked before, and compare; what fails costs nothing but itself.

        Args:
            before: The examination of the model before training.
            training: The training, done.
            stage: What asking again is called.
            questions: Those of `before`.
            how: The arguments that `examine` was called with, besides model, questions and name.
            names: The old name and the new one, where there are such.
        """
        from dpo_cli.evaluation.compare import compare_examinations
        from dpo_cli.evaluation.examination import examine
        from dpo_cli.jobs.asking import thresholds_of

        policy, name = (training.model, training.tokenizer), str(self.folder.path)
        with self.stages.stage(stage):
            after = self.attempt(stage, lambda: examine(policy, questions, name=name, before=before, **how))
            if after is not None and names is not None:
                after = self.attempt(stage, lambda: self._read_back(before, after)) or after
        if after is None:
            return None, None
        thresholds = thresholds_of(self.config)
        return after, self.attempt(
            "the comparison",
            lambda: compare_examinations(
                before, after, names=names, beta=self.config.beta, thresholds=thresholds
            ),
        )

    def _read_back(self, before: Examination, after: Examination) -> Examination:
        """Load the model before once more, which training has changed, and let it read the new answers."""
        from dpo_cli.evaluation.damage import read_back
        from dpo_cli.models.loading import load_model

        config = self.config
        model = load_model(
            self.located,
            dtype=config.dtype,
            device=config.device,
            trust_remote_code=config.trust_remote_code,
        )
        return read_back(model, before, after, batch_size=config.generation_batch_size)

    def report(self, comparison: Comparison | None, write_report: Callable[[Path], None] | None) -> None:
        """Write the comparison, and what is made to be read by people, if there is somebody who makes it."""
        if comparison is not None:
            self.write("comparison.json", lambda: json_file(comparison.to_json()))
        if write_report is not None:
            self.attempt("report.html and README.md", lambda: write_report(self.folder.staging))

    def write(self, name: str, text: Callable[[], str]) -> None:
        """Write a file of the output folder, or say that it could not be written."""
        self.attempt(name, lambda: write_file(self.folder.staging / name, text()))

    def attempt(self, what: str, step: Callable[[], T]) -> T | None:
        """Do something after training. If it fails, the run goes on: that is a line, and noted in the result.

        Args:
            what: What it makes or does, as the subject of a message.
            step: Does it.

        Returns:
            What `step` returned; None if it failed.
        """
        from dpo_cli.models.memory import out_of_memory_in_words

        try:
            with out_of_memory_in_words(), disk_in_words(what, self.folder.path):
                return step()
        except DpoError as error:
            self._note(f"{what}: {error.message}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the trained model
            log = self.folder.staging / "errors.log"
            self._note(f"{what}: {type(error).__name__}: {first_line(error)} (see {log.name})")
            with log.open("a", encoding="utf-8") as file:
                file.write(redact("".join(traceback.format_exception(error))))
        return None

    def _note(self, problem: str) -> None:
        self.problems.append(problem)
        self.stages.on_event(Noted(f"failed after training, {problem}"))


def json_lines(records: Iterable[Any]) -> str:
    """One JSON document a line."""
    return "".join(escaped_json(json.dumps(record, ensure_ascii=False)) + "\n" for record in records)


def json_file(document: Any) -> str:  # noqa: ANN401 - anything JSON can hold
    """A JSON document as the text of a file."""
    return escaped_json(json.dumps(document, indent=2, ensure_ascii=False)) + "\n"
