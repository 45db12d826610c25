"""Time per pair against prompt length, completion length, batch size and common start, of both engines.

Forward and backward of a policy (two layers of SmolLM2-135M's widths, vocabulary 8,192) on pairs of exactly
the given lengths. CPU seconds of one thread, so that a busy machine does not show.

    OMP_NUM_THREADS=1 python scripts/measure_growth.py docs/figures/growth.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

from dpo_cli.engine.shared_prefix import install_forward
from dpo_cli.models.memory import keep_memory

VOCABULARY = 8192
USUAL = {"prompt": 128, "completion": 128, "batch": 2, "common": 0}
SWEEPS = {
    "prompt": [16, 128, 256, 512, 1024],
    "completion": [16, 128, 256, 512],
    "batch": [1, 2, 4, 8],
    "common": [0, 32, 64, 120],
}
OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")


def model() -> Any:  # noqa: ANN401 - transformers' class is Any to mypy
    """Two layers with the widths of SmolLM2-135M and a fused head of TRL's."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=576, intermediate_size=1536, num_hidden_layers=2, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=4096, pad_token_id=0,
    )  # fmt: skip
    made = LlamaForCausalLM(config)
    add_fused_lm_head(made, outputs=OUTPUTS)
    return made


def batch(prompt: int, completion: int, batch: int, common: int) -> dict[str, torch.Tensor]:
    """A TRL batch of pairs whose completions begin with `common` equal tokens."""
    draw = torch.Generator().manual_seed(1)

    def words(count: int) -> list[int]:
        return torch.randint(1, VOCABULARY, (count,), generator=draw).tolist()

    rows = []
    for _ in range(batch):
        start, end = words(common), completion - common
        rows.append(
            {
                "prompt_ids": words(prompt),
                "chosen_ids": start + words(end),
                "rejected_ids": start + words(end),
            }
        )
    made = DataCollatorForPreference(pad_token_id=0)(rows)
    labels = made["input_ids"].masked_fill(made.pop("completion_mask") == 0, -100)
    return {**made, "labels": labels}


def seconds_a_pair(policy: Any, shape: dict[str, int], repetitions: int = 2) -> float:  # noqa: ANN401 - as above
    """CPU seconds of forward and backward, the fastest of a few."""
    inputs, taken = batch(**shape), []
    for _ in range(repetitions):
        policy.zero_grad()
        start = time.process_time()
        scores = policy(**inputs, fused_lm_head=True, use_cache=False)
        chosen, rejected = scores.log_probs.sum(1).chunk(2)
        (-torch.nn.functional.logsigmoid(0.1 * (chosen - rejected))).mean().backward()
        taken.append(time.process_time() - start)
    return min(taken) / shape["batch"]


def main() -> None:
    """Measure every point with both engines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    given = parser.parse_args()
    keep_memory()
    stock, ours = model(), model()
    reason = install_forward(ours, frozenset(OUTPUTS[1:]))
    if reason is not None:
        raise SystemExit(reason)
    found: dict[str, list[dict[str, float]]] = {}
    for name, values in SWEEPS.items():
        found[name] = []
        for value in values:
            shape = {**USUAL, name: value}
            point = {
                "value": value,
                "shared-prefix": seconds_a_pair(ours, shape),
                "trl": seconds_a_pair(stock, shape),
            }
            found[name].append(point)
            given.results.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
