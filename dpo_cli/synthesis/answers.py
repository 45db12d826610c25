"""Pairs made with a model: it answers each prompt itself, and a better answer is set against its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.accounting import Accounting
from dpo_cli.data.arrow import PairTable
from dpo_cli.data.messages import completion_of, conversation_of, kind, text_of
from dpo_cli.data.pairs import EMPTY, NON_TEXT, Message, Pair, RowProblem, check_pair, odd_roles, plain
from dpo_cli.errors import DataError, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.events import OnProgress
    from dpo_cli.models.generate import Generation

_NAME: Final = "raw_dataset"
CUT_OFF: Final = "the model's answer did not end within max_new_tokens"


def build_dpo_dataset(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    raw_dataset: Dataset | Iterable[dict[str, Any]],
    prompt_column: str = "prompt",
    chosen_transform: Callable[[str], str] | None = None,
    *,
    max_new_tokens: int = 128,
    batch_size: int = 32,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Build preference pairs in which the model's own answer is the rejected one.

    The chosen completion is what `chosen_transform` makes of that answer. Without a transform it is the row's
    own: its column `chosen` (text, a message, or messages), as when human answers are to be preferred over the
    model's (self-play fine-tuning, Chen et al. 2024). A pair whose completions are the same is no pair.

    Args:
        model: Answers the prompts, greedily.
        tokenizer: Its tokenizer, with a chat template.
        raw_dataset: Rows with prompts.
        prompt_column: The column with the prompt: text (the user's turn; a column `system` goes before it), or
            messages that end with the user's.
        chosen_transform: From the model's answer to the better one.
        max_new_tokens: Longest answer in tokens. An answer that is cut off there makes no pair.
        batch_size: Prompts answered at once.
        on_progress: Called with (done, all).

    Returns:
        Columns `prompt`, `chosen` and `rejected`, each a list of {"role", "content"} messages.

    Raises:
        DataError: There is no such column, nothing to make a chosen completion of, or no row makes a pair.
        ModelError: The tokenizer has no chat template.
        TypeError: `chosen_transform` gives something else than text.
    """
    from dpo_cli.models.generate import generate

    rows = list(raw_dataset)
    _check_columns(rows, prompt_column, needs_chosen=chosen_transform is None)
    accounting = Accounting(_NAME)
    asked: list[tuple[int, list[Message], dict[str, Any]]] = []
    for number, row in enumerate(rows, start=1):
        accounting.read += 1
        try:
            asked.append((number, _prompt(row, prompt_column), row))
        except RowProblem as problem:
            accounting.drop_at(number, f"{_NAME} row {number}", problem)
    answers = generate(
        model,
        tokenizer,
        [prompt for _, prompt, _ in asked],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    table = PairTable()
    for (number, prompt, row), answer in zip(asked, answers, strict=True):
        try:
            table.add(_pair(prompt, row, answer, chosen_transform))
            accounting.kept += 1
        except RowProblem as problem:
            accounting.drop_at(number, f"{_NAME} row {number}", problem)
    if not accounting.kept and (error := accounting.verdict(strict=False, allow_drops=True)):
        raise error
    return table.dataset()


def _check_columns(rows: list[dict[str, Any]], prompt_column: str, *, needs_chosen: bool) -> None:
    if not rows:
        raise DataError(f"{_NAME} has no rows.")
    columns = listed(rows[0])
    if prompt_column not in rows[0]:
        raise DataError(
            f"{_NAME} has no column {prompt_column!r}; it has: {columns}.", hint="Name it with prompt_column."
        )
    if needs_chosen and "chosen" not in rows[0]:
        raise DataError(
            f"{_NAME} has no column 'chosen', and no chosen_transform was given; it has the columns: {columns}.",
            hint="The model's answer is the rejected completion: use either of them to give the better answer.",
        )


def _prompt(row: dict[str, Any], column: str) -> list[Message]:
    value = row.get(column)
    if isinstance(value, list):
        prompt = conversation_of(value, column)
        if (problem := odd_roles(prompt, "", "")) is not None:
            raise problem
        return prompt
    system = row.get("system")
    start: list[Message] = []
    if system is not None and text_of(system, "system").strip():
        start = [{"role": "system", "content": system}]
    return [*start, {"role": "user", "content": text_of(value, column)}]


def _pair(
    prompt: list[Message], row: dict[str, Any], answer: Generation, transform: Callable[[str], Any] | None
) -> Pair:
    if answer.truncated:
        raise RowProblem(EMPTY, CUT_OFF)
    chosen = _chosen(row, answer.text, transform)
    return check_pair(Pair(prompt, chosen, [{"role": "assistant", "content": answer.text}]))


def _chosen(row: dict[str, Any], answer: str, transform: Callable[[str], Any] | None) -> list[Message]:
    if transform is not None:
        better = transform(answer)
        if not isinstance(better, str):
            msg = f"chosen_transform must return text, not {kind(better)}"
            raise TypeError(msg)
        return [{"role": "assistant", "content": better}]
    messages = completion_of(row.get("chosen"), "chosen")
    # A whole conversation (UltraFeedback) ends with the answer.
    last = messages[-1:] if messages and messages[0]["role"] != "assistant" else messages
    if not plain(last):
        raise RowProblem(NON_TEXT, "chosen has no text", "chosen")
    return last
