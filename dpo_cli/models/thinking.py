"""Models that think before they answer: how their template is told, and where the answer begins."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal

from dpo_cli.config.template_arguments import SWITCHES
from dpo_cli.errors import ConfigError, listed
from dpo_cli.models.templates import (
    CLOSED,
    OPENED,
    Chat,
    Refusal,
    TemplateOptions,
    give_options,
    options_of,
    render_chats,
    template_variables,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

Thinking = Literal["on", "off", "keep"]

_ASKED = [{"role": "user", "content": "a"}]
_NOT_OF_USERS = frozenset({"messages", "tools", "add_generation_prompt", "documents"})
_LAST_TOKENS = 8
"""Of a prompt, among which a block of thinking is opened if it is."""


def set_options(
    tokenizer: PreTrainedTokenizerBase, name: str, thinking: Thinking | None, arguments: Mapping[str, Any]
) -> None:
    """Let a tokenizer's template render everything with these arguments, and with or without thinking.

    Args:
        tokenizer: With a chat template, unless nothing is asked of it.
        name: The model, for messages.
        thinking: "on" and "off" by the template's own switch (`enable_thinking` or `thinking`); where it has none
            and opens a block of thinking itself, "off" closes that at once. "keep" switches nothing. None neither.
        arguments: Variables of the template.

    Raises:
        ConfigError: The template does not know an argument, or has no thinking to switch.
        ModelError: There is no template, or it cannot be read.
    """
    variables, closes = dict(arguments), False
    if variables or thinking in {"on", "off"}:
        known = template_variables(tokenizer)
        _refuse_unknown(name, arguments, known)
        if thinking in {"on", "off"}:
            switch = next((one for one in SWITCHES if one in known), None)
            if switch is not None:
                variables[switch] = thinking == "on"
            else:
                _require_opened(tokenizer, name, thinking)
                closes = thinking == "off"
    give_options(
        tokenizer, TemplateOptions(variables, closes_thinking=closes, keeps_thinking=thinking == "keep")
    )


def _refuse_unknown(name: str, arguments: Mapping[str, Any], known: frozenset[str]) -> None:
    own = sorted(known - _NOT_OF_USERS)
    lines = []
    for key in arguments:
        if key not in known:
            near = difflib.get_close_matches(key, own, n=1)
            advice = f", did you mean {near[0]}?" if near else ""
            lines.append(
                f"--template {listed([key])}: the chat template of {name} has no such variable{advice}"
            )
    if lines:
        hint = f"It has {listed(own)}." if own else "It has no variables that can be given."
        raise ConfigError("\n".join(lines), hint=hint)


def _require_opened(tokenizer: PreTrainedTokenizerBase, name: str, thinking: Thinking | None) -> None:
    if not opens_thinking(tokenizer):
        raise ConfigError(
            f"--thinking {thinking}: the chat template of {name} has no thinking to switch: it has none of the"
            f" variables {listed(SWITCHES)}, and opens no {OPENED} where the model is asked",
            hint="Leave --thinking out; a variable of another name is given with --template.",
        )


def opens_thinking(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template leaves a block of thinking open where the model is asked."""
    [prompt] = render_chats(tokenizer, [Chat(_ASKED, add_generation_prompt=True)])
    return not isinstance(prompt, Refusal) and prompt.rstrip().endswith(OPENED)


def cuts_thinking(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template leaves out the thinking of the answer that it renders last."""
    thought = "\ue000"
    answer = {"role": "assistant", "content": f"{OPENED}\n{thought}\n{CLOSED}\n\nb"}
    [text] = render_chats(tokenizer, [Chat([*_ASKED, answer])])
    return isinstance(text, str) and thought not in text


class AnswerReader:
    """Tells thinking from the answer in what a model generated.

    Args:
        tokenizer: The model's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._keeps = options_of(tokenizer).keeps_thinking
        self._open, self._close = (_special_id(tokenizer, mark) for mark in (OPENED, CLOSED))

    def read(self, prompt: Sequence[int], generated: Sequence[int]) -> tuple[str, str]:
        """What the model thought, and its answer, both without special tokens.

        Args:
            prompt: Ids of the prompt: it may have opened the block of thinking already.
            generated: Ids after it.

        Returns:
            No thoughts where there are none, or where they are kept in the answer. No answer where the block of
            thinking was not closed.
        """
        text = self._text(generated)
        opened = self.opened(prompt)
        thoughts, answer = split_thinking(text, opened=opened)
        if not self._keeps:
            return thoughts, answer
        return "", f"{OPENED}\n{text}" if opened else text

    def opened(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt ends in a block of thinking that it has opened."""
        end = self._tokenizer.decode(list(prompt[-_LAST_TOKENS:]), skip_special_tokens=False)
        return bool(end.rstrip().endswith(OPENED))

    def _text(self, ids: Sequence[int]) -> str:
        """Decoded without special tokens, but with the marks of thinking where they are such tokens."""
        parts: list[str] = []
        run: list[int] = []
        for index in [*ids, None]:
            mark = OPENED if index == self._open else CLOSED if index == self._close else None
            if index is not None and mark is None:
                run.append(index)
                continue
            parts += [self._tokenizer.decode(run, skip_special_tokens=True)] if run else []
            parts += [mark] if index is not None and mark else []
            run = []
        return "".join(parts).strip()


def split_thinking(text: str, *, opened: bool = False) -> tuple[str, str]:
    """Thoughts and answer of a text that begins with a block of thinking; ("", text) where it does not.

    Args:
        text: What was generated.
        opened: The prompt has opened the block.
    """
    start = text.lstrip()
    if not opened and not start.startswith(OPENED):
        return "", text
    thoughts, _, answer = start.removeprefix(OPENED).partition(CLOSED)
    return thoughts.strip(), answer.strip()


def _special_id(tokenizer: PreTrainedTokenizerBase, mark: str) -> int:
    """The id of a mark that decoding leaves out as a special token; -1 where it is text like any other."""
    index = tokenizer.convert_tokens_to_ids(mark)
    special = isinstance(index, int) and str(mark) in tokenizer.all_special_tokens
    added = tokenizer.added_tokens_decoder.get(index) if isinstance(index, int) else None
    if special or (added is not None and added.special and added.content == mark):
        return int(index)
    return -1
