"""The model that is trained: loaded ready for it, and written so that it is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from peft import PeftModel

from dpo_cli.errors import ConfigError, ModelError
from dpo_cli.models.loading import load_model, load_tokenizer
from dpo_cli.models.memory import out_of_memory_in_words

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
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load what is going to be trained: weights in fp32, an adapter ready to be trained further.

    Args:
        located: The model.
        config: Settings that say how to load it.
        device: Where to; the configuration's device unless given.
        pairs: What it will be trained on, if that is known already: the tokenizer must be able to end them.

    Raises:
        ModelError: If its files cannot be used, or its tokenizer has no token to end these pairs with.
        ConfigError: If a new adapter is asked for on top of one.
        TrainingError: If memory runs out.
    """
    if located.base is not None and config.lora_rank is not None:
        raise ConfigError(
            f"--lora-rank: {located.name} is already an adapter, and its own weights are trained",
            hint="Remove --lora-rank, or give its base model as --model.",
        )
    trust = config.trust_remote_code
    tokenizer = load_tokenizer(located, trust_remote_code=trust, chat_template=config.chat_template)
    if pairs is not None:
        require_end_token(located.name, tokenizer, pairs)
    # Master weights stay in fp32; lower precision is a matter of autocast.
    with out_of_memory_in_words():
        model = load_model(
            located, dtype="float32", device=device or config.device, trust_remote_code=trust, trainable=True
        )
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
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, located: LocatedModel, folder: Path
) -> None:
    """Write the model or adapter in safetensors, and the tokenizer, into an existing folder.

    Args:
        model: The trained policy.
        tokenizer: Its tokenizer.
        located: The model that training began with.
        folder: Where to.
    """
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), selected_adapters=["default"])
        _name_base(folder / "adapter_config.json", located.weights)
    else:
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def _name_base(file: Path, base: LocatedModel) -> None:
    """Name an adapter's base and its revision as the user did: a path inside of a hub cache means nothing elsewhere."""
    config = json.loads(file.read_text(encoding="utf-8"))
    is_folder = Path(base.name).expanduser().is_dir()
    config["base_model_name_or_path"] = str(base.folder.resolve()) if is_folder else base.name
    config["revision"] = base.revision
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")
