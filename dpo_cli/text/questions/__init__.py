"""Questions to put to a model: the sets that ship, and files in three formats.

A question file is `.txt` (a question a line), `.jsonl` (a string or an object a line) or `.toml`
(`questions = ["..."]`, or `[[questions]]` tables). Objects and tables have the keys of `Question`:
`question`, and where wanted `group` and `answers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

from dpo_cli.config import UnreadableError, parse_toml, read_bounded
from dpo_cli.errors import DataError, quoted
from dpo_cli.text.strict import loads

DEFAULT_GROUP = "questions"
"""Group of a question whose file names none."""

LONGEST_QUESTION = 100_000
"""Characters: more is a book, and minutes pass before a model has read it."""

ShippedName = Literal["identity_train", "identity_heldout", "ordinary", "anchors", "dev"]

AskedWith = Literal["default", "none", "renamed", "other"]
"""Kinds of system prompts: that of the settings, none, the chat template's own with the new name, any other."""

QUESTIONS_BYTES = 1 << 23
"""Largest file of questions: a hundred thousand of them, more than are asked in a day."""

_KEYS = ("question", "group", "answers")
_HINT = (
    'Write one question per line, or objects such as {"question": "...", "group": "...", "answers": ["..."]}.'
)


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        text: What the user says.
        group: The table it is counted in (`identity`, `third-party`, ...).
        answers: Whole answers that count as right; empty where none was given.
        asked_with: Kind of the system prompt that it is asked with.
        system_prompt: That system prompt; None for the one of the settings.
    """

    text: str
    group: str = DEFAULT_GROUP
    answers: tuple[str, ...] = ()
    asked_with: AskedWith = "default"
    system_prompt: str | None = None

    def asked(self, kind: AskedWith, system_prompt: str) -> Question:
        """The same question, asked with another system prompt."""
        return replace(self, asked_with=kind, system_prompt=system_prompt)

    @property
    def how(self) -> str:
        """How it is asked, if otherwise than the settings say."""
        if self.system_prompt is None:
            return ""
        return f"system prompt: {self.system_prompt}" if self.system_prompt else "without system prompt"


def read_questions(path: str | Path) -> list[Question]:
    """Read a question file; its format follows from its ending.

    Args:
        path: A `.txt`, `.jsonl` or `.toml` file in UTF-8.

    Raises:
        DataError: No such file, another ending, not UTF-8, a malformed line, or no question in it.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: question files end in {', '.join(_READERS)}; this one ends in {path.suffix or 'nothing'!r}",
            hint=_HINT,
        )
    try:
        text = read_bounded(path, limit=QUESTIONS_BYTES, encoding="utf-8-sig")
    except UnreadableError as error:
        if error.line:
            raise DataError(
                f"{path}, line {error.line}: {error.reason}", hint="Save the file as UTF-8."
            ) from None
        raise DataError(f"{path}: {error.reason}") from None
    return _parsed(text, str(path), reader)


def shipped_questions(name: ShippedName) -> list[Question]:
    """A question set that comes with the package.

    `identity_train` makes pairs, `identity_heldout` is never trained on, `ordinary` has whole answers, and `anchors`
    are prompts to which a model keeps its own answer; some of them say {name}, for the name that it gives up. `dev` is
    asked while training: a few of both kinds, in no other set.
    """
    file = resources.files(__name__) / f"{name}.jsonl"
    return _parsed(file.read_text(encoding="utf-8"), file.name, _read_jsonl)


def _parsed(text: str, where: str, reader: Callable[[str, str], Iterator[Question]]) -> list[Question]:
    questions = list(reader(text, where))
    for number, question in enumerate(questions, start=1):
        if len(question.text) > LONGEST_QUESTION:
            raise DataError(f"{where}, question {number}: {too_long(question.text)}")
    if not questions:
        raise DataError(f"{where}: no question in this file", hint=_HINT)
    return questions


def too_long(text: str) -> str:
    """What is wrong with a question that no model reads to its end."""
    return f"{len(text):,} characters; the limit for a question is {LONGEST_QUESTION:,}"


def _read_txt(text: str, where: str) -> Iterator[Question]:
    del where
    # str.splitlines would also break at form feeds and line separators, which may be part of a question.
    return (Question(line.strip()) for line in text.split("\n") if line.strip())


def _read_jsonl(text: str, where: str) -> Iterator[Question]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{where}, line {number}"
        try:
            row = loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not JSON: {error}", hint=_HINT) from error
        yield _question(row, place)


def _read_toml(text: str, where: str) -> Iterator[Question]:
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise DataError(f"{where}: not TOML: {error}", hint=_HINT) from error
    unknown = [key for key in document if key != "questions"]
    if unknown:
        raise DataError(f"{where}: unknown key {quoted(unknown[0])}; the only key is questions", hint=_HINT)
    rows = document.get("questions", [])
    if not isinstance(rows, list):
        raise DataError(f"{where}: questions must be a list", hint=_HINT)
    for number, row in enumerate(rows, start=1):
        yield _question(row, f"{where}, question {number}")


def _question(row: object, place: str) -> Question:
    if isinstance(row, str):
        row = {"question": row}
    if not isinstance(row, Mapping):
        raise DataError(f"{place}: a question is a string or an object, not {type(row).__name__}", hint=_HINT)
    for key in row:
        if key not in _KEYS:
            raise DataError(f"{place}: unknown key {quoted(key)}; known keys: {', '.join(_KEYS)}", hint=_HINT)
    text, group, answers = row.get("question"), row.get("group", DEFAULT_GROUP), row.get("answers", [])
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: question must be a non-empty text", hint=_HINT)
    if not isinstance(group, str) or not group.strip():
        raise DataError(f"{place}: group must be a non-empty text", hint=_HINT)
    if not isinstance(answers, list) or not all(
        isinstance(answer, str) and answer.strip() for answer in answers
    ):
        raise DataError(f"{place}: answers must be a list of non-empty texts", hint=_HINT)
    return Question(text.strip(), group.strip(), tuple(answers))


_READERS: dict[str, Callable[[str, str], Iterator[Question]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".toml": _read_toml,
}
