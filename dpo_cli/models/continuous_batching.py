"""Answer many prompts with a fixed number of places: an answer that ends makes room for the next prompt at once.

In a batch that runs until its longest answer ends, most rows idle. Here rows lie right-aligned in one store of keys and
values: the last token of every row is in the same column, as with padding on the left. So the model sees what it
sees in any padded batch, and needs no mask or attention of ours.
"""

# ruff: noqa: ANN401 - any architecture, and a cache's further arguments

from __future__ import annotations

import inspect
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin

from dpo_cli.errors import first_line
from dpo_cli.models.adapters import bare_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Choose = Callable[[torch.Tensor, Sequence[int]], list[int]]
    """From logits `[rows, vocabulary]` and the prompt of each row to the next tokens."""

ADMITTED = 8
"""Prompts read at once, so that reading keeps the processor busy; places stay empty until there are so many."""

READ_TOKENS = 4096
"""Tokens read at once, padding included; a single prompt may have more."""

SPARE = 128
"""Columns beyond those in use, so that the store is moved only every so many tokens."""

TOLERANCE, COARSE_TOLERANCE = 1e-3, 0.1
"""How far logits may be from those of a row alone, over how much they spread: in fp32, and in 16 bits."""

TRIED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What an architecture raises that is called in a way it does not know."""

_reasons: WeakKeyDictionary[torch.nn.Module, str | None] = WeakKeyDictionary()


class _Columns:
    """The columns in use: all rows end at `end`, the longest begins at `start`."""

    def __init__(self) -> None:
        self.start = self.end = 0


class _SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, `[rows, heads, columns, width]`."""

    is_sliding = False
    keys: Any
    values: Any

    def __init__(self, columns: _Columns) -> None:
        super().__init__()
        self.columns = columns

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """There is nothing to prepare: rows are put in before the model reads them."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep one more token of each row; what the rows have by now."""
        start, end = self.columns.start, self.columns.end
        self.keys[:, :, end : end + 1] = key_states
        self.values[:, :, end : end + 1] = value_states
        return self.keys[:, :, start : end + 1], self.values[:, :, start : end + 1]

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.columns.end - self.columns.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns in use with those of the query, and where they begin."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """There is no limit: the store grows."""
        return -1

    def put(self, rows: list[int], keys: torch.Tensor, values: torch.Tensor) -> None:
        """Fill rows with what was read of their prompts."""
        end = self.columns.end
        self.keys[rows, :, end - keys.shape[2] : end] = keys
        self.values[rows, :, end - keys.shape[2] : end] = values

    def move(self, rows: list[int] | slice, columns: slice, to: int, room: int) -> None:
        """Keep some rows and columns, in a new store of so many columns."""
        self.keys, self.values = (_moved(x[rows][:, :, columns], to, room) for x in (self.keys, self.values))


def _moved(kept: torch.Tensor, to: int, room: int) -> torch.Tensor:
    rows, heads, columns, width = kept.shape
    store = kept.new_zeros(rows, heads, room, width)
    store[:, :, to : to + columns] = kept
    return store


class Slots:
    """Rows that a model continues token by token, each with its own prompt.

    Args:
        model: In evaluation mode; call without gradients.
        places: Rows.
    """

    def __init__(self, model: Any, places: int) -> None:
        self.model, self.places = model, places
        self.device = model.device
        self._takes = inspect.signature(type(bare_model(model)).forward).parameters.keys()
        self._lengths = [0] * places
        self._columns = _Columns()
        self._layers: list[_SlotLayer] = []
        self._cache = Cache(layers=[])

    def admit(self, rows: list[int], prompts: Sequence[list[int]]) -> torch.Tensor:
        """Read prompts into rows.

        Args:
            rows: Where to; what was there is gone.
            prompts: Token ids, one list a row.

        Returns:
            Logits of the tokens that follow, `[rows, vocabulary]`.
        """
        longest = max(map(len, prompts))
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=self.device)
        mask = _right_aligned(lengths, longest)
        read = DynamicCache()
        logits = self._logits(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), read)
        for row, prompt in zip(rows, prompts, strict=True):
            self._lengths[row] = len(prompt)
        self._store(rows, read)
        return logits

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Continue every row by a token; logits of those that follow, `[rows, vocabulary]`."""
        if self._columns.end >= self._layers[0].keys.shape[2]:
            self._rearrange(slice(None))
        self._columns.start = self._columns.end - max(self._lengths)
        lengths = torch.tensor(self._lengths, device=self.device)
        ids = torch.tensor(tokens, device=self.device)[:, None]
        mask = _right_aligned(lengths + 1, max(self._lengths) + 1)
        logits = self._logits(ids, mask, lengths[:, None], self._cache)
        self._columns.end += 1
        self._lengths = [length + 1 if length else 0 for length in self._lengths]
        return logits

    def forget(self, row: int) -> None:
        """Empty a row. It is continued like the others until it is filled, and its logits mean nothing."""
        self._lengths[row] = 0

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone, in this order."""
        self._lengths = [self._lengths[row] for row in rows]
        self._rearrange(rows)

    def _logits(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache
    ) -> torch.Tensor:
        """Logits after the last column."""
        optional = {"position_ids": positions, "logits_to_keep": 1}
        named = {name: value for name, value in optional.items() if name in self._takes}
        out = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **named)
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def _store(self, rows: list[int], read: DynamicCache) -> None:
        longest = max(self._lengths)
        if not self._layers:
            self._layers = [_SlotLayer(self._columns) for _ in read.layers]
            self._cache.layers = list(self._layers)
            self._columns.end = longest
            for layer, new in zip(self._layers, read.layers, strict=True):
                for name in ("keys", "values"):
                    _, heads, _, width = getattr(new, name).shape
                    store = getattr(new, name).new_zeros(self.places, heads, longest + SPARE, width)
                    setattr(layer, name, store)
        elif longest > self._columns.end:
            self._rearrange(slice(None))
        for layer, new in zip(self._layers, read.layers, strict=True):
            layer.put(rows, new.keys, new.values)

    def _rearrange(self, rows: list[int] | slice) -> None:
        """Move what is in use to the beginning of the store, which gets as long as it must be."""
        longest = max(self._lengths)
        used = min(longest, self._columns.end)
        columns = slice(self._columns.end - used, self._columns.end)
        for layer in self._layers:
            layer.move(rows, columns, longest - used, longest + SPARE)
        self._columns.end = longest


def _right_aligned(lengths: torch.Tensor, columns: int) -> torch.Tensor:
    """`[rows, columns]`, int64: 1 in the last columns of each row, as many as it has tokens."""
    return (torch.arange(columns, device=lengths.device) >= columns - lengths[:, None]).long()


def answers_as_they_end(
    model: Any,
    prompts: Sequence[list[int]],
    rooms: Sequence[int],
    *,
    ends: Sequence[int],
    places: int,
    choose: Choose,
) -> Iterator[list[tuple[int, list[int]]]]:
    """Answer prompts, shortest first.

    Args:
        model: In evaluation mode, and with no `reason_against` it; call without gradients.
        prompts: Token ids.
        rooms: Longest answer to each, in tokens; at least 1.
        ends: Tokens that end an answer.
        places: Prompts answered at once.
        choose: Picks the next token of each row.

    Yields:
        Index of the prompt and tokens of the answer, of those that ended together.
    """
    waiting = deque(sorted(range(len(prompts)), key=lambda i: len(prompts[i])))
    slots = Slots(model, min(places, len(prompts)))
    held: list[int | None] = [None] * slots.places  # the prompt in each row
    said: dict[int, list[int]] = {}
    while waiting or said:
        rows = [row for row, place in enumerate(held) if place is None]
        if waiting and len(rows) >= min(ADMITTED, len(waiting), len(held)):
            chosen = _next_group(waiting, prompts, len(rows))
            rows = rows[: len(chosen)]
            for row, taken in zip(rows, chosen, strict=True):
                held[row], said[taken] = taken, []
            logits = slots.admit(rows, [prompts[place] for place in chosen])
        else:
            if not waiting and len(said) <= len(held) // 2:
                slots.keep([row for row, place in enumerate(held) if place is not None])
                held = [place for place in held if place is not None]
            rows = [row for row, place in enumerate(held) if place is not None]
            logits = slots.step([0 if place is None else said[place][-1] for place in held])[rows]
        places_of_rows = [place for row in rows if (place := held[row]) is not None]
        ended = []
        for row, place, token in zip(rows, places_of_rows, choose(logits, places_of_rows), strict=True):
            said[place].append(token)
            if token in ends or len(said[place]) >= rooms[place]:
                held[row] = None
                slots.forget(row)
                ended.append((place, said.pop(place)))
        if ended:
            yield ended


def _next_group(waiting: deque[int], prompts: Sequence[list[int]], most: int) -> list[int]:
    """Take prompts from those that wait: so many, and no more tokens than are read at once."""
    group = [waiting.popleft()]
    while waiting and len(group) < most and len(prompts[waiting[0]]) * (len(group) + 1) <= READ_TOKENS:
        group.append(waiting.popleft())
    return group


def reason_against(model: Any) -> str | None:
    """Why answers of a model cannot make room for others one by one; None where they can.

    What its configuration does not tell is decided by a trial: rows that were replaced must get the logits that the
    model gives their tokens alone, without a cache.

    Args:
        model: In evaluation mode.
    """
    bare = bare_model(model)
    if bare not in _reasons:
        _reasons[bare] = _reason_by_config(model, bare) or _reason_by_trial(bare)
    return _reasons[bare]


def _reason_by_config(model: Any, bare: Any) -> str | None:
    config = bare.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    takes = inspect.signature(type(bare).forward).parameters
    rope = getattr(config, "rope_parameters", None) or {}
    scaled = {
        rope.get("rope_type"),
        *(one.get("rope_type") for one in rope.values() if isinstance(one, dict)),
    }
    checks = (
        (bare.config.is_encoder_decoder, "it has an encoder"),
        (bool(kinds), f"it has layers of type {', '.join(sorted(kinds))}"),
        (getattr(config, "attention_chunk_size", None) is not None, "its attention is chunked"),
        (bool(scaled & {"dynamic", "longrope"}), "its positions are scaled by the longest row"),
        (bool(getattr(bare, "_is_stateful", False)), "it keeps a state that is no cache of keys and values"),
        ("past_key_values" not in takes or "attention_mask" not in takes, "it takes no cache"),
        (
            any(one.is_prompt_learning for one in getattr(model, "peft_config", {}).values()),
            "its adapter prepends tokens of its own",
        ),
    )
    return next((reason for applies, reason in checks if applies), None)


@torch.no_grad()
def _reason_by_trial(model: Any) -> str | None:
    rows = model.get_input_embeddings().weight.shape[0]
    made_up = torch.randint(rows, (3, 12), generator=torch.Generator().manual_seed(0)).tolist()
    read = (4, 9, 7)
    try:
        alone = [
            model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float() for ids in made_up
        ]
        slots = Slots(model, 2)
        gaps = [
            _gap(slots.admit([0, 1], [made_up[0][: read[0]], made_up[1][: read[1]]]), alone, (0, 3), (1, 8))
        ]
        gaps.append(_gap(slots.step([made_up[0][4], made_up[1][9]]), alone, (0, 4), (1, 9)))
        slots.forget(1)
        gaps.append(_gap(slots.admit([1], [made_up[2][: read[2]]]), alone, (2, 6)))
        gaps.append(_gap(slots.step([made_up[0][5], made_up[2][7]]), alone, (0, 5), (2, 7)))
        slots.keep([1])
        gaps.append(_gap(slots.step([made_up[2][8]]), alone, (2, 8)))
    except TRIED as error:
        return f"a trial failed ({first_line(error)})"
    allowed = TOLERANCE if next(model.parameters()).dtype == torch.float32 else COARSE_TOLERANCE
    gap = max(gaps)
    return None if gap <= allowed else f"a trial gave other logits, by {gap:.2g} of their spread"


def _gap(found: torch.Tensor, alone: Sequence[torch.Tensor], *places: tuple[int, int]) -> float:
    """How far logits are from those of rows and positions alone, over how much these spread."""
    expected = torch.stack([alone[row][position] for row, position in places])
    spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    return float(((found.float() - expected).norm(dim=-1) / spread).max())
