"""How long a text a model can read: one that learned a vector for each position has no vector beyond the last.

Rotary positions and attention biases go on for ever, if worse; for those there is no limit here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.errors import ConfigError
from dpo_cli.events import Noted
from dpo_cli.models.folder import read_object, tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transformers import PreTrainedModel

    from dpo_cli.events import OnEvent
    from dpo_cli.models.locate import LocatedModel

POSITION_COUNTS: Final = ("max_position_embeddings", "n_positions")
"""What `config.json` calls the number of positions."""
_TABLE: Final = re.compile(
    r"(?:^|\.)(?:wpe|embed_positions|position_embeddings?|positions_embed|pos_emb)\.weight$"
)
_OF_PICTURES_AND_SOUND: Final = re.compile(r"vision|visual|image|audio|encoder")
_COMPUTED_TABLES: Final = frozenset({"codegen", "gptj"})
"""Architectures that look rotations up in a table of `n_positions` rows, which no file holds."""


def is_position_table(name: str) -> bool:
    """Whether a tensor of this name holds a vector for each position of a text."""
    return bool(_TABLE.search(name)) and not _OF_PICTURES_AND_SOUND.search(name)


def positions_of(located: LocatedModel) -> int | None:
    """Positions that a model's folder has vectors for, in tokens; None where there is no limit.

    Raises:
        ModelError: If its `config.json` cannot be read.
    """
    folder = located.weights.folder
    config = read_object(located.weights.name, folder / "config.json")
    shapes = (shape for file in folder.glob("*.safetensors") for shape in tensor_shapes(file).items())
    return _positions(config, shapes)


def positions_in(model: PreTrainedModel) -> int | None:
    """As `positions_of`, of a model in memory, or of one under an adapter."""
    shapes = ((name, tuple(tensor.shape)) for name, tensor in model.named_parameters())
    return _positions(model.config.to_dict(), shapes)


def _positions(config: Mapping[str, Any], shapes: Iterable[tuple[str, tuple[int, ...]]]) -> int | None:
    """The rows of the table; fewer where the configuration says so, as some tables begin with rows of no position."""
    tables = [shape[0] for name, shape in shapes if len(shape) > 1 and is_position_table(name)]
    said = [config[key] for key in POSITION_COUNTS if isinstance(config.get(key), int)]
    if tables or config.get("model_type") in _COMPUTED_TABLES:
        return min([*tables, *said], default=None)
    return None


def length_within_positions(length: int, located: LocatedModel, *, given: bool, on_event: OnEvent) -> int:
    """The longest pair that a model is shown, in tokens.

    Args:
        length: `max_length`.
        located: The model.
        given: Whether the user asked for that length; else it is lowered, and that is said.
        on_event: Told so.

    Raises:
        ConfigError: If the user asked for more than the model has positions for.
    """
    limit = positions_of(located)
    if limit is None or length <= limit:
        return length
    if given:
        raise ConfigError(
            f"--max-length {length:,}: {located.name} learned {limit:,} positions and can read no longer pair",
            hint=f"Give --max-length {limit}, or leave it out.",
        )
    on_event(
        Noted(f"{located.name} learned {limit:,} positions: max_length is {limit:,} instead of {length:,}")
    )
    return limit
