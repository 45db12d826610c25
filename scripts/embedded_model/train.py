"""Trains the embedded model from its corpus: next-token loss on the answers."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from embedded_model.corpus import examples
from embedded_model.tokenizer import END, PAD, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Recipe:
    """How the shipped weights were made."""

    seed: int = 0
    steps: int = 6500
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup: int = 200
    decay_share: float = 0.5
    weight_decay: float = 0.05
    threads: int = 1
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    mlp: int = 384


Encoded = tuple[list[int], int]
_WINDOW = 40


def new_model(tokenizer: Tokenizer, recipe: Recipe) -> LlamaForCausalLM:
    """Returns a Llama with random weights."""
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=recipe.mlp,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.02,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
    )
    return LlamaForCausalLM(config)


def batches(tokenizer: Tokenizer, recipe: Recipe) -> Iterator[list[Encoded]]:
    """Yields batches of examples of like length, in an order that does not follow length."""
    rng = random.Random(recipe.seed)  # noqa: S311 - not for secrets
    source = examples(recipe.seed, recipe.steps * recipe.batch_size)
    while True:
        window = [
            render(example) for _, example in zip(range(_WINDOW * recipe.batch_size), source, strict=False)
        ]
        if not window:
            return
        asked = tokenizer.encode_batch([prompt for prompt, _ in window])
        said = tokenizer.encode_batch([completion for _, completion in window])
        encoded = [
            (prompt.ids + answer.ids, len(prompt.ids)) for prompt, answer in zip(asked, said, strict=True)
        ]
        encoded.sort(key=lambda pair: (len(pair[0]), pair))
        groups = [
            encoded[start : start + recipe.batch_size] for start in range(0, len(encoded), recipe.batch_size)
        ]
        rng.shuffle(groups)
        yield from groups


def loss_on_answers(model: LlamaForCausalLM, batch: list[Encoded]) -> torch.Tensor:
    """Returns the mean cross-entropy of the answers' tokens.

    Padding stands to the right and attention looks only back, so that no mask is needed; the vocabulary is
    projected only where an answer's token is predicted.
    """
    width = max(len(ids) for ids, _ in batch)
    pad = model.config.pad_token_id
    inputs = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in batch])
    places = [
        (row, place - 1) for row, (ids, prompt) in enumerate(batch) for place in range(prompt, len(ids))
    ]
    rows, columns = (torch.tensor(column) for column in zip(*places, strict=True))
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[rows, columns])
    return functional.cross_entropy(logits.float(), inputs[rows, columns + 1])


def _rate(step: int, recipe: Recipe) -> float:
    """Returns the share of the learning rate: warm-up, flat, then linear to nothing."""
    decay_from = recipe.steps * (1 - recipe.decay_share)
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 1.0 if step < decay_from else max(0.0, (recipe.steps - step) / (recipe.steps - decay_from))


def train(tokenizer: Tokenizer, recipe: Recipe) -> LlamaForCausalLM:
    """Trains a new model and returns it; progress goes to stderr."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    model = new_model(tokenizer, recipe)
    # On a CPU the fused kernel's backward pass in bf16 takes ten times as long as plain matrix products.
    model.set_attn_implementation("eager")
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    began, recent = time.monotonic(), 0.0
    for step, batch in enumerate(batches(tokenizer, recipe), 1):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_on_answers(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
        if step % 100 == 0:
            sys.stderr.write(
                f"step {step}/{recipe.steps}  loss {recent:.4f}  {time.monotonic() - began:.0f} s\n"
            )
    return model.eval()
