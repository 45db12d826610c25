"""Ask a model: many conversations at once, each answer up to the end of its turn."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from transformers import GenerationConfig

from dpo_cli.batches import batches_by_length
from dpo_cli.config import settings
from dpo_cli.errors import ModelError
from dpo_cli.models.adapters import bare_model
from dpo_cli.models.continuous_batching import answers_as_they_end, reason_against
from dpo_cli.models.loading import end_of_turn_ids
from dpo_cli.models.positions import positions_in
from dpo_cli.models.precision import fast_weights
from dpo_cli.models.templates import OPENED, Chat, Refusal, render_chats
from dpo_cli.models.thinking import AnswerReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextIteratorStreamer

    from dpo_cli.events import OnProgress

Message = dict[str, str]
T = TypeVar("T")

DEFAULT_SYSTEM_PROMPT: str = settings.GenerationConfig.model_fields["system_prompt"].default


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: The answer without special tokens, and without the thinking before it unless that is kept.
        truncated: It was cut off at `max_new_tokens`.
        prompt_ids: Tokens of the conversation as the model saw them.
        token_ids: Tokens of the answer, thinking and end of turn included when there are such.
        thinking: What the model thought before it answered, unless that is kept in `text`.
    """

    text: str
    truncated: bool
    prompt_ids: list[int]
    token_ids: list[int]
    thinking: str = ""


def conversation(question: str, system_prompt: str) -> list[Message]:
    """A question as the model is asked it everywhere: pairs, probes, test and compare."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": question}]


def accepted_system_prompt(tokenizer: PreTrainedTokenizerBase, system_prompt: str) -> str:
    """The system prompt to ask with: none where it is the default one and the chat template has no place for it.

    A template may refuse system messages, or write them where a model is asked and not where it has answered (Mistral's
    do): a model trained on answers has not seen the prompt then.

    Raises:
        ModelError: If the chat template was stopped for its time or memory.
    """
    if system_prompt != DEFAULT_SYSTEM_PROMPT or not tokenizer.chat_template:
        return system_prompt
    asked = conversation("a", system_prompt)
    with_it, without, answered = render_chats(
        tokenizer,
        [
            Chat(asked, add_generation_prompt=True),
            Chat(conversation("a", ""), add_generation_prompt=True),
            Chat([*asked, {"role": "assistant", "content": "b"}]),
        ],
    )
    if isinstance(with_it, Refusal):
        return "" if isinstance(without, str) else system_prompt
    only_asked = isinstance(answered, str) and system_prompt in with_it and system_prompt not in answered
    return "" if only_asked else system_prompt


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]]
) -> list[list[int]]:
    """Token ids of conversations that end where the assistant begins to speak.

    Raises:
        ModelError: If the tokenizer has no chat template, the template refuses a conversation, or it was stopped.
    """
    prompts = []
    texts = render_chats(
        tokenizer, [Chat(messages, add_generation_prompt=True) for messages in conversations]
    )
    for messages, text in zip(conversations, texts, strict=True):
        if isinstance(text, Refusal):
            system = any(message["role"] == "system" for message in messages)
            raise ModelError(
                text.reason, hint="Give --system-prompt '' to ask without a system message." if system else ""
            )
        prompts.append(list(tokenizer(text, add_special_tokens=False)["input_ids"]))
    return prompts


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int = 128,
    batch_size: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> list[Generation]:
    """Answer conversations, in their order.

    Args:
        model: A causal language model; its mode is left as it was.
        tokenizer: With a chat template.
        conversations: Messages, the last one the user's.
        max_new_tokens: Longest answer, in tokens; a model that learned its positions answers up to the last one.
        batch_size: Conversations answered at once; the next one begins where an answer ends.
        temperature: 0 takes the likeliest token; above it tokens are sampled from the tempered distribution. What the
            model's `generation_config.json` recommends beside that (penalties, cut-offs, beams) is not used.
        seed: Seed of the samples; the global generator is left as it was.
        on_progress: Called with (done, all) as answers end.

    Raises:
        ModelError: If the tokenizer has no chat template, or a conversation leaves no position for an answer.
    """
    prompts = prompt_ids(tokenizer, conversations)
    positions = positions_in(model)
    rooms = [_room(len(prompt), positions, max_new_tokens) for prompt in prompts]
    ends = end_of_turn_ids(model, tokenizer)
    reader = AnswerReader(tokenizer)
    answers: dict[int, Generation] = {}
    with evaluating(model), fast_weights(model), torch.no_grad():
        # One at a time there is nothing to refill.
        if min(batch_size, len(prompts)) > 1 and reason_against(model) is None:
            choose = _Sampler(temperature, seed, len(prompts), model.device)
            found = answers_as_they_end(model, prompts, rooms, ends=ends, places=batch_size, choose=choose)
        else:
            config = partial(_generation_config, ends, _pad_id(tokenizer, ends), temperature=temperature)
            found = _in_whole_batches(model, prompts, rooms, batch_size, config)
            found = found if temperature == 0 else _seeded(found, seed)
        for step in found:
            for place, ids in step:
                answers[place] = _generation(prompts[place], ids, ends, reader)
            if on_progress:
                on_progress(len(answers), len(prompts))
    return [answers[i] for i in range(len(prompts))]


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[str]:
    """Answer one conversation, yielding its text piece by piece as it is generated, thinking included.

    Raises:
        ModelError: As `generate`.
    """
    from threading import Thread

    from transformers import TextIteratorStreamer

    [ids] = prompt_ids(tokenizer, [messages])
    ends = end_of_turn_ids(model, tokenizer)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    room = _room(len(ids), positions_in(model), max_new_tokens)
    config = _generation_config(ends, _pad_id(tokenizer, ends), room, temperature=temperature)
    inputs = torch.tensor([ids], device=model.device)
    if temperature > 0:
        torch.manual_seed(seed)
    worker = Thread(
        target=_run, args=(model, config), kwargs={"ids": inputs, "streamer": streamer}, daemon=True
    )
    worker.start()
    if AnswerReader(tokenizer).opened(ids):
        yield f"{OPENED}\n"
    yield from streamer
    worker.join()


def _room(length: int, positions: int | None, wanted: int) -> int:
    """Tokens that an answer may have after a prompt of so many.

    Raises:
        ModelError: If that is none.
    """
    if positions is None:
        return wanted
    if length >= positions:
        raise ModelError(
            f"a prompt has {length:,} tokens, and the model learned {positions:,} positions: there is no room for an answer",
            hint="Ask something shorter, or another model.",
        )
    return min(wanted, positions - length)


class _Sampler:
    """Picks next tokens: the likeliest ones, or samples.

    Each prompt has a generator of its own: what is sampled for it does not depend on what is answered beside it.
    """

    def __init__(self, temperature: float, seed: int, prompts: int, device: torch.device) -> None:
        self.temperature = temperature
        if temperature > 0:
            more = torch.randint(2**62, (prompts,), generator=torch.Generator().manual_seed(seed)).tolist()
            self.generators = [torch.Generator(device).manual_seed(s) for s in [seed, *more[1:]]]

    def __call__(self, logits: torch.Tensor, prompts: Sequence[int]) -> list[int]:
        """The next token of each row, from logits `[rows, vocabulary]` and the index of each row's prompt."""
        if self.temperature == 0:
            likeliest: list[int] = logits.argmax(-1).tolist()
            return likeliest
        shares = (logits.float() / self.temperature).softmax(-1)
        return [
            int(torch.multinomial(share, 1, generator=self.generators[prompt]))
            for share, prompt in zip(shares, prompts, strict=True)
        ]


