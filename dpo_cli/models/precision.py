"""Weights held in fp32 for training answer in the precision that the machine multiplies fast.

That is also the model that is saved, where it came in that precision.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from safetensors import safe_open

from dpo_cli.models.adapters import bare_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_asked_in: WeakKeyDictionary[torch.nn.Module, torch.dtype] = WeakKeyDictionary()


def ask_in(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Say in which precision a model answers while `fast_weights` is open; adapters put on it later are meant, too."""
    _asked_in[bare_model(model)] = dtype


@contextlib.contextmanager
def fast_weights(model: Any) -> Iterator[None]:  # noqa: ANN401 - a model or a PeftModel
    """Hold the weights of a model in the precision that `ask_in` said, for a while.

    Args:
        model: Adapters on it are cast as well. Without `ask_in`, weights are left as they are.
    """
    with held_in(model, _asked_in.get(bare_model(model), torch.float32)):
        yield


@contextlib.contextmanager
def held_in(model: Any, dtype: torch.dtype) -> Iterator[None]:  # noqa: ANN401 - a model or a PeftModel
    """Hold the fp32 weights of a model in another precision, for a while.

    Their fp32 values stay in memory and are put back unchanged: half as much again of what they take, and less than
    the gradients that training takes. Nothing must change the weights meanwhile.

    Args:
        model: Adapters on it are cast as well; what its architecture keeps in fp32 is not.
        dtype: The precision.
    """
    bare = bare_model(model)
    kept = getattr(bare, "_keep_in_fp32_modules_strict", None) or ()
    kept = {*kept, *((getattr(bare, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else ())}
    stay = re.compile("|".join(rf"(?:^|\.){re.escape(name)}(?:\.|$)" for name in kept) or r"(?!)")
    cast = [
        (parameter, parameter.data)
        for name, parameter in model.named_parameters()
        if parameter.dtype == torch.float32 and dtype != torch.float32 and not stay.search(name)
    ]
    try:
        for parameter, exact in cast:
            parameter.data = exact.to(dtype)
        yield
    finally:
        for parameter, exact in cast:
            parameter.data = exact


def stored_dtype(folder: Path) -> torch.dtype:
    """The precision that most weights in a folder of safetensors have; fp32 where that is none to train in."""
    sizes: Counter[str] = Counter()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a dict
                found = tensors.get_slice(key)
                sizes[found.get_dtype()] += torch.Size(found.get_shape()).numel()
    most = max(sizes, key=sizes.__getitem__, default="F32")
    return {"BF16": torch.bfloat16, "F16": torch.float16}.get(most, torch.float32)
