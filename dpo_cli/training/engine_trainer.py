"""TRL's `DPOTrainer` with the shared-prefix engine and stored reference log-probabilities.

Use it in place of `trl.DPOTrainer`; every argument, loss and option is TRL's. With
`DPOConfig(precompute_ref_log_probs=True)` (what `dpo_cli` sets unless the data is streamed or the
reference moves) no second model is loaded, and `_precompute_ref_logps` below replaces TRL's cache, whose
key leaves out `ld_alpha` and truncation.
"""

# ruff: noqa: ANN401 - trl's arguments are passed through

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import transformers
import trl
from datasets import Dataset
from trl import DPOTrainer

from dpo_cli.errors import ConfigError, TrainingError
from dpo_cli.training.reference import (
    ReferenceCache,
    Truncation,
    batches_by_length,
    model_code,
    model_key,
    pair_key,
    reference_weights,
)
from dpo_cli.training.shared_prefix import ENGINE_VERSION, install_shared_prefix
from dpo_cli.training.trial import matmul_precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REFERENCE_TOKENS = 8192
"""Tokens of one reference forward: enough to keep the processor busy, less memory than a training step takes."""

REFERENCE_PAIRS = 256

SAVE_SECONDS = 180.0
"""How often references are written to disk while they are computed: a million pairs take some seconds to write."""


class EngineTrainer(DPOTrainer):
    """TRL's trainer with this project's engine.

    Args:
        *args: TRL's.
        engine: `shared-prefix`, or `trl` for TRL's own forward.
        cache_folder: Where reference log-probabilities are kept; None is `reference.cache_folder()`.
        on_reference: Called with (pairs done, pairs to do) while references are computed.
        notice: Called with a sentence the user should see (a damaged cache file, for instance).
        **kwargs: TRL's.

    Attributes:
        engine: What runs: `shared-prefix` or `trl`.
        fallback_reason: Why `trl` runs although `shared-prefix` was asked for; None otherwise.
        references_computed: Distinct pairs whose reference was computed in this run.
        references_found: Distinct pairs whose reference was found on disk.
        last_grad_norm: Norm of the last step's gradient before clipping; 0 before the first step.
    """

    last_grad_norm: Any = 0.0

    def __init__(
        self,
        *args: Any,
        engine: str = "shared-prefix",
        cache_folder: Path | None = None,
        on_reference: Callable[[int, int], None] | None = None,
        notice: Callable[[str], None] | None = None,
        **kwargs: Any,
    ) -> None:
        self.engine = engine
        self.fallback_reason: str | None = None
        self.references_computed = self.references_found = 0
        self._cache_folder, self._on_reference, self._notice = cache_folder, on_reference, notice
        self._engine_decided = False
        super().__init__(*args, **kwargs)
        self._decide_engine()

    def _decide_engine(self) -> None:
        """Install the engine once; TRL computes references inside its constructor, so this may run within it."""
        if self._engine_decided:
            return
        self._engine_decided = True
        if self.engine == "shared-prefix":
            self.fallback_reason = install_shared_prefix(self)
            if self.fallback_reason is not None:
                self.engine = "trl"

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradient's norm, remembered: transformers shows it to nobody but the log."""
        self.last_grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        return self.last_grad_norm

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """Add `ref_chosen_logps` and `ref_rejected_logps`, from disk where they are known."""
        if not isinstance(dataset, Dataset):
            return super()._precompute_ref_logps(dataset, name, batch_size)
        if self.accelerator.num_processes > 1:
            raise ConfigError(
                f"references are computed by one process, and there are {self.accelerator.num_processes}",
                hint="Start training without torchrun and accelerate launch.",
            )
        self._decide_engine()
        truncation = Truncation(self.args.max_length, self.args.truncation_mode)
        columns = dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]).to_dict()
        pairs = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        keys = [pair_key(pair, truncation) for pair in pairs]
        cache = ReferenceCache(self._reference_key, self._cache_folder, self._notice)
        known = cache.load()
        missing = {key: index for index, key in enumerate(keys) if key not in known}
        self.references_computed += len(missing)
        self.references_found += len(known.keys() & set(keys))
        if missing:
            known |= self._compute_references(
                [pairs[i] for i in missing.values()], list(missing), batch_size, cache
            )
        for column, side in (("ref_chosen_logps", 0), ("ref_rejected_logps", 1)):
            dataset = dataset.add_column(column, [known[key][side] for key in keys])
        return dataset

    @cached_property
    def _reference_key(self) -> str:
        """The key of the reference, which does not change while this trainer lives: its weights are read once."""
        model = self.model if self.ref_model is None else self.ref_model
        adapters = getattr(model, "peft_config", {})
        circumstances = {
            "ld_alpha": self.ld_alpha,
            "precision": [self.accelerator.mixed_precision, matmul_precision(self.accelerator.device.type)],
            "device": self.accelerator.device.type,
            "engine": [self.engine, ENGINE_VERSION if self.engine == "shared-prefix" else None],
            "versions": [torch.__version__, transformers.__version__, trl.__version__],
            "code": model_code(model.get_base_model() if adapters else model),
            "adapter": adapters["ref"].to_dict() if "ref" in adapters else None,
        }
        return model_key(reference_weights(model), model.config.to_dict(), circumstances)

    def _compute_references(
        self, pairs: list[dict[str, list[int]]], keys: list[bytes], batch_size: int, cache: ReferenceCache
    ) -> dict[bytes, tuple[float, float]]:
        """Score pairs with the reference, in groups of similar length, and keep what is done on disk."""
        lengths = [len(p["prompt_ids"]) + max(len(p["chosen_ids"]), len(p["rejected_ids"])) for p in pairs]
        limit = self.args.max_length or max(lengths)
        most = REFERENCE_PAIRS if self.engine == "shared-prefix" else batch_size
        groups = batches_by_length([min(n, limit) for n in lengths], REFERENCE_TOKENS, most)
        model = self.model if self.ref_model is None else self.ref_model
        found: dict[bytes, tuple[float, float]] = {}
        training, saved = model.training, time.monotonic()
        model.eval()
        try:
            for group in groups:
                batch = self.data_collator([pairs[i] for i in group])
                batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
                chosen, rejected = (side.float().cpu() for side in self.compute_ref_log_probs(model, batch))
                if not bool(torch.isfinite(chosen + rejected).all()):
                    raise TrainingError(
                        "The reference model's log-probabilities are not finite.",
                        hint="Check the model's weights, or train in fp32 (dtype).",
                    )
                scores = zip(chosen.tolist(), rejected.tolist(), strict=True)
                found |= dict(zip([keys[i] for i in group], scores, strict=True))
                if time.monotonic() - saved > SAVE_SECONDS:
                    cache.add(found)
                    saved = time.monotonic()
                if self._on_reference is not None:
                    self._on_reference(len(found), len(pairs))
        finally:
            model.train(training)
            cache.add(found)  # also what an interrupted run has computed
        return found