def _in_whole_batches(
    model: PreTrainedModel,
    prompts: list[list[int]],
    rooms: list[int],
    batch_size: int,
    configure: Callable[[int], GenerationConfig],
) -> Iterator[list[tuple[int, list[int]]]]:
    """Answers by transformers' `generate`, batch by batch: those of like length together, so that little is padding."""
    for chosen, room in _batches([len(prompt) for prompt in prompts], rooms, batch_size):
        new = _answer([prompts[i] for i in chosen], model, configure(room))
        yield list(zip(chosen, new, strict=True))


def _seeded(found: Iterator[T], seed: int) -> Iterator[T]:
    """Go through `found` with the global generator at a seed, and leave it as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield from found


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch a model to evaluation, and back to what it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _batches(
    lengths: Sequence[int], rooms: Sequence[int], batch_size: int
) -> Iterator[tuple[list[int], int]]:
    """Places of prompts that are answered together, and the longest answer of each: no neighbour shortens one."""
    for room in sorted(set(rooms)):
        places = [place for place, one in enumerate(rooms) if one == room]
        for batch in batches_by_length([lengths[place] for place in places], batch_size):
            yield [places[i] for i in batch], room


def _answer(prompts: list[list[int]], model: PreTrainedModel, config: GenerationConfig) -> list[list[int]]:
    """New tokens for one batch of prompts, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[config.pad_token_id] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    out = _run(model, config, ids=ids, mask=mask)
    new: list[list[int]] = out[:, longest:].tolist()
    return new


def _run(
    model: PreTrainedModel,
    config: GenerationConfig,
    *,
    ids: torch.Tensor,
    mask: torch.Tensor | None = None,
    streamer: TextIteratorStreamer | None = None,
) -> torch.Tensor:
    """Generate as `config` says, and as nothing else says.

    transformers fills what a given configuration leaves at None from the model's own: penalties of repetition, forbidden
    n-grams and tokens, beams, cut-offs of the distribution, time limits, even what kind of object comes back. Some of
    these cannot be switched off by a value (None is the only one), so the model's own stands aside meanwhile.
    """
    base = bare_model(model)
    own = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        with torch.no_grad():
            out: torch.Tensor = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids) if mask is None else mask,
                generation_config=config,
                streamer=streamer,
            )
        return out
    finally:
        base.generation_config = own


def _generation(prompt: list[int], new: list[int], ends: list[int], reader: AnswerReader) -> Generation:
    stop = next((k for k, token in enumerate(new) if token in ends), None)
    kept = new if stop is None else new[: stop + 1]
    thinking, answer = reader.read(prompt, kept)
    return Generation(answer, stop is None, prompt, kept, thinking)


def _generation_config(
    ends: list[int], pad: int, max_new_tokens: int, *, temperature: float
) -> GenerationConfig:
    # transformers' own default keeps the 50 likeliest tokens only.
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0}
        if temperature > 0
        else {"do_sample": False}
    )
    return GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=pad, **sampling)


def _pad_id(tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> int:
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return ends[0] if ends else 0
