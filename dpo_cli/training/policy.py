"""The model that is trained: loaded ready for it, and written so that it is found again."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import PeftModel
from transformers.utils import GENERATION_CONFIG_NAME

from dpo_cli.errors import ModelError, TrainingError
from dpo_cli.events import Noted, OnEvent, ignore
from dpo_cli.models.adapters import merged
from dpo_cli.models.devices import choose_dtype
from dpo_cli.models.fingerprint import record_base
from dpo_cli.models.finite import not_finite_weights, trained_parameters
from dpo_cli.models.loading import load_model, load_tokenizer, require_embeddings
from dpo_cli.models.memory import out_of_memory_in_words
from dpo_cli.models.precision import ask_in, held_in, stored_dtype

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.config import OptimizationConfig
    from dpo_cli.models.locate import LocatedModel


def load_policy(
    located: LocatedModel,
    config: OptimizationConfig,
    *,
    device: str | None = None,
    pairs: Dataset | IterableDataset | None = None,
    on_event: OnEvent = ignore,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load what is going to be trained: weights in fp32, an adapter ready to be trained further.

    With `lora_rank` an adapter is merged into its base, on which the new one is trained; so it is the reference too.

    Args:
        located: The model.
        config: Settings that say how to load it.
        device: Where to; the configuration's device unless given.
        pairs: What it will be trained on, if that is known already: the tokenizer must be able to end them.
        on_event: Told what becomes of an adapter.

    Raises:
        ModelError: If its files cannot be used, or its tokenizer has no token to end these pairs with.
        TrainingError: If memory runs out.
    """
    if located.base is not None:
        new = f"a new one of rank {config.lora_rank} is trained on top of it, and it is the reference"
        what = new if config.lora_rank is not None else "it is trained further"
        on_event(Noted(f"{located.name} is an adapter: {what}"))
    trust = config.trust_remote_code
    tokenizer = load_tokenizer(located, **config.of_tokenizer)
    if pairs is not None:
        require_end_token(located.name, tokenizer, pairs)
    # Master weights stay in fp32; lower precision is a matter of autocast.
    with out_of_memory_in_words():
        model = load_model(
            located,
            dtype="float32",
            device=device or config.device,
            trust_remote_code=trust,
            trainable=True,
            on_event=on_event,
        )
        if located.base is not None and config.lora_rank is not None:
            model = merged(model)
            model.name_or_path = str(located.folder)  # peft takes a new adapter's base from here
    require_embeddings(located.name, model, tokenizer)
    ask_in(model, choose_dtype(config.dtype, model.device, parameters=model.num_parameters()))
    return model, tokenizer


def require_end_token(
    name: str, tokenizer: PreTrainedTokenizerBase, pairs: Dataset | IterableDataset
) -> None:
    """Refuse a tokenizer that TRL cannot train these pairs with.

    TRL ends completions of plain text with `eos_token`, and pads with it where there is no `pad_token`.

    Args:
        name: The model, for the message.
        tokenizer: The policy's.
        pairs: Preference pairs in TRL's layout.

    Raises:
        ModelError: If there is no such token.
    """
    if tokenizer.eos_token is not None:
        return
    if tokenizer.pad_token is None:
        raise ModelError(
            f"{name}: its tokenizer has neither an eos_token nor a pad_token",
            hint="Set them in its tokenizer_config.json.",
        )
    first = next(iter(pairs), None)
    if first is not None and isinstance(first["chosen"], str):
        raise ModelError(
            f"{name}: its tokenizer has no eos_token, which plain-text completions end with",
            hint="Set one in its tokenizer_config.json, or give the pairs as conversations.",
        )


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    located: LocatedModel,
    folder: Path,
    *,
    dtype: str = "float32",
) -> None:
    """Write the model or adapter in safetensors, and the tokenizer, into an existing folder.

    Args:
        model: The trained policy.
        tokenizer: Its tokenizer.
        located: The model that training began with.
        folder: Where to.
        dtype: Precision of the weights that are written; "auto" is the one that the model came in, and fp32 for adapters.

    Raises:
        TrainingError: If a weight is beyond the largest number of that precision.
    """
    adapters = isinstance(model, PeftModel)
    if dtype == "auto":
        written = torch.float32 if adapters else stored_dtype(located.weights.folder)
    else:
        written = getattr(torch, dtype)
    described = model.config.dtype
    with held_in(model, written):
        if written == torch.float16 and (beyond := not_finite_weights(trained_parameters(model))):
            raise TrainingError(
                f"{beyond} in float16, which ends at 65,504", hint="Give --save-dtype bfloat16 or float32."
            )
        _write_weights(model, located, folder)
    model.config.dtype = described  # transformers has written its own there
    tokenizer.save_pretrained(str(folder))


def _write_weights(model: PreTrainedModel, located: LocatedModel, folder: Path) -> None:
    if isinstance(model, PeftModel):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that trained embeddings are saved as well
            model.save_pretrained(str(folder), selected_adapters=["default"])
        base = _base_of(model, located)
        _name_base(folder / "adapter_config.json", base)
        record_base(base, folder)
    else:
        model.save_pretrained(str(folder))
        as_it_was = located.weights.folder / GENERATION_CONFIG_NAME
        if (
            as_it_was.is_file()
        ):  # transformers calls some invalid that others read, and drops what it does not know
            shutil.copyfile(as_it_was, folder / GENERATION_CONFIG_NAME)


def _base_of(model: PeftModel, located: LocatedModel) -> LocatedModel:
    """What a trained adapter sits on: its own base if it was trained further, else the model that training began with."""
    named = model.peft_config["default"].base_model_name_or_path
    return located if located.base is None or named == str(located.folder) else located.base


def _name_base(file: Path, base: LocatedModel) -> None:
    """Name an adapter's base and its revision as the user did: a path inside of a hub cache means nothing elsewhere."""
    config = json.loads(file.read_text(encoding="utf-8"))
    is_folder = Path(base.name).expanduser().is_dir()
    config["base_model_name_or_path"] = str(base.folder.resolve()) if is_folder else base.name
    config["revision"] = base.revision
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")
