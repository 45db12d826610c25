"""Chat templates in the manner of known families, and conversations for them, in words the parity tokenizer knows."""

from __future__ import annotations

import torch
from engine import parity

MARKS = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "<think>", "</think>"]

TEMPLATES = {
    "ChatML": "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}",
    "default system prompt": "{% if messages[0].role != 'system' %}<|system|> w90 w91 <|end|> {% endif %}"
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}",
    "no system role": "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}",
    "thinking left out of the past": "{% for m in messages %}<|{{ m.role }}|> "
    "{% if m.role == 'assistant' and loop.last %}<think> </think> {% endif %}{{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}",
    "prompt that is no prefix": "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> <think> {% endif %}",
    "begins with the beginning token": "<bos> {% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}",
    "no generation prompt": "{% for m in messages %}{{ m.content }} <eos> {% endfor %}",
    "last turn only": "<|user|> {{ messages[0].content }} <|end|> <|assistant|> "
    "{% if messages[-1].role == 'assistant' %}{{ messages[-1].content }} <eos>{% endif %}",
}


def tokenizer(name: str):
    """The parity tokenizer with a template; its last words are the marks of turns."""
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<bos>": 1, "<eos>": 2} | {
        f"w{i}": i for i in range(3, parity.VOCABULARY - len(MARKS))
    }
    words |= {mark: parity.VOCABULARY - len(MARKS) + i for i, mark in enumerate(MARKS)}
    from tokenizers import Tokenizer, models, pre_tokenizers

    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        chat_template=TEMPLATES[name],
    )


def conversations(name: str, count: int = 9):
    """Pairs in TRL's layout, some of several turns, some with a system message where the template takes one."""
    draw = torch.Generator().manual_seed(4)

    def words(least, most):
        n = int(torch.randint(least, most + 1, (1,), generator=draw))
        return " ".join(f"w{i}" for i in torch.randint(3, 80, (n,), generator=draw).tolist())

    rows = []
    for number in range(count):
        prompt = [{"role": "user", "content": words(2, 12)}]
        if number % 3 == 0:
            prompt += [
                {"role": "assistant", "content": words(2, 9)},
                {"role": "user", "content": words(2, 9)},
            ]
        if number % 3 == 1 and name != "no system role":
            prompt.insert(0, {"role": "system", "content": words(2, 5)})
        start = words(1, 5)
        rows.append({
            "prompt": prompt,
            "chosen": [{"role": "assistant", "content": f"{start} {words(1, 9)}"}],
            "rejected": [{"role": "assistant", "content": f"{start} {words(1, 9)}"}],
        })  # fmt: skip
    return rows
