"""A character-level language model of sites, trained from nothing: ten tokens, two layers, 82,880 weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

BATCH = 128
LEARNING_RATE = 3e-3


def make_tokenizer(tags: Sequence[str], letters: str = "ACGT") -> PreTrainedTokenizerFast:
    """A tokenizer that knows `<pad>`, `<s>`, `</s>`, one token for each tag, and single letters."""
    words = ["<pad>", "<s>", "</s>", *tags, *letters]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("<[^>]*>|."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def make_model(vocabulary: int, longest: int) -> LlamaForCausalLM:
    """A tiny Llama with random weights."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=max(64, longest), tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def pretrain(
    folder: Path,
    texts: Sequence[tuple[str, str]],
    tags: Sequence[str],
    *,
    seed: int,
    epochs: int = 4,
    letters: str = "ACGT",
    on_step: Callable[[int, int, float], None] = lambda _step, _steps, _loss: None,
) -> None:
    """Train a model to continue a tag with a sequence, and save it with its tokenizer.

    Args:
        folder: Where to.
        texts: (tag, sequence); sequences may differ in length.
        tags: All tags there are.
        seed: Of weights and order.
        epochs: Passes over the texts.
        letters: The alphabet of the sequences.
        on_step: Called with step, number of steps and loss in nats a token.
    """
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(tags, letters)
    rows = tokenizer([tag + text + "</s>" for tag, text in texts], padding=True, return_tensors="pt")[
        "input_ids"
    ]
    model = make_model(len(tokenizer), rows.shape[1]).train()
    steps = epochs * -(-len(rows) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    step = 0
    for _ in range(epochs):
        for picked in torch.randperm(len(rows)).split(BATCH):
            batch = rows[picked]
            logits = model(input_ids=batch[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=0
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            on_step(step, steps, loss.item())
    model.eval().save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def log_probs(folder: Path, texts: Sequence[tuple[str, str]]) -> list[float]:
    """Log-probability of each sequence, its end included, after its tag, in nats.

    Args:
        folder: A model that `pretrain` or `dpo train` wrote.
        texts: (tag, sequence).
    """
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    found: list[float] = []
    with torch.no_grad():
        for start in range(0, len(texts), 1024):
            rows = tokenizer(
                [tag + text + "</s>" for tag, text in texts[start : start + 1024]],
                padding=True,
                return_tensors="pt",
            )
            ids = rows["input_ids"]
            scores = model(input_ids=ids[:, :-1]).logits.log_softmax(-1)
            picked = scores.gather(-1, ids[:, 1:, None])[..., 0]
            found += (picked * (ids[:, 1:] != 0)).sum(-1).tolist()
    return found


def quiet() -> None:
    """Leave out the progress bars and log lines of transformers."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def write_jsonl(file: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write rows, one JSON object a line."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
