"""Weights that are no numbers: a model that has one answers nothing and compares as nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable


def not_finite_weights(parameters: Iterable[tuple[str, Any]]) -> str:
    """How many weight tensors contain NaN or infinity, and the first of them, in words; empty if none does.

    Args:
        parameters: Names and tensors, as `named_parameters()` gives them.
    """
    ruined = [
        name for name, tensor in parameters if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if not ruined:
        return ""
    count = "1 weight tensor contains" if len(ruined) == 1 else f"{len(ruined)} weight tensors contain"
    return f"{count} NaN or infinity, {ruined[0]} first"


def trained_parameters(model: Any) -> Iterable[tuple[str, Any]]:  # noqa: ANN401 - a model or a PeftModel
    """Names and tensors that training may change."""
    return ((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad)
