"""One step on a throwaway model: what TRL, transformers or torch refuse is said with its key, before anything is loaded."""

from __future__ import annotations

import contextlib
import copy
import gc
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback

from dpo_cli.config.sources import flag_name
from dpo_cli.engine.trainer import SharedPrefixTrainer
from dpo_cli.errors import ConfigError, DpoError, first_line
from dpo_cli.training.quiet import quiet_trl
from dpo_cli.training.trl_config import lora_config, trl_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dpo_cli.config import OptimizationConfig

_NOT_TRIED = frozenset(
    {"router_aux_loss_coef", "pad_token", "run_name", "logging_dir", "load_best_model_at_end"}
)
"""Fields whose value fits one model or one whole run, not the throwaway one."""

_PLAIN = {"optim": "adamw_torch", "lr_scheduler_type": "linear"}

_END = "<end>"
_WORDS = (_END, "one", "two", "three", "four", "five")


def rehearse(config: OptimizationConfig, *, evaluate: bool) -> None:
    """Take one step with these settings on a model of a few numbers, and name those that cannot be used.

    Args:
        config: The settings of the run.
        evaluate: Whether there are held-out pairs.

    Raises:
        ConfigError: One line for each setting that is refused, alone or together with others.
    """
    changes = {
        f"trl: {key}": {"trl": {key: value}} for key, value in config.trl.items() if key not in _NOT_TRIED
    }
    for key, plain in _PLAIN.items():
        if getattr(config, key) != plain:
            changes[flag_name(key)] = {key: getattr(config, key)}
    with _heap_left_alone():
        reason = _refused(config, changes, evaluate=evaluate)
        if reason is None or _refused(config, {}, evaluate=evaluate):
            return  # what the plain settings cannot do either is said where it happens
        raise ConfigError("\n".join(_blamed(config, changes, reason, evaluate=evaluate)))


def _blamed(
    config: OptimizationConfig, changes: Mapping[str, dict[str, Any]], reason: str, *, evaluate: bool
) -> list[str]:
    """A line for each change that is refused alone; where none is, one for those that are refused together."""
    if len(changes) == 1:
        return [f"{name}: {reason}" for name in changes]
    alone = [
        f"{name}: {why}"
        for name, change in changes.items()
        if (why := _refused(config, {name: change}, evaluate=evaluate))
    ]
    if alone:
        return alone
    needed = [
        name
        for name in changes
        if not _refused(config, {n: c for n, c in changes.items() if n != name}, evaluate=evaluate)
    ]
    return [f"{', '.join(needed or changes)}: {reason}"]


def _refused(
    config: OptimizationConfig, changes: Mapping[str, dict[str, Any]], *, evaluate: bool
) -> str | None:
    """Why plain settings with these changes cannot take a step; None if they can."""
    update: dict[str, Any] = {"trl": {}} | _PLAIN
    for change in changes.values():
        update["trl"] |= change.get("trl", {})
        update |= {key: value for key, value in change.items() if key != "trl"}
    update |= {
        "max_steps": 1, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "max_length": 64,
        "gradient_accumulation_steps": 1, "report_to": (), "warmup_steps": 0, "warmup_ratio": None,
        "save_steps": config.save_steps and 1, "eval_steps": config.eval_steps and 1,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="dpo-rehearsal-") as folder, _dice_put_back(), quiet_trl():
        try:
            _step(config.model_copy(update=update), Path(folder), evaluate=evaluate)
        except DpoError as error:
            return error.message.removeprefix("trl: ")
        except Exception as error:  # noqa: BLE001 - whatever they raise, the settings made them raise it
            text = first_line(error)
            return (
                text
                if isinstance(error, (ValueError, ImportError, NotImplementedError))
                else f"{type(error).__name__}: {text}"
            )
    return None


def _step(config: Any, folder: Path, *, evaluate: bool) -> None:  # noqa: ANN401 - the settings of either command
    arguments = trl_arguments(
        config,
        folder=folder / "run",
        autocast="float32",
        on_cpu=config.device == "cpu" or not torch.cuda.is_available(),
        evaluate=evaluate,
        precompute=True,
    )
    model = _model()
    reference = None if arguments.precompute_ref_log_probs or config.lora_rank else copy.deepcopy(model)
    pairs = Dataset.from_list([{"prompt": "one two", "chosen": " three", "rejected": " four five"}] * 4)
    trainer = SharedPrefixTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=pairs,
        eval_dataset=pairs if evaluate else None,
        processing_class=_tokenizer(),
        peft_config=lora_config(config.lora_rank and 1),
        engine="trl",
        cache_folder=folder / "references",
    )
    trainer.remove_callback(PrinterCallback)
    if not arguments.torch_compile:  # which takes a minute, and longer than a run that ends in it
        trainer.train()


def _model() -> LlamaForCausalLM:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(_WORDS), bos_token_id=None, eos_token_id=0, pad_token_id=0, **sizes)
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(_WORDS)}, unk_token=_END))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=_END, pad_token=_END, unk_token=_END)


@contextlib.contextmanager
def _heap_left_alone() -> Iterator[None]:
    """Keep the collections that accelerate asks for from walking all that was loaded before: most of a step's time."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _dice_put_back() -> Iterator[None]:
    """Give random numbers to who comes after as if nothing had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what transformers seeds
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002 - as above
