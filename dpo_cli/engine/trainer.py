"""TRL's `DPOTrainer` with the shared-prefix engine and stored reference log-probabilities.

Use it in place of `trl.DPOTrainer`; every argument, loss and option is TRL's. With
`DPOConfig(precompute_ref_log_probs=True)` (what `dpo_cli` sets unless the data is streamed or the
reference moves) no second model is loaded, and `_precompute_ref_logps` below replaces TRL's cache, whose
key leaves out `ld_alpha` and truncation.
"""

# ruff: noqa: ANN401 - trl's arguments are passed through

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import torch
import transformers
import trl
from datasets import Dataset
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_cli.batches import batches_by_length
from dpo_cli.engine.agreement import matmul_precision
from dpo_cli.engine.length_scaled_rope import length_limit
from dpo_cli.engine.packed_forward import ForwardCounts
from dpo_cli.engine.reference_cache import (
    ReferenceCache,
    Truncation,
    model_code,
    model_key,
    pair_key,
    reference_is_trained,
    reference_weights,
)
from dpo_cli.engine.shared_prefix import ENGINE_VERSION, install_shared_prefix
from dpo_cli.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REFERENCE_TOKENS = 8192
"""Tokens of one reference forward: enough to keep the processor busy, less memory than a training step takes."""

REFERENCE_PAIRS = 256

TOKENS = ["prompt_ids", "chosen_ids", "rejected_ids"]
"""Columns of a tokenized pair."""

Scores = tuple[float, float]
"""Log-probabilities of chosen and rejected."""

SAVE_SECONDS = 180.0
"""How often references are written to disk while they are computed: a million pairs take some seconds to write."""


