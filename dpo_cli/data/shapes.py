"""What a layout is: the columns by which a row is recognised, the shapes of their values, and how a pair is read."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.data.extras import refuse_media
from dpo_cli.data.judged import number
from dpo_cli.data.layouts import PROMPT_NAMES, with_system
from dpo_cli.data.messages import is_message, is_messages, kind
from dpo_cli.data.pairs import COLUMNS_LEFT_OUT, Pair
from dpo_cli.data.unwrapping import Row, is_list_of_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TEXT: Final = "text"
MESSAGES: Final = "a list of messages"
MESSAGE: Final = "a message"
INPUT: Final = "an object with messages"
QUESTION: Final = "an object with a text"
ANSWERS: Final = "a list of answers"
OBJECTS: Final = "a list of objects"
NUMBER: Final = "a number"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_input(value: object) -> bool:
    return isinstance(value, dict) and is_messages(value.get("messages"))


def _is_question(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("full_text"), str)


def _is_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _is_number(value: object) -> bool:
    return number(value) is not None


_SHAPES: Final[dict[str, Callable[[object], bool]]] = {
    TEXT: _is_text,
    MESSAGES: is_messages,
    MESSAGE: is_message,
    INPUT: _is_input,
    QUESTION: _is_question,
    ANSWERS: is_list_of_answers,
    OBJECTS: _is_objects,
    NUMBER: _is_number,
}


def _always(_row: Row) -> bool:
    return True


PROMPT_LIKE: Final = PROMPT_NAMES | {
    "prompt",
    "full_prompt",
    "formatted_prompt",
    "system",
    "system_prompt",
    "history",
}


def _may_be_prompt(name: str, value: Any) -> bool:  # noqa: ANN401 - whatever the file holds
    """Whether a value says something that could be meant to be trained on."""
    if name == "messages" and is_messages(value):  # UltraFeedback repeats the chosen conversation in it
        last = value[-1]
        return last.get("role", last.get("from")) not in {"assistant", "gpt"}
    return bool(value) and (not isinstance(value, str) or bool(value.strip()))


@dataclass(frozen=True, eq=False)
class Format:
    """One layout.

    Attributes:
        name: What `--format` and `data.json` call it.
        title: What people call it.
        columns: Alternatives for each needed column, e.g. `("question", "prompt")`, with the shapes it may have.
        convert: From a raw row to a pair; raises `RowProblem` for a row with a wrong value.
        fits: A further condition on a row that has the columns.
        more: Further columns that `convert` reads where they are there.
        with_system: The layout of the same row when the user names a column with the system text.
    """

    name: str
    title: str
    columns: Mapping[tuple[str, ...], tuple[str, ...]]
    convert: Callable[[Row], Pair]
    fits: Callable[[Row], bool] = _always
    more: tuple[str, ...] = ()
    with_system: str = ""

    def read(self, row: Row, *, system_named: bool = False) -> Pair:
        """The pair of a row, with a note for each column that could be meant for the prompt and is not read.

        Args:
            row: The row, its columns already renamed.
            system_named: The user said which column holds the system text: it goes before a conversation of any layout.

        Raises:
            RowProblem: A wrong value, or pictures and sound that only text is left of.
        """
        refuse_media(row)
        pair = self.convert(row)
        unread = [name for name in self._unread(tuple(row)) if _may_be_prompt(name, row[name])]
        if system_named and "system" not in self.more and isinstance(pair.prompt, list):
            pair = replace(pair, prompt=with_system(row, pair.prompt))
            unread = [name for name in unread if name != "system"]
        if not unread:
            return pair
        note = COLUMNS_LEFT_OUT, ", ".join(map(repr, unread))
        return replace(pair, notes=(*pair.notes, note))

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - formats live as long as the program
    def _unread(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Columns of a row that are named as if they were a prompt, and are not read."""
        read = {*self.more, *(next((name for name in group if name in names), "") for group in self.columns)}
        return tuple(name for name in names if name in PROMPT_LIKE and name not in read)

    def missing(self, row: Row) -> list[str]:
        """What a row lacks to be of this layout, in words; empty when it has it all."""
        lacks = []
        for names, shapes in self.columns.items():
            present = [name for name in names if name in row]
            wanted = " or ".join(shapes)
            if not present:
                lacks.append(f"a column {' or '.join(map(repr, names))} with {wanted}")
            elif not any(_SHAPES[shape](row[name]) for name in present for shape in shapes):
                lacks.append(f"{present[0]!r} as {wanted} (it is {kind(row[present[0]])})")
        return lacks

    def recognises(self, row: Row) -> bool:
        """Whether a row has this layout: its columns, their shapes, and what else tells it from the others."""
        return not self.missing(row) and self.fits(row)

    def has_columns(self, row: Row) -> bool:
        """Whether a row has the columns of this layout, whatever their values."""
        return all(any(name in row for name in names) for names in self.columns)


EXAMPLES: Final[dict[str, Any]] = {
    TEXT: "text",
    MESSAGES: [{"role": "user", "content": "text"}],
    MESSAGE: {"role": "assistant", "content": "text"},
    INPUT: {"messages": [{"role": "user", "content": "text"}]},
    QUESTION: {"full_text": "text"},
    ANSWERS: ["text", "other"],
    OBJECTS: [{}],
    NUMBER: 1,
}
