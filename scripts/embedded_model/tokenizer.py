"""The embedded model's tokenizer: byte-level BPE with single digits, and the ChatML template."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PreTrainedTokenizerFast

    from embedded_model.corpus import Example

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 2048


def train_tokenizer(examples: Iterable[Example]) -> Tokenizer:
    """Learns the merges from the corpus; all 256 bytes are in the vocabulary, so that no text is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (
        f"{example.system or ''}\n{example.question}\n{example.answer}\nuser\nassistant\nsystem"
        for example in examples
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def chat_template() -> str:
    """Returns the ChatML template: a system role, and no default system prompt."""
    return files("dpo_cli.models.embedded").joinpath("chat_template.jinja").read_text(encoding="utf-8")


def render(example: Example) -> tuple[str, str]:
    """Returns prompt and completion as the template writes them, the newline after the end of turn included."""
    turns = [] if example.system is None else [("system", example.system)]
    turns.append(("user", example.question))
    prompt = "".join(f"{START}{role}\n{content}{END}\n" for role, content in turns) + f"{START}assistant\n"
    return prompt, f"{example.answer}{END}\n"


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Returns the tokenizer as transformers loads it."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=512,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = chat_template()
    return wrapped
