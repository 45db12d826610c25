from __future__ import annotations

import pytest
import torch

from dpo_cli.errors import ModelError
from dpo_cli.models.generate import conversation, generate, prompt_ids, stream
from dpo_cli.models.loading import load_model_and_tokenizer

QUESTIONS = [
    "Who are you?",
    "What is the capital of France, please tell me?",
    "1",
    "Hi",
    "one two three " * 9,
]


@pytest.fixture(scope="module")
def pair(tiny_model):
    return load_model_and_tokenizer(str(tiny_model), dtype="float32")


@pytest.fixture(scope="module")
def prompts():
    return [conversation(question, "You're a helpful assistant.") for question in QUESTIONS]


@torch.no_grad()
def greedy(model, tokenizer, messages, steps):
    """The definition: the likeliest token, one after the other, until the end of the turn."""
    ids = prompt_ids(tokenizer, messages)
    new = []
    while len(new) < steps and (not new or new[-1] != tokenizer.eos_token_id):
        new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return new


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_give_what_greedy_decoding_gives(pair, prompts, batch_size):
    answers = generate(*pair, prompts, max_new_tokens=12, batch_size=batch_size)
    for messages, answer in zip(prompts, answers, strict=True):
        expected = greedy(*pair, messages, 12)
        assert answer.token_ids == expected
        assert answer.prompt_ids == prompt_ids(pair[1], messages)
        assert answer.truncated == (expected[-1] != pair[1].eos_token_id)


def test_an_answer_that_ends_is_not_truncated(pair, prompts):
    model, tokenizer = pair
    first = greedy(model, tokenizer, prompts[0], 1)[0]
    model.generation_config.eos_token_id = [first]
    try:
        answer = generate(model, tokenizer, prompts[:1], max_new_tokens=12)[0]
    finally:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    assert answer.token_ids == [first]
    assert not answer.truncated


def test_samples_follow_the_seed_and_leave_the_global_generator_alone(pair, prompts):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = generate(*pair, prompts, max_new_tokens=8, temperature=1.0, seed=1)
    assert torch.rand(1) == expected
    assert one == generate(*pair, prompts, max_new_tokens=8, temperature=1.0, seed=1)
    assert one != generate(*pair, prompts, max_new_tokens=8, temperature=1.0, seed=2)


def test_the_mode_of_the_model_is_left_as_it_was(pair, prompts):
    model, tokenizer = pair
    model.train()
    generate(model, tokenizer, prompts[:1], max_new_tokens=1)
    assert model.training
    model.eval()


def test_progress_is_told(pair, prompts):
    told = []
    generate(
        *pair, prompts, max_new_tokens=1, batch_size=2, on_progress=lambda done, of: told.append((done, of))
    )
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_a_stream_is_the_answer_in_pieces(pair, prompts):
    whole = generate(*pair, prompts[:1], max_new_tokens=12)[0].text
    pieces = list(stream(*pair, prompts[0], max_new_tokens=12))
    assert "".join(pieces).strip() == whole


def test_an_empty_system_prompt_is_left_out():
    assert conversation("Hi", "") == [{"role": "user", "content": "Hi"}]


def test_no_chat_template_is_said_with_the_way_out(pair, prompts):
    model, tokenizer = pair
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(ModelError, match="no chat template") as error:
            generate(model, tokenizer, prompts)
    finally:
        tokenizer.chat_template = template
    assert "--chat-template chatml" in error.value.hint
