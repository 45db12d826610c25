"""Weights held in fp32 for training answer in the precision that the machine multiplies fast.

That is also the model that is saved, where it came in that precision.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_asked_in: WeakKeyDictionary[torch.nn.Module, torch.dtype] = WeakKeyDictionary()


def ask_in(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Say in which precision a model answers while `fast_weights` is open; adapters put on it later are meant, too."""
    _asked_in[_bare(model)] = dtype


@contextlib.contextmanager
def fast_weights(model: Any) -> Iterator[None]:  # noqa: ANN401 - a model or a PeftModel
    """Hold the weights of a model in the precision that `ask_in` said, for a while.

    Their fp32 values stay in memory and are put back unchanged: half as much again of what they take, and less than
    the gradients that training takes. Nothing must change the weights meanwhile.

    Args:
        model: Adapters on it are cast as well. Without `ask_in`, weights are left as they are.
    """
    bare = _bare(model)
    dtype = _asked_in.get(bare, torch.float32)
    kept = getattr(bare, "_keep_in_fp32_modules_strict", None) or ()
    kept = {*kept, *((getattr(bare, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else ())}
    stay = re.compile("|".join(rf"(?:^|\.){re.escape(name)}(?:\.|$)" for name in kept) or r"(?!)")
    cast = [
        (parameter, parameter.data)
        for name, parameter in model.named_parameters()
        if parameter.dtype == torch.float32 and dtype != torch.float32 and not stay.search(name)
    ]
    for parameter, exact in cast:
        parameter.data = exact.to(dtype)
    try:
        yield
    finally:
        for parameter, exact in cast:
            parameter.data = exact


def _bare(model: Any) -> Any:  # noqa: ANN401 - a model or a PeftModel
    return model.get_base_model() if hasattr(model, "peft_config") else model
