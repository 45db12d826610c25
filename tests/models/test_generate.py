from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

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
    ids = prompt_ids(tokenizer, [messages])[0]
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
        assert answer.prompt_ids == prompt_ids(pair[1], [messages])[0]
        assert answer.truncated == (expected[-1] != pair[1].eos_token_id)


def test_an_answer_that_ends_is_not_truncated(pair, suggesting, prompts):
    first = greedy(*pair, prompts[0], 1)[0]
    model, tokenizer = suggesting(min_new_tokens=12)
    model.generation_config.eos_token_id = [first]
    answer = generate(model, tokenizer, prompts[:1], max_new_tokens=12)[0]
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


SUGGESTIONS = {
    "a penalty of repetition": {"repetition_penalty": 1.3},
    "a penalty of what the prompt says": {"encoder_repetition_penalty": 1.3},
    "no token twice": {"no_repeat_ngram_size": 1},
    "none of the prompt's phrases": {"encoder_no_repeat_ngram_size": 1},
    "forbidden tokens": {"suppress_tokens": list(range(3, 200))},
    "forbidden first tokens": {"begin_suppress_tokens": list(range(3, 200))},
    "forbidden words": {"bad_words_ids": [[token] for token in range(3, 200)]},
    "favoured tokens": {"sequence_bias": [[[5], 20.0]]},
    "a forced end": {"forced_eos_token_id": 2},
    "a decaying length": {"exponential_decay_length_penalty": (1, 5.0)},
    "beams": {"num_beams": 3, "length_penalty": 2.0},
    "guidance": {"guidance_scale": 3.0},
    "a time limit": {"max_time": 0.0},
    "an end in text": {"stop_strings": ["e"]},
    "an object to return": {"return_dict_in_generate": True, "output_scores": True},
    "samples": {"do_sample": True, "temperature": 2.0, "top_p": 0.9, "num_return_sequences": 2},
    "a watermark": {"watermarking_config": {"bias": 20.0, "seeding_scheme": "selfhash", "context_width": 1}},
}


@pytest.fixture
def suggesting(pair):
    """The model with another `generation_config.json`."""
    model, tokenizer = pair
    own = model.generation_config

    def suggest(**values):
        model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id, **values)
        return model, tokenizer

    yield suggest
    model.generation_config = own


@pytest.mark.parametrize("suggestion", SUGGESTIONS)
def test_greedy_is_greedy_whatever_the_model_suggests(suggesting, prompts, suggestion):
    pair = suggesting(**SUGGESTIONS[suggestion])
    told = pair[0].generation_config
    answers = generate(*pair, prompts, max_new_tokens=12, batch_size=3)
    assert [answer.token_ids for answer in answers] == [greedy(*pair, messages, 12) for messages in prompts]
    assert pair[0].generation_config is told
    whole = "".join(stream(*pair, prompts[0], max_new_tokens=12))
    assert whole.strip() == answers[0].text


def test_the_suggestions_do_change_what_transformers_generates(suggesting, prompts):
    """The control: with its own settings the model says something else."""
    model, tokenizer = suggesting(**SUGGESTIONS["a penalty of repetition"])
    ids = torch.tensor([prompt_ids(tokenizer, [prompts[4]])[0]])
    own = model.generate(ids, max_new_tokens=12, pad_token_id=0)[0, ids.shape[1] :].tolist()
    assert own != greedy(model, tokenizer, prompts[4], 12)


def test_an_adapter_is_greedy_too_and_keeps_what_its_base_suggests(tiny_model, prompts):
    from peft import LoraConfig, get_peft_model

    base, tokenizer = load_model_and_tokenizer(str(tiny_model), dtype="float32")
    base.generation_config.repetition_penalty = 1.3
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    [answer] = generate(model, tokenizer, prompts[4:5], max_new_tokens=12)
    assert answer.token_ids == greedy(model, tokenizer, prompts[4], 12)
    assert model.generation_config.repetition_penalty == 1.3


@torch.no_grad()
def sampled(model, tokenizer, messages, steps, temperature, seed):
    """The definition: each token from the softmax of the logits over the temperature."""
    ids, new = prompt_ids(tokenizer, [messages])[0], []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        while len(new) < steps and (not new or new[-1] != tokenizer.eos_token_id):
            logits = model(torch.tensor([ids + new])).logits[0, -1]
            new.append(int(torch.multinomial((logits / temperature).softmax(-1), 1)))
    return new


def test_samples_come_from_the_tempered_distribution(suggesting, prompts):
    pair = suggesting(do_sample=True, temperature=0.1, top_p=0.2, top_k=3, min_p=0.5, repetition_penalty=1.3)
    for seed in range(5):
        [answer] = generate(*pair, prompts[:1], max_new_tokens=12, temperature=1.5, seed=seed)
        assert answer.token_ids == sampled(*pair, prompts[0], 12, 1.5, seed)


def test_samples_do_not_depend_on_who_else_is_asked(pair, prompts):
    asked = [*prompts, prompts[0]]
    one, other = (
        generate(*pair, asked, max_new_tokens=8, temperature=1.0, seed=3, batch_size=size) for size in (2, 5)
    )
    assert one == other
    assert one[0].token_ids == sampled(*pair, prompts[0], 8, 1.0, 3)
    assert one[0] != one[-1]


def test_what_cannot_be_refilled_is_answered_in_whole_batches(monkeypatch, pair, prompts):
    expected = generate(*pair, prompts, max_new_tokens=12)
    monkeypatch.setattr("dpo_cli.models.generate.reason_against", lambda _: "a reason")
    told = []
    found = generate(
        *pair, prompts, max_new_tokens=12, batch_size=2, on_progress=lambda done, of: told.append((done, of))
    )
    assert found == expected
    assert told == [(2, 5), (4, 5), (5, 5)]
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    sample = generate(*pair, prompts, max_new_tokens=8, temperature=1.0, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert sample == generate(*pair, prompts, max_new_tokens=8, temperature=1.0, seed=1)
