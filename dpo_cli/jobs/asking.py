"""From settings to how models are asked and judged, for every job alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpo_cli.evaluation.examination import DEFAULT_TRUNCATION, AskSettings
from dpo_cli.evaluation.verdict import CHECKS
from dpo_cli.events import Noted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.config import GenerationConfig, Settings, Truncation
    from dpo_cli.evaluation.scores import Answer
    from dpo_cli.events import OnEvent
    from dpo_cli.text.questions import Question

    Policy = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def ask_settings(config: GenerationConfig, truncation: Truncation = DEFAULT_TRUNCATION) -> AskSettings:
    """How to ask, as `config` says, and how held-out pairs are cut."""
    return AskSettings(
        system_prompt=config.system_prompt,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.generation_batch_size,
        truncation=truncation,
    )


def note_system_prompt(
    tokenizer: PreTrainedTokenizerBase, config: GenerationConfig, on_event: OnEvent
) -> str:
    """The system prompt that this model is asked with; says so where that is none because its template has no place for one."""
    from dpo_cli.models.generate import accepted_system_prompt

    prompt = accepted_system_prompt(tokenizer, config.system_prompt)
    if prompt != config.system_prompt:
        on_event(
            Noted(
                "The chat template has no place for system messages: asked without the default system prompt"
            )
        )
    return prompt


def note_whole_batches(model: PreTrainedModel, on_event: OnEvent) -> None:
    """Say where answers of a model cannot make room for each other."""
    from dpo_cli.models.continuous_batching import reason_against

    if reason := reason_against(model):
        on_event(Noted(f"Answers are generated in whole batches, which takes longer: {reason}"))


def note_thinking(tokenizer: PreTrainedTokenizerBase, on_event: OnEvent) -> None:
    """Say where a model that thinks is asked otherwise than it is trained, because its template leaves thinking out."""
    from dpo_cli.models.templates import options_of
    from dpo_cli.models.thinking import cuts_thinking, opens_thinking

    keeps = options_of(tokenizer).keeps_thinking
    if not (keeps or opens_thinking(tokenizer)) or not cuts_thinking(tokenizer):
        return
    why = "The chat template leaves thinking out of the answers that are trained on"
    on_event(
        Noted(
            f"{why}, so none is kept"
            if keeps
            else f"{why}, and asks for it; --thinking off asks as is trained"
        )
    )


def note_cut_thinking(answers: Sequence[Answer], on_event: OnEvent) -> None:
    """Say how many answers ended before they began, in the thinking that comes before."""
    if cut := sum(one.cut_while_thinking for one in answers):
        on_event(
            Noted(
                f"{cut} of {len(answers)} answers were cut off while thinking and count as empty:"
                " give a larger --max-new-tokens, or --thinking off"
            )
        )


def questions_with_room(
    policy: Policy, questions: list[Question], system_prompt: str, on_event: OnEvent
) -> list[Question]:
    """Those questions that leave the model a position for an answer; says how many do not."""
    from dpo_cli.models.generate import conversation, prompt_ids
    from dpo_cli.models.positions import positions_in

    positions = positions_in(policy[0])
    if positions is None:
        return questions
    prompts = prompt_ids(policy[1], [conversation(one.text, system_prompt) for one in questions])
    asked = [one for one, prompt in zip(questions, prompts, strict=True) if len(prompt) < positions]
    if left_out := len(questions) - len(asked):
        on_event(
            Noted(
                f"{left_out} held-out prompts are not asked: the model learned {positions:,} positions, which they fill"
            )
        )
    return asked


def thresholds_of(config: Settings) -> dict[str, float]:
    """The verdict's thresholds that are settings of this command."""
    return {
        check.setting: getattr(config, check.setting) for check in CHECKS if hasattr(config, check.setting)
    }