class SharedPrefixTrainer(DPOTrainer):
    """TRL's trainer with this project's engine.

    Args:
        *args: TRL's.
        engine: `shared-prefix`, or `trl` for TRL's own forward.
        cache_folder: Where reference log-probabilities are kept; None is `reference.cache_folder()`.
        on_reference: Called with (pairs done, pairs to do) while references are computed.
        notice: Called with a sentence the user should see (a damaged cache file, for instance).
        on_handover: Called with a sentence and the step when batches go to TRL's forward although the engine is in place;
            once for each reason.
        **kwargs: TRL's.

    Attributes:
        engine: What runs: `shared-prefix` or `trl`.
        fallback_reason: Why `trl` runs although `shared-prefix` was asked for; None otherwise.
        forwards: Which forward answered how often, while the engine is in place.
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
        on_handover: Callable[[str, int], None] | None = None,
        **kwargs: Any,
    ) -> None:
        self.engine = engine
        self.fallback_reason: str | None = None
        self.references_computed = self.references_found = 0
        self._reference_keys: dict[tuple[str, int], str] = {}
        self.forwards = ForwardCounts(on_handover=self._say_handover)
        self._cache_folder, self._on_reference, self._notice = cache_folder, on_reference, notice
        self._on_handover = on_handover
        self._engine_decided = False
        super().__init__(*args, **kwargs)
        self._decide_engine()

    def _send_telemetry(self) -> None:
        """Send nothing: TRL would tell its hub the model's kind, the device and library versions, unless it is asked to."""
        if os.environ.get("HF_HUB_DISABLE_TELEMETRY", "").lower() in {"0", "false", "no", "off"}:
            super()._send_telemetry()

    def _prepare_dataset(self, dataset: Any, *arguments: Any, **named: Any) -> Any:
        """TRL's tokenized rows; pairs that have their ids already are such rows."""
        if isinstance(dataset, Dataset) and set(TOKENS) <= set(dataset.column_names):
            return dataset
        return super()._prepare_dataset(dataset, *arguments, **named)

    def _decide_engine(self) -> None:
        """Install the engine once; TRL computes references inside its constructor, so this may run within it."""
        if self._engine_decided:
            return
        self._engine_decided = True
        if self.engine == "shared-prefix":
            self.fallback_reason = install_shared_prefix(self, self.forwards)
            if self.fallback_reason is not None:
                self.engine = "trl"

    def _say_handover(self, reason: str, for_good: bool) -> None:
        """Say that batches go to TRL's forward although the engine is in place."""
        if for_good:
            self.engine, self.fallback_reason = "trl", reason
        if self._on_handover is not None:
            which = "From here on training uses" if for_good else "Some batches go through"
            self._on_handover(f"{which} TRL's own forward: {reason}.", self.state.global_step)

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
                f"references are computed by one process, but there are {self.accelerator.num_processes}",
                hint="Start training without torchrun and accelerate launch.",
            )
        self._decide_engine()
        reason = self._reason_not_to_store(dataset)
        if reason is None:
            references = self._stored_references(dataset, batch_size)
        else:
            self._say(f"Reference log-probabilities are not cached: {reason}.")
            references = self._references_in_order(dataset, batch_size)
        for column, side in (("ref_chosen_logps", 0), ("ref_rejected_logps", 1)):
            dataset = dataset.add_column(column, [scores[side] for scores in references])
        return dataset

    def _say(self, sentence: str) -> None:
        if self._notice is not None:
            self._notice(sentence)

    def _reason_not_to_store(self, dataset: Dataset) -> str | None:
        """Why a pair's reference would be another one in another batch or run; None where the pair determines it."""
        collator = self.data_collator
        if type(collator) is not DataCollatorForPreference:
            return f"{type(collator).__name__} decides what the model is shown"
        limit = length_limit(self._reference_model)
        if limit is None:
            return None
        longest = max(
            max(len(chosen), len(rejected)) + len(prompt)
            for prompt, chosen, rejected in zip(*(dataset[name] for name in TOKENS), strict=True)
        )
        if min(longest, collator.max_length or longest) <= limit:
            return None
        return f"beyond {limit} tokens the model's positions depend on the longest row of a batch"

    @property
    def _reference_model(self) -> Any:
        return self.model if self.ref_model is None else self.ref_model

    def _references_in_order(self, dataset: Dataset, batch_size: int) -> list[Scores]:
        """References of the batches that TRL would make of a data set."""
        found: list[Scores] = []
        with _evaluating(self._reference_model):
            for start in range(0, len(dataset), batch_size):
                rows = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
                found += self._reference_scores(rows)
                if self._on_reference is not None:
                    self._on_reference(len(found), len(dataset))
        self.references_computed += len(found)
        return found

    def _stored_references(self, dataset: Dataset, batch_size: int) -> list[Scores]:
        """References of single pairs, from disk where they are known."""
        collator = self.data_collator
        truncation = Truncation(collator.max_length, collator.truncation_mode)
        columns = dataset.select_columns(TOKENS).to_dict()
        pairs = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        keys = [pair_key(pair, truncation) for pair in pairs]
        known = self._reference_cache(self.engine).load()
        missing = {key: index for index, key in enumerate(keys) if key not in known}
        self.references_computed += len(missing)
        self.references_found += len(known.keys() & set(keys))
        if missing:
            known |= self._compute_references([pairs[i] for i in missing.values()], list(missing), batch_size)
        return [known[key] for key in keys]

    def _reference_cache(self, engine: str) -> ReferenceCache:
        """Where the references that an engine computes are kept.

        A reference does not change while this trainer lives, and its weights are read once, unless training reaches
        them: LoRA with `bias="all"` trains biases of the base.
        """
        model = self._reference_model
        step = self.state.global_step if reference_is_trained(model) else 0
        if (engine, step) not in self._reference_keys:
            self._reference_keys[engine, step] = self._reference_key(engine)
        return ReferenceCache(self._reference_keys[engine, step], self._cache_folder, self._notice)

    def _reference_key(self, engine: str) -> str:
        model = self._reference_model
        adapters = getattr(model, "peft_config", {})
        circumstances = {
            "ld_alpha": self.ld_alpha,
            "precision": [self.accelerator.mixed_precision, matmul_precision(self.accelerator.device.type)],
            "device": self.accelerator.device.type,
            "engine": [engine, ENGINE_VERSION if engine == "shared-prefix" else None],
            "versions": [torch.__version__, transformers.__version__, trl.__version__],
            "code": model_code(model.get_base_model() if adapters else model),
            "adapter": adapters["ref"].to_dict() if "ref" in adapters else None,
        }
        return model_key(reference_weights(model), model.config.to_dict(), circumstances)

    def _compute_references(
        self, pairs: list[dict[str, list[int]]], keys: list[bytes], batch_size: int
    ) -> dict[bytes, Scores]:
        """Score pairs with the reference, in groups of similar length, and keep what is done on disk."""
        lengths = [len(p["prompt_ids"]) + max(len(p["chosen_ids"]), len(p["rejected_ids"])) for p in pairs]
        limit = self.data_collator.max_length or max(lengths)
        most = REFERENCE_PAIRS if self.engine == "shared-prefix" else batch_size
        groups = batches_by_length(
            [min(n, limit) for n in lengths], most, REFERENCE_TOKENS // 2, longest_first=True
        )
        by_engine: dict[str, dict[bytes, Scores]] = {"shared-prefix": {}, "trl": {}}

        def keep() -> None:
            for engine, entries in by_engine.items():
                if entries:
                    self._reference_cache(engine).add(entries)

        done, saved = 0, time.monotonic()
        with _evaluating(self._reference_model):
            try:
                for group in groups:
                    left, packed = self.forwards.handed_over.total(), self.forwards.packed
                    scores = self._reference_scores([pairs[i] for i in group])
                    ours = self.forwards.packed > packed and self.forwards.handed_over.total() == left
                    entries = zip([keys[i] for i in group], scores, strict=True)
                    by_engine["shared-prefix" if ours else "trl"].update(entries)
                    done += len(group)
                    if time.monotonic() - saved > SAVE_SECONDS:
                        keep()
                        saved = time.monotonic()
                    if self._on_reference is not None:
                        self._on_reference(done, len(pairs))
            finally:
                keep()  # also what an interrupted run has computed
        return by_engine["shared-prefix"] | by_engine["trl"]

    def _reference_scores(self, rows: list[dict[str, Any]]) -> list[Scores]:
        """References of the pairs of one batch."""
        batch = self.data_collator(rows)
        device = self.accelerator.device
        batch = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}
        sides = self.compute_ref_log_probs(self._reference_model, batch)
        chosen, rejected = (side.float().cpu() for side in sides)
        if not bool(torch.isfinite(chosen + rejected).all()):
            raise TrainingError(
                "The reference model's log-probabilities are not finite.",
                hint="Check the model's weights, or train in fp32 (dtype).",
            )
        return list(zip(chosen.tolist(), rejected.tolist(), strict=True))


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Switch a model to evaluation, and back to what it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
