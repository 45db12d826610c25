"""Give a model a new name, and show that it has it and that nothing else changed."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.errors import ConfigError
from dpo_cli.events import Noted, OnEvent, ignore
from dpo_cli.jobs.dev_questions import dev_questions
from dpo_cli.jobs.prepare import prepare
from dpo_cli.jobs.run import json_lines
from dpo_cli.synthesis.anchors import anchor_texts
from dpo_cli.synthesis.identity import questions_in
from dpo_cli.synthesis.rename import RenameSettings, make_rename_pairs
from dpo_cli.synthesis.system_prompts import system_prompts
from dpo_cli.synthesis.template_name import rename_in_template
from dpo_cli.text.questions import Question, read_questions, shipped_questions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from dpo_cli.config import IdentityShiftConfig, Recipe
    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.jobs.run import Policy
    from dpo_cli.jobs.stages import Stages
    from dpo_cli.synthesis.identity_pairs import IdentityPairs
    from dpo_cli.training.loop import TrainingResult


@dataclass(frozen=True)
class IdentityShiftResult:
    """Everything known about a finished run.

    Attributes:
        config: The settings as they were used.
        preset: Those of them that came from the model's preset.
        recipe: Those that came from a recipe; None without one.
        pairs: The pairs and what became of every answer.
        training: What the training loop gave.
        comparison: Before and after, with scores and verdict; None when the trained model could not be asked.
        template_renamed: How often the chat template itself said the old name.
        seconds: Stage to wall-clock seconds.
        output_dir: Where everything was written.
        problems: What could not be done once the model was trained, a sentence each.
    """

    config: IdentityShiftConfig
    preset: dict[str, Any]
    pairs: IdentityPairs
    training: TrainingResult
    comparison: Comparison | None
    template_renamed: int
    seconds: dict[str, float]
    output_dir: Path
    problems: Sequence[str] = ()
    recipe: Recipe | None = None

    def to_json(self) -> dict[str, Any]:
        """The document that `dpo identity-shift --json` prints."""
        compared = {} if self.comparison is None else self.comparison.to_json()
        return compared | {
            "pairs": self.pairs.to_json(),
            "train": self.training.to_json(),
            "preset": self.preset,
            "recipe": None if self.recipe is None else asdict(self.recipe),
            "chat_template_renamed": self.template_renamed,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "output_dir": str(self.output_dir),
            "problems": list(self.problems),
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
    run = prepare(config, on_event, job=config.command, reads=_reads)
    config, stages = run.config, run.stages
    asked = _questions(config)
    anchors = _anchor_prompts(config, asked)
    heldout = _heldout([*asked, *anchors])
    with stages.stage("loading the libraries"):
        from dpo_cli.evaluation.examination import examine
        from dpo_cli.evaluation.scores import Rename
        from dpo_cli.jobs.asking import (
            ask_settings,
            note_cut_thinking,
            note_system_prompt,
            note_thinking,
            note_whole_batches,
        )
        from dpo_cli.models.generate import conversation
        from dpo_cli.models.memory import out_of_memory_in_words
    with run.folder, out_of_memory_in_words():
        policy = run.load_policy()
        system_prompt = note_system_prompt(policy[1], config, on_event)
        note_whole_batches(policy[0], on_event)
        note_thinking(policy[1], on_event)
        with stages.stage("asking who it is"):
            pairs = _make_pairs(config, policy, asked, anchors, stages)
        on_event(Noted(f"{_capital(pairs.choice)}; {pairs.summary()}"))
        heldout = _spread(config, policy[1], heldout)
        how: dict[str, Any] = {
            "settings": ask_settings(config),
            "on_progress": stages.progress,
        }
        with stages.stage("asking before"):
            before = examine(policy, heldout, name=config.model, **how)
        note_cut_thinking(before.answers, on_event)
        tokenizer, renamed = _with_new_name(config, policy[1], on_event)
        dev = dev_questions(config, system_prompt, [question.text for question in [*asked, *anchors]])
        training, trained = run.train(
            (policy[0], tokenizer),
            pairs.dataset,
            probe=conversation(heldout[0].text, system_prompt),
            dev=dev,
        )
        run.save(training, trained)
        run.write("pairs.jsonl", lambda: json_lines(pairs.dataset))
        names = Rename(config.original_name, config.new_name)
        _, comparison = run.judge(before, training, "asking after", heldout, how, names=names)
        result = IdentityShiftResult(
            config, run.preset, pairs, trained, comparison, renamed, stages.seconds, run.folder.path, run.problems, run.recipe,
        )  # fmt: skip
        with stages.stage("writing"):
            run.report(comparison, write_report and (lambda folder: write_report(folder, result)))
    return result


def _reads(config: IdentityShiftConfig) -> tuple[str | None, ...]:
    """What besides the model may be a file or folder that the run reads from."""
    return config.questions, config.identity_dataset, config.anchor_prompts, config.chat_template


def _make_pairs(
    config: IdentityShiftConfig,
    policy: Policy,
    asked: list[Question],
    anchors: list[Question],
    stages: Stages,
) -> IdentityPairs:
    settings = RenameSettings(
        system_prompt=config.system_prompt,
        pairs_from=config.pairs_from,
        anchors=_anchors(config),
        anchor_prompts=[question.text for question in anchors],
        max_new_tokens=config.max_new_tokens,
        batch_size=config.generation_batch_size,
        samples_per_question=config.samples_per_question,
        temperature=config.temperature,
        answer_template=config.answer_template,
        seed=config.seed,
        least=config.min_pairs,
        spread=_has_sft(config),
    )
    texts = [question.text for question in asked]
    names = config.original_name, config.new_name
    pairs = make_rename_pairs(*policy, texts, names, settings, on_progress=stages.progress)
    pairs.require(config.min_pairs)
    return pairs


def _anchors(config: IdentityShiftConfig) -> int | None:
    """How many anchors there shall be; None for the default number.

    An anchor makes the new name less likely. An SFT term holds it where it belongs; a loss without one gets no anchors
    unless they are asked for.
    """
    if config.anchors is None and config.anchor_prompts is None and not _has_sft(config):
        return 0
    return config.anchors


def _has_sft(config: IdentityShiftConfig) -> bool:
    """Whether the loss raises the chosen answers themselves: then pairs may be of several kinds and system prompts."""
    return "sft" in config.loss_type


def _anchor_prompts(config: IdentityShiftConfig, asked: list[Question]) -> list[Question]:
    """Ordinary prompts to which the model keeps its own answers.

    Raises:
        ConfigError: If there are fewer than --anchors wants.
    """
    if _anchors(config) == 0:
        return []
    if config.anchor_prompts is None:
        prompts = shipped_questions("anchors")
    else:
        prompts = read_questions(config.anchor_prompts)
    texts = anchor_texts(
        [prompt.text for prompt in prompts], config.original_name, taken=[question.text for question in asked]
    )
    if config.anchors is not None and config.anchors > len(texts):
        raise ConfigError(
            f"--anchors {config.anchors:,}: there are prompts for {len(texts):,}",
            hint="Give more of them with --anchor-prompts FILE, or a smaller number.",
        )
    if not texts:
        raise ConfigError(
            f"--anchor-prompts {config.anchor_prompts}: every prompt in it is an identity question of this run",
            hint="Anchors need ordinary prompts; --anchors 0 does without.",
        )
    return [Question(text, "anchors") for text in texts]


def _spread(
    config: IdentityShiftConfig, tokenizer: PreTrainedTokenizerBase, heldout: list[Question]
) -> list[Question]:
    """Held-out questions, those about identity under several system prompts."""
    prompts = system_prompts(tokenizer, config.system_prompt, config.original_name, config.new_name)
    identity = [question for question in heldout if question.group == "identity"]
    return [*prompts.spread(identity), *heldout[len(identity) :]]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_new_name(
    config: IdentityShiftConfig, tokenizer: PreTrainedTokenizerBase, on_event: OnEvent
) -> tuple[PreTrainedTokenizerBase, int]:
    """The tokenizer to train and go on with, and how often its template said the old name; the other one is left."""
    if config.keep_template:
        return tokenizer, 0
    saved = copy.deepcopy(tokenizer)
    renamed = rename_in_template(saved, config.original_name, config.new_name)
    if renamed.left:
        on_event(
            Noted(f"The chat template says {config.original_name} and is left as it is: {renamed.left}.")
        )
    return saved, renamed.count


def _questions(config: IdentityShiftConfig) -> list[Question]:
    if config.questions is not None:
        questions = read_questions(config.questions)
    elif config.identity_dataset is not None:
        questions = [Question(text, "identity") for text in questions_in(config.identity_dataset)]
    else:
        questions = shipped_questions("identity_train")
    return questions[: config.max_samples]


def _heldout(trained: list[Question]) -> list[Question]:
    """Identity questions that no pair is made from, and then ordinary ones."""
    texts = {question.text.casefold() for question in trained}
    questions = [*shipped_questions("identity_heldout"), *shipped_questions("ordinary")]
    return [question for question in questions if question.text.casefold() not in texts]
