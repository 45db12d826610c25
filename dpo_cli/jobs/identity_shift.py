"""Give a model a new name, and show that it has it and that nothing else changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.config import DPOTrainingConfig, IdentityShiftConfig, apply_preset
from dpo_cli.events import Noted, OnEvent, ignore
from dpo_cli.jobs.files import write_pairs, write_run_files
from dpo_cli.jobs.stages import Stages
from dpo_cli.models.locate import locate_policy, read_preset
from dpo_cli.synthesis.identity import IdentityPairs, make_identity_pairs, questions_in
from dpo_cli.synthesis.template_name import TemplateRename, rename_in_template
from dpo_cli.text.questions import Question, read_questions, shipped_questions
from dpo_cli.training.one_process import refuse_several_processes
from dpo_cli.training.output import OutputFolder, model_folders
from dpo_cli.training.trackers import require_trackers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.training.trainer import TrainingResult


@dataclass(frozen=True)
class IdentityShiftResult:
    """Everything known about a finished run.

    Attributes:
        config: The settings as they were used.
        preset: Those of them that came from the model's preset.
        pairs: The pairs and what became of every answer.
        training: What the training loop gave.
        comparison: Before and after, with scores and verdict.
        template_renamed: How often the chat template itself said the old name.
        seconds: Stage to wall-clock seconds.
        output_dir: Where everything was written.
    """

    config: IdentityShiftConfig
    preset: dict[str, Any]
    pairs: IdentityPairs
    training: TrainingResult
    comparison: Comparison
    template_renamed: int
    seconds: dict[str, float]
    output_dir: Path

    def to_json(self) -> dict[str, Any]:
        """The document that `dpo identity-shift --json` prints."""
        return self.comparison.to_json() | {
            "pairs": self.pairs.to_json(),
            "train": self.training.to_json(),
            "preset": self.preset,
            "chat_template_renamed": self.template_renamed,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "output_dir": str(self.output_dir),
        }


def identity_shift(
    config: IdentityShiftConfig,
    on_event: OnEvent = ignore,
    write_report: Callable[[Path, IdentityShiftResult], None] | None = None,
) -> IdentityShiftResult:
    """Ask the model, replace the name, train on old against new, ask again, write the output folder.

    Args:
        config: The settings.
        on_event: Called with each event, see `dpo_cli.events`.
        write_report: Called with the unfinished output folder and the result, to add report and model card.

    Raises:
        UserError: If a setting, the model, the questions or the output folder is wrong, or too few answers
            say the name; nothing has been written then.
        TrainingError: If the run could not finish.
    """
    refuse_several_processes()
    require_trackers(config.report_to)
    located = locate_policy(config)
    preset, origin = read_preset(located, config.command, lora=config.lora_rank is not None)
    config, preset = apply_preset(config, preset, origin)
    asked = _questions(config)
    heldout = _heldout(asked)

    folder = OutputFolder(
        config.output_dir, config, overwrite=config.overwrite, inputs=model_folders(located)
    )
    stages = Stages(on_event)
    with stages.stage("loading the libraries"):
        from dpo_cli.evaluation.compare import compare_examinations, examine
        from dpo_cli.evaluation.scores import Names
        from dpo_cli.jobs.asking import ask_settings, note_system_prompt, thresholds_of
        from dpo_cli.models.generate import conversation
        from dpo_cli.models.memory import out_of_memory_in_words
        from dpo_cli.training.policy import load_policy
        from dpo_cli.training.trainer import DPOTrainerWrapper
    with folder, out_of_memory_in_words():
        with stages.stage("loading the model"):
            loaded = load_policy(located, config, on_event=on_event)
        system_prompt = note_system_prompt(loaded[1], config, on_event)
        with stages.stage("asking who it is"):
            pairs = make_identity_pairs(
                *loaded,
                [q.text for q in asked],
                config.original_name,
                config.new_name,
                system_prompt=config.system_prompt,
                max_new_tokens=config.max_new_tokens,
                batch_size=config.generation_batch_size,
                samples_per_question=config.samples_per_question,
                temperature=config.temperature,
                answer_template=config.answer_template,
                seed=config.seed,
                on_progress=stages.progress,
            )
            pairs.require(config.min_pairs)
        on_event(Noted(pairs.summary()))
        how: dict[str, Any] = {
            "settings": ask_settings(config),
            "on_progress": stages.progress,
        }
        with stages.stage("asking before"):
            before = examine(loaded, heldout, name=config.model, **how)
        with stages.stage("training"):
            trainer = DPOTrainerWrapper(
                config.model,
                train_dataset=pairs.dataset,
                training_config=_training_config(config),
                loaded=loaded,
                probe=conversation(heldout[0].text, system_prompt),
                preset=preset,
                on_event=on_event,
            )
            training = trainer.train(into=folder.staging)
        with stages.stage("asking after"):
            after = examine(
                (trainer.model, trainer.tokenizer), heldout, name=str(folder.path), before=before, **how
            )
        names = Names(config.original_name, config.new_name)
        comparison = compare_examinations(
            before, after, names=names, beta=config.beta, thresholds=thresholds_of(config)
        )
        renamed = (
            TemplateRename(0)
            if config.keep_template
            else rename_in_template(trainer.tokenizer, config.original_name, config.new_name)
        )
        if renamed.left:
            on_event(
                Noted(f"The chat template says {config.original_name} and is left as it is: {renamed.left}.")
            )
        result = IdentityShiftResult(
            config, preset, pairs, training, comparison, renamed.count, stages.seconds, folder.path
        )
        with stages.stage("writing"):
            trainer.write_model(folder.staging)
            write_run_files(folder.staging, training, comparison)
            write_pairs(folder.staging, pairs.dataset)
            if write_report:
                write_report(folder.staging, result)
    return result


def _training_config(config: IdentityShiftConfig) -> DPOTrainingConfig:
    shared = DPOTrainingConfig.model_fields.keys() & IdentityShiftConfig.model_fields.keys()
    return DPOTrainingConfig(**{name: getattr(config, name) for name in shared - {"max_samples"}})


def _questions(config: IdentityShiftConfig) -> list[Question]:
    if config.questions is not None:
        questions = read_questions(config.questions)
    elif config.identity_dataset is not None:
        questions = [Question(text, "identity") for text in questions_in(config.identity_dataset)]
    else:
        questions = shipped_questions("identity_train")
    return questions[: config.max_samples]


def _heldout(asked: list[Question]) -> list[Question]:
    """Identity questions that no pair is made from, and ordinary ones."""
    trained = {question.text.casefold() for question in asked}
    identity = [q for q in shipped_questions("identity_heldout") if q.text.casefold() not in trained]
    return [*identity, *shipped_questions("ordinary")]
