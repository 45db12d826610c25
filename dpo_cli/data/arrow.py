"""Kept pairs as a `datasets.Dataset`, built a few rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset, Features

    from dpo_cli.data.pairs import Pair, Text
    from dpo_cli.data.tokens.tokenizer import TokenizedPair

_CHUNK: Final = 8192
_IDS: Final = ("prompt_ids", "chosen_ids", "rejected_ids")
_TEXTS: Final = ("prompt", "chosen", "rejected")
_MORE: Final[dict[str, Any]] = {"tools": None, "chat_template_kwargs": {}}
_PLAIN: Final = frozenset({"role", "content"})


class PairTable:
    """Collects pairs in Arrow memory, with their token ids where they are given; `dataset()` gives what was collected.

    Messages are structs of role and content. Where some message has more (tool calls), all are kept as JSON
    objects instead: a struct would give every message every key, and templates ask which keys there are.
    """

    def __init__(self) -> None:
        self._chunks: list[Dataset] = []
        self._rows: list[tuple[Pair, TokenizedPair | None]] = []
        self._rich = False
        self._more: tuple[str, ...] = ()

    def add(self, pair: Pair, tokens: TokenizedPair | None = None) -> None:
        """Append a pair; its tokens are given for all pairs or for none."""
        self._rows.append((pair, tokens))
        if len(self._rows) >= _CHUNK:
            self._flush()

    def dataset(self) -> Dataset:
        """All pairs collected.

        Returns:
            Columns `prompt`, `chosen`, `rejected`, and where any pair has some, `tools` (JSON text or None) and
            `chat_template_kwargs` (an object, empty where a pair has none); `prompt_ids`, `chosen_ids` and
            `rejected_ids` (TRL's columns, before anything is cut) where tokens were given.

        Raises:
            DataError: There is none.
        """
        from datasets import concatenate_datasets

        self._flush()
        if not self._chunks:
            raise DataError("no usable pairs.")
        return concatenate_datasets(self._chunks)

    def _flush(self) -> None:
        from datasets import Dataset

        if not self._rows:
            return
        made = [pair.to_row() | _ids(tokens) for pair, tokens in self._rows]
        rich = self._rich or any(_is_rich(pair) for pair, _ in self._rows)
        more = tuple(name for name in _MORE if name in self._more or any(name in row for row in made))
        if (rich, more) != (self._rich, self._more):
            self._rich, self._more = rich, more
            earlier = [
                Dataset.from_list([self._full(row) for row in chunk], self._features(chunk[0]))
                for chunk in self._chunks
            ]
            self._chunks = earlier
        rows = [self._full(row) for row in made]
        self._chunks.append(Dataset.from_list(rows, self._features(rows[0])))
        self._rows = []

    def _full(self, row: dict[str, Any]) -> dict[str, Any]:
        # TRL unpacks the template's variables, so a row without any has an empty object and no null.
        return row | {name: row.get(name, _MORE[name]) for name in self._more}

    def _features(self, row: dict[str, Any]) -> Features:
        from datasets import Features, Json, List, Value

        text: Any = Value("string")
        if isinstance(row["prompt"], list):
            text = List(Json()) if self._rich else List({"role": Value("string"), "content": Value("string")})
        kinds = {"tools": Value("string"), "chat_template_kwargs": Json()}
        ids = {name: List(Value("int32")) for name in _IDS if name in row}
        return Features(dict.fromkeys(_TEXTS, text) | {name: kinds[name] for name in self._more} | ids)


def _ids(tokens: TokenizedPair | None) -> dict[str, list[int]]:
    if tokens is None:
        return {}
    return dict(zip(_IDS, (tokens.prompt, tokens.chosen, tokens.rejected), strict=True))


def _is_rich(pair: Pair) -> bool:
    return any(_has_more(text) for text in (pair.prompt, pair.chosen, pair.rejected))


def _has_more(text: Text) -> bool:
    return isinstance(text, list) and any(message.keys() != _PLAIN for message in text)
