"""TRL's `DPOTrainer` with the shared-prefix engine and stored reference log-probabilities.

Use it in place of `trl.DPOTrainer`; every argument, loss and option is TRL's. With
`DPOConfig(precompute_ref_log_probs=True)` (what `dpo_cli` sets unless the data is streamed or the
reference moves) no second model is loaded, and `_precompute_ref_logps` below replaces TRL's cache, whose
key leaves out `ld_alpha` and truncation.
"""

# ruff: noqa: ANN401 - trl's arguments are passed through

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers
import trl
from accelerate.utils import gather_object
from datasets import Dataset
from trl import DPOTrainer

from dpo_cli.errors import TrainingError
from dpo_cli.training.reference import (
    ReferenceCache,
    Truncation,
    batches_by_length,
    model_key,
    pair_key,
    reference_weights,
)
from dpo_cli.training.shared_prefix import ENGINE_VERSION, install_shared_prefix

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REFERENCE_TOKENS = 8192
"""Tokens of one reference forward: enough to keep the processor busy, less memory than a training step takes."""

REFERENCE_PAIRS = 256


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
        references_computed: Pairs whose reference was computed in this run.
        references_found: Pairs whose reference was found on disk.
    """

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

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """Add `ref_chosen_logps` and `ref_rejected_logps`, from disk where they are known."""
        if not isinstance(dataset, Dataset):
            return super()._precompute_ref_logps(dataset, name, batch_size)
        self._decide_engine()
        truncation = Truncation(self.args.max_length, self.args.truncation_mode)
        columns = dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]).to_dict()
        pairs = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        keys = [pair_key(pair, truncation) for pair in pairs]
        cache = ReferenceCache(self._reference_key(), self._cache_folder, self._notice)
        known = cache.load()
        missing = {key: index for index, key in enumerate(keys) if key not in known}
        self.references_computed += len(missing)
        self.references_found += len(keys) - len(missing)
        if missing:
            known |= self._compute_references([pairs[i] for i in missing.values()], list(missing), batch_size)
            if self.accelerator.is_main_process:
                cache.save(known)
        for column, side in (("ref_chosen_logps", 0), ("ref_rejected_logps", 1)):
            dataset = dataset.add_column(column, [known[key][side] for key in keys])
        return dataset

    def _reference_key(self) -> str:
        model = self.model if self.ref_model is None else self.ref_model
        adapters = getattr(model, "peft_config", {})
        circumstances = {
            "ld_alpha": self.ld_alpha,
            "precision": self.accelerator.mixed_precision,
            "device": self.accelerator.device.type,
            "engine": [self.engine, ENGINE_VERSION if self.engine == "shared-prefix" else trl.__version__],
            "versions": [torch.__version__, transformers.__version__],
            "adapter": adapters["ref"].to_dict() if "ref" in adapters else None,
        }
        return model_key(reference_weights(model), model.config.to_dict(), circumstances)

    def _compute_references(
        self, pairs: list[dict[str, list[int]]], keys: list[bytes], batch_size: int
    ) -> dict[bytes, tuple[float, float]]:
        """Score pairs with the reference, in groups of similar length, shared out over processes."""
        lengths = [len(p["prompt_ids"]) + max(len(p["chosen_ids"]), len(p["rejected_ids"])) for p in pairs]
        limit = self.args.max_length or max(lengths)
        most = REFERENCE_PAIRS if self.engine == "shared-prefix" else batch_size
        groups = batches_by_length([min(n, limit) for n in lengths], REFERENCE_TOKENS, most)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        model = self.model if self.ref_model is None else self.ref_model
        found: list[tuple[int, float, float]] = []
        training, done = model.training, 0
        model.eval()
        for group in groups[rank::world]:
            batch = self.data_collator([pairs[i] for i in group])
            batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
            chosen, rejected = (side.float().cpu() for side in self.compute_ref_log_probs(model, batch))
            if not bool(torch.isfinite(chosen + rejected).all()):
                raise TrainingError(
                    "The reference model's log-probabilities are not finite.",
                    hint="Check the model's weights, or train in fp32 (dtype).",
                )
            found += zip(group, chosen.tolist(), rejected.tolist(), strict=True)
            done += len(group)
            if self._on_reference is not None:
                self._on_reference(done * world if done < len(pairs) else len(pairs), len(pairs))
        model.train(training)
        gathered = gather_object(found) if world > 1 else found
        return {keys[i]: (chosen, rejected) for i, chosen, rejected in gathered}
