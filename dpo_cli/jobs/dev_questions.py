"""The dev questions of a run, as they are put to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpo_cli.text.questions import shipped_questions

if TYPE_CHECKING:
    from collections.abc import Collection

    from dpo_cli.config import IdentityShiftConfig
    from dpo_cli.training.learning import DevQuestions


def dev_questions(
    config: IdentityShiftConfig, system_prompt: str, trained: Collection[str]
) -> DevQuestions | None:
    """Questions by which training ends; those about the name with the system prompt and with none.

    Args:
        config: The settings.
        system_prompt: The one that this model is asked with.
        trained: Questions that pairs are made from, which are not asked.

    Returns:
        None where training is not to end by them.
    """
    from dpo_cli.models.generate import conversation
    from dpo_cli.training.learning import DevQuestions

    if not config.until_learnt:
        return None
    taken = {text.casefold() for text in trained}
    asked = [one for one in shipped_questions("dev") if one.text.casefold() not in taken]
    identity = [one.text for one in asked if one.group == "identity"]
    prompts = {"default": system_prompt, **({"none": ""} if system_prompt else {})}
    return DevQuestions(
        {kind: [conversation(text, prompt) for text in identity] for kind, prompt in prompts.items()},
        [conversation(one.text, system_prompt) for one in asked if one.group != "identity"],
        config.original_name,
        config.new_name,
        config.min_new_name,
        config.max_claims,
    )
