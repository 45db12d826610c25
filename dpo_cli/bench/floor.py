"""The least time a run could take: operations it cannot do without, over the machine's matrix-product rate."""

# ruff: noqa: ANN401 - trl's and transformers' objects are Any to mypy

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from dpo_cli.engine.packing import pack_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

RATE_SIZE = 2048
RATE_SECONDS = 1.0
RATE_PRODUCTS = 3


def matmul_rate(
    dtype: torch.dtype,
    device: torch.device,
    *,
    seconds: float = RATE_SECONDS,
    now: Callable[[], float] = time.perf_counter,
) -> float:
    """Operations per second of a square matrix product.

    Args:
        dtype: What to multiply.
        device: Where.
        seconds: How long to try; the fastest product counts.
        now: The clock.
    """
    a, b = (torch.randn(RATE_SIZE, RATE_SIZE).to(device, dtype) for _ in range(2))
    a @ b  # the first product chooses and loads kernels
    taken: list[float] = []
    while len(taken) < RATE_PRODUCTS or sum(taken) < seconds:
        start = now()
        float((a @ b)[0, 0])  # reading a number waits for the device
        taken.append(now() - start)
    return 2 * RATE_SIZE**3 / min(taken)


def useful_flops(trainer: Any) -> float:
    """Operations per pair that a first epoch of full DPO training cannot do without.

    Forward and backward (three forwards; two where the weights are frozen) over every token once, a shared
    beginning counted once, the LM head on completion tokens only, and one forward of the reference. The
    products inside of attention are counted with the causal half. Nothing is counted for norms,
    activations, softmax or the optimizer.

    Args:
        trainer: A TRL `DPOTrainer` whose train set is tokenized.

    Returns:
        The mean over its train set.
    """
    from accelerate.utils import is_peft_model

    model = trainer.model.get_base_model() if is_peft_model(trainer.model) else trainer.model
    config = model.config.get_text_config()
    head = model.get_output_embeddings().weight
    linear = sum(
        p.numel()
        for name, p in model.base_model.named_parameters()
        if p.dim() > 1 and "embed" not in name and "lora_" not in name and p.data_ptr() != head.data_ptr()
    )
    wide = config.num_hidden_layers * config.num_attention_heads
    wide *= getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    total = 0.0
    rows = trainer.train_dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
    for row in rows:
        batch = trainer.data_collator([row])
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        packed = pack_pairs(batch["input_ids"], batch["attention_mask"], labels)
        seen = sum(
            s.shared**2 / 2 + sum(c * s.shared + c**2 / 2 for c in (s.chosen, s.rejected))
            for s in packed.spans
        )
        body = 2 * linear * len(packed.token_ids) + 4 * wide * seen
        total += body + 2 * head.numel() * len(packed.scored_positions)
    forwards = 3 if not is_peft_model(trainer.model) else 2
    return (forwards + 1) * total / len(rows)
