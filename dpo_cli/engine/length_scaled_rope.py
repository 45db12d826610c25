"""Rotary positions whose scale depends on how long a batch is: LongRoPE and dynamic NTK.

transformers reads the length of a batch off its position ids, padding included, and picks or computes other
frequencies beyond a limit; dynamic NTK also remembers the longest batch so far. A packed row must therefore show
the same longest position as TRL's rows, and a forward that is only a trial must leave no trace.
"""

# ruff: noqa: ANN401 - transformers' models are Any to mypy

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

SCALED_BY_LENGTH = ("dynamic", "longrope")
LIMIT = "original_max_position_embeddings"


def length_scaled_modules(model: torch.nn.Module) -> list[Any]:
    """The rotary embeddings of a model whose frequencies depend on the length of the batch."""
    return [m for m in model.modules() if any(_kinds(m))]


def length_limit(model: torch.nn.Module) -> int | None:
    """Tokens a row may have before the length of the batch decides its positions; None where it never does."""
    limits: list[int] = []
    for module in length_scaled_modules(model):
        declared = [p[LIMIT] for p in _parameters(module.config) if p.get(LIMIT)]
        limits += declared or [module.config.max_position_embeddings]
    return min(limits, default=None)


def narrowed(model: torch.nn.Module, limit: int) -> list[tuple[Any, str, Any]]:
    """The attributes to set, as object, name and value, for a limit of `limit` tokens."""
    changes: list[tuple[Any, str, Any]] = []
    for module in length_scaled_modules(model):
        config = module.config
        changes += [
            (module, name, limit)
            for name in vars(module)
            if name.endswith(("max_seq_len_cached", "original_max_seq_len"))
        ]
        changes.append((config, "rope_parameters", _with_limit(config.rope_parameters, limit)))
        if any("dynamic" in kind for kind in _kinds(module)):
            changes.append((config, "max_position_embeddings", limit))
    return changes


@contextmanager
def state_kept(model: torch.nn.Module) -> Iterator[None]:
    """Put back afterwards what a forward leaves behind in length-scaled rotary embeddings."""
    modules = length_scaled_modules(model)
    before = [(dict(vars(m)), {n: (b, b.clone()) for n, b in m.named_buffers()}) for m in modules]
    try:
        yield
    finally:
        for module, (attributes, buffers) in zip(modules, before, strict=True):
            for name in set(vars(module)) - set(attributes):
                delattr(module, name)
            vars(module).update(attributes)
            for name, (buffer, content) in buffers.items():
                module._buffers[name] = buffer.copy_(content)  # noqa: SLF001 - in place: compiled graphs know its address


def _kinds(module: torch.nn.Module) -> list[str]:
    """The RoPE types of a module that depend on the length, one for each kind of layer."""
    kind = getattr(module, "rope_type", None)
    kinds = kind.values() if isinstance(kind, dict) else [kind]
    return [k for k in kinds if isinstance(k, str) and any(name in k for name in SCALED_BY_LENGTH)]


def _parameters(config: Any) -> list[dict[str, Any]]:
    """The rotary parameters of a config, of each kind of layer where there are several."""
    given = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in given.values() if isinstance(value, dict)]
    return nested or [given]


def _with_limit(parameters: dict[str, Any], limit: int) -> dict[str, Any]:
    return {
        name: _with_limit(value, limit) if isinstance(value, dict) else limit if name == LIMIT else value
        for name, value in parameters.items()
    }
