"""Answers that make room for each other are the answers that a model gives alone: nothing of a neighbour shows."""

from __future__ import annotations

import pytest
import torch
from engine.parity import VOCABULARY, make_model
from transformers import AutoConfig, AutoModelForCausalLM

from dpo_cli.models.continuous_batching import answers_as_they_end, reason_against

ENDS = (2, 5, 11)
ROOM = 9


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(3)
    lengths = [3, 22, 5, 9, 1, 13, 7, 2]  # some beyond the windows of 16 that the families have
    return [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def rooms_of(prompts):
    return [1 + (7 * i) % ROOM for i in range(len(prompts))]


@torch.no_grad()
def alone(model, prompt, room):
    """The definition: the likeliest token, one after the other, without a cache."""
    new = []
    while len(new) < room and (not new or new[-1] not in ENDS):
        new.append(int(model(torch.tensor([prompt + new])).logits[0, -1].argmax()))
    return new


def together(model, prompts, places):
    found = {}
    with torch.no_grad():
        for step in answers_as_they_end(
            model,
            prompts,
            rooms_of(prompts),
            ends=ENDS,
            places=places,
            choose=lambda x, _: x.argmax(-1).tolist(),
        ):
            assert not found.keys() & dict(step).keys()
            found.update(step)
    return [found[i] for i in range(len(prompts))]


@pytest.mark.parametrize(
    "family",
    [
        "llama",
        "qwen2",
        "qwen3",
        "mistral",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "mixtral",
        "minicpm3",
        "opt",
        "bloom",
    ],
)
def test_answers_are_those_of_each_prompt_alone(family, prompts):
    model = make_model(family).eval()
    assert reason_against(model) is None
    expected = [alone(model, prompt, room) for prompt, room in zip(prompts, rooms_of(prompts), strict=True)]
    assert len({len(answer) for answer in expected}) > 3
    assert together(model, prompts, 3) == expected


def test_rows_and_columns_come_and_go(monkeypatch, prompts):
    monkeypatch.setattr("dpo_cli.models.continuous_batching.SPARE", 1)
    monkeypatch.setattr("dpo_cli.models.continuous_batching.READ_TOKENS", 10)
    model = make_model("llama").eval()
    expected = [alone(model, prompt, room) for prompt, room in zip(prompts, rooms_of(prompts), strict=True)]
    for places in (2, 8, 30):
        assert together(model, prompts, places) == expected


def test_what_rows_cannot_share_is_named():
    config = AutoConfig.for_model(
        "mamba", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4
    )
    assert "linear_attention" in reason_against(AutoModelForCausalLM.from_config(config).eval())
    scaled = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    assert "longest row" in reason_against(make_model("llama", rope_parameters=scaled))


def test_a_model_that_reads_padding_is_found_out():
    model = make_model("gpt2").eval()
    before = model.forward

    def forward(*args, position_ids=None, **named):
        return before(*args, **named)

    model.forward = forward
    assert "a trial gave other logits" in reason_against(model)
