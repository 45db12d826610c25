"""Put adapters on their base: as peft reads them, and with nothing left over or left out."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from dpo_cli.errors import ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dpo_cli.models.locate import LocatedModel

_UNFIT = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError)
"""What peft and torch raise where an adapter and its base do not fit."""


def with_adapters(
    model: PreTrainedModel, located: LocatedModel, *, trainable: bool = False
) -> PreTrainedModel:
    """A base with an adapter on it; where that sits on further adapters, they are merged into the base first.

    Args:
        model: The base of the lowest adapter.
        located: The adapter.
        trainable: Leave its weights open to training.

    Raises:
        ModelError: If it does not fit its base.
    """
    from peft import PeftModel

    if located.base and located.base.base:
        model = merged(with_adapters(model, located.base))
    try:
        shapes = _shapes(located)
        _resize(model, shapes)
        _require_places(model, shapes)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(model, str(located.folder), is_trainable=trainable)
    except _UNFIT as error:
        raise ModelError(
            f"{located.name}: the adapter does not match its base model ({first_line(error)})"
        ) from error
    if missing := next(
        (str(one.message) for one in told if "missing adapter keys" in str(one.message)), None
    ):
        raise ModelError(f"{located.name}: the adapter does not match its base model ({missing[:300]})")
    return adapted


def bare_model(model: Any) -> Any:  # noqa: ANN401 - a model or a PeftModel
    """The transformers model that adapters are on; without adapters the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def merged(model: Any) -> PreTrainedModel:  # noqa: ANN401 - a PeftModel
    """The model that an adapter makes of its base, as full weights."""
    return model.merge_and_unload()


def _shapes(located: LocatedModel) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(located.folder.glob("adapter_model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118 - not a dict
    return shapes


def _resize(model: PreTrainedModel, shapes: dict[str, tuple[int, ...]]) -> None:
    """Give the base as many embeddings as the adapter was trained with: its vocabulary may have been enlarged."""
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    wanted = {f".{names[id(module)]}." for module in ends if module is not None}
    for key, shape in shapes.items():
        if any(name in key for name in wanted) and key.endswith(".weight") and "lora_" not in key:
            if shape[0] != model.get_input_embeddings().weight.shape[0]:
                model.resize_token_embeddings(shape[0], mean_resizing=False)
            return


def _require_places(model: PreTrainedModel, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse matrices of LoRA for modules that the base does not have: peft drops them without a word."""
    modules = {name for name, _ in model.named_modules()}
    for key in shapes:
        path, found, _ = key.removeprefix("base_model.model.").partition(".lora_")
        if found and path not in modules:
            raise ValueError(f"the base has no {path}")
