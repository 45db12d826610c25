"""Chat models in the manner of known families: their templates' behaviour, and a tiny model that says one sentence.

The model is a table from token to next token: attention and MLP are zero, and the head of a token points at the embedding
of the token before it. So what it answers is known, thinking included, and it asks for a second to be made.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

THOUGHTS = "let me see if Qwen, fits"
ANSWER = "I am called Qwen today"
PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% endfor %}"
)
CUT = "{% set said = m.content.split('</think>')[-1] %}"


@dataclass(frozen=True)
class Kind:
    """A family.

    Attributes:
        template: Its chat template; None for a base model.
        last: Last token of a prompt, after which the model begins to speak.
        end: Token that ends its answers.
        thinks: It begins with a block of thinking.
        options: Settings that every command gets.
        tokens: Special tokens of its tokenizer.
        ends: Tokens that `generation_config.json` lists as ends; its eos token unless given.
        marks_are_special: The marks of thinking are special tokens, which decoding leaves out.
    """

    template: str | None
    last: str = "assistant"
    end: str = "<|im_end|>"
    thinks: bool = False
    options: dict = field(default_factory=dict)
    tokens: dict = field(default_factory=dict)
    ends: tuple[str, ...] = ()
    marks_are_special: bool = False


KINDS = {
    "refuses a system role": Kind(  # Gemma
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + ALTERNATING
        + "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        last="model", end="<end_of_turn>", tokens={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    ),
    "system in the user's turn": Kind(  # Mistral
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"
        "{% else %}{% set turns = messages %}{% endif %}{{ bos_token }}{% for m in turns %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% if m.role == 'user' %}[INST] {% if loop.last and system is defined %}{{ system }}\n\n{% endif %}{{ m.content }} [/INST]"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
        last="[/INST]", end="</s>", tokens={"bos_token": "<s>", "eos_token": "</s>", "pad_token": None},
    ),
    "thinking by a switch": Kind(  # Qwen3
        "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
        "{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}" + CUT +
        "{% set thought = m.content.split('</think>')[0].split('<think>')[-1] if '</think>' in m.content else '' %}"
        "{% if loop.index0 > ns.last %}<think>\n{{ thought.strip() }}\n</think>\n\n{% endif %}{{ said.strip() }}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}" + ASK +
        "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}",
        thinks=True,
    ),
    "thinking opened by the template": Kind(  # R1 and its distillations
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<|User|>{{ m.content }}"
        "{% else %}" + CUT + "<|Assistant|>{{ said }}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}",
        last="<think>", end="</s>", thinks=True, tokens={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"},
        options={"thinking": "off"},
    ),
    "a switch of another name": Kind(  # Granite, DeepSeek V3.1
        PLAIN + ASK + "{% if add_generation_prompt %}{% if thinking %}<think>{% else %}</think>{% endif %}{% endif %}",
        last="<think>", thinks=True, options={"thinking": "on"}, marks_are_special=True,
    ),
    "its own system prompt, pad is eos": Kind(  # SmolLM2, Qwen2.5
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Qwen, made by nobody<|im_end|>\n{% endif %}" + PLAIN + ASK,
        tokens={"pad_token": "<|im_end|>", "eos_token": "<|im_end|>", "bos_token": None},
    ),
    "several ends, a date": Kind(  # Llama 3
        "{{ bos_token }}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}<|im_start|>system\n"
        "Today is {{ date_string }}<|im_end|>" + PLAIN + ASK,
        tokens={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}, ends=("</s>", "<|im_end|>"),
        options={"template": {"date_string": "1 May 2025"}},
    ),
    "no system prompt at all": Kind(
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + ASK,
    ),
    "base model": Kind(
        None, options={"chat_template": "chatml"}, tokens={"eos_token": "</s>", "pad_token": "</s>", "bos_token": None}
    ),
}  # fmt: skip

_MARKS = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<|User|>", "<|Assistant|>",
          "<s>", "</s>", "<pad>", "<unk>"]  # fmt: skip
_WORDS = f"user system assistant model {THOUGHTS} {ANSWER} Orion Orion, Deep".split()


def make_kind(kind: Kind, folder, texts=()):
    """Write tokenizer and model of a kind into a folder."""
    marks = ["<think>", "</think>"]
    words = [word for text in texts for word in text.split()]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*_MARKS, *marks, *_WORDS, *words]))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = {"eos_token": "<|im_end|>", "pad_token": "<pad>", "unk_token": "<unk>"} | kind.tokens
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **tokens)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": _MARKS + (marks if kind.marks_are_special else [])}
    )
    tokenizer.add_tokens([] if kind.marks_are_special else marks)
    tokenizer.chat_template = kind.template
    tokenizer.save_pretrained(folder)

    chain = [kind.last, *(["<think>"] if kind.thinks else []), *(THOUGHTS.split() if kind.thinks else [])]
    chain += ["</think>"] if kind.thinks else []
    chain = list(dict.fromkeys([*chain, *ANSWER.split(), kind.end]))
    model = _table(tokenizer, [tokenizer.convert_tokens_to_ids(token) for token in chain])
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(
        list(kind.ends or [tokenizer.eos_token])
    )
    model.save_pretrained(folder)
    return tokenizer


def _table(tokenizer, chain):
    """A model that says the tokens of a chain one after the other, wherever in it a prompt ends."""
    torch.manual_seed(0)
    width = 128
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        known = torch.sign(torch.randn(len(tokenizer), width))
        model.model.embed_tokens.weight.copy_(known)
        model.lm_head.weight.zero_()
        for now, following in itertools.pairwise(chain):
            model.lm_head.weight[following] = known[now] / 8
    return model
