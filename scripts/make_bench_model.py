"""Write a Llama with random weights and the widths of SmolLM2-135M, with a tokenizer trained on the given pairs.

Hub models cannot be had offline. Speed and memory do not depend on what the weights say, and the number of
tokens comes from a byte-level BPE trained on the data itself; the vocabulary is padded to SmolLM2's 49,152
so that the LM head costs what it costs there.

    python scripts/make_bench_model.py ../shared/data/preference_pairs_en.json build/bench-model --layers 10
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main() -> None:
    """Write the model folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=10)
    arguments = parser.parse_args()
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=49_152,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = json.loads(arguments.data.read_text())
    raw.train_from_iterator((json.dumps(row, ensure_ascii=False) for row in rows), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",  # noqa: S106 - a token of the vocabulary
        pad_token="<|endoftext|>",  # noqa: S106
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(arguments.folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=arguments.layers,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0}, rms_norm_eps=1e-5,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.0417,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(arguments.folder)
    print(
        f"{arguments.folder}: {model.num_parameters():,} parameters, {raw.get_vocab_size():,} tokens in the tokenizer"
    )


if __name__ == "__main__":
    main()
