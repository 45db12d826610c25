"""Models that learned a vector for each position (GPT-2, OPT) are neither asked nor trained beyond the last one."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_models import make_model, make_model_with_positions, make_tokenizer

from dpo_cli.config import CheckConfig, CompareConfig, DPOTrainingConfig
from dpo_cli.errors import ConfigError, ModelError
from dpo_cli.evaluation.divergence import Continuation, token_log_probs
from dpo_cli.events import Noted
from dpo_cli.jobs.check import check
from dpo_cli.jobs.compare import compare
from dpo_cli.jobs.train import train
from dpo_cli.models.generate import generate, prompt_ids, stream
from dpo_cli.models.locate import locate_model
from dpo_cli.models.positions import positions_in, positions_of

POSITIONS = 64
KINDS = pytest.mark.parametrize("kind", ["gpt2", "opt"])


@pytest.fixture
def folder(tmp_path):
    def write(kind):
        tokenizer = make_tokenizer()
        make_model_with_positions(tokenizer, kind, POSITIONS).save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        return str(tmp_path / kind)

    return write


def ask(text):
    return [{"role": "user", "content": text}]


def prompt_of(tokenizer, tokens):
    """A question whose prompt has so many tokens: a letter that is merged with nothing adds one."""
    empty = len(prompt_ids(tokenizer, [ask("")])[0])
    found = ask("~" * (tokens - empty))
    assert len(prompt_ids(tokenizer, [found])[0]) == tokens
    return found


@KINDS
def test_positions_are_read_from_a_folder_and_from_a_model(folder, kind):
    assert positions_of(locate_model(folder(kind))) == POSITIONS
    assert positions_in(make_model_with_positions(make_tokenizer(), kind, POSITIONS)) == POSITIONS


def test_rotary_models_have_no_limit(tiny_model):
    assert positions_of(locate_model(str(tiny_model))) is None
    assert positions_in(make_model(make_tokenizer())) is None


def test_positions_of_pictures_are_not_those_of_text():
    model = make_model(make_tokenizer())
    model.vision_tower = torch.nn.Module()
    model.vision_tower.position_embedding = torch.nn.Embedding(16, 32)
    assert positions_in(model) is None


@KINDS
def test_an_answer_ends_at_the_last_position_and_no_neighbour_shortens_it(kind):
    tokenizer = make_tokenizer()
    model = make_model_with_positions(tokenizer, kind, POSITIONS)
    tokenizer.eos_token = "<|endoftext|>"
    asked = [prompt_of(tokenizer, length) for length in (POSITIONS - 1, 40, POSITIONS - 3, 24)]
    together = generate(model, tokenizer, asked, max_new_tokens=30, batch_size=4)
    assert together == [generate(model, tokenizer, [one], max_new_tokens=30)[0] for one in asked]
    for one in together:
        assert len(one.token_ids) <= min(30, POSITIONS - len(one.prompt_ids))
    list(stream(model, tokenizer, asked[0], max_new_tokens=30))


@KINDS
def test_a_prompt_that_fills_the_positions_is_refused_with_both_numbers(kind):
    tokenizer = make_tokenizer()
    model = make_model_with_positions(tokenizer, kind, POSITIONS)
    with pytest.raises(ModelError, match=r"64 tokens.*64 positions"):
        generate(model, tokenizer, [prompt_of(tokenizer, POSITIONS)])
    with pytest.raises(ModelError, match=r"80 tokens.*64 positions"):
        list(stream(model, tokenizer, prompt_of(tokenizer, 80)))
    with pytest.raises(ModelError, match=r"70 tokens.*64 positions"):
        token_log_probs(model, [Continuation([1] * 60, [2] * 10)])


def pairs_file(path, lengths):
    rows = [
        {
            "prompt": ask("~" * length),
            "chosen": [{"role": "assistant", "content": "yes " * 30}],
            "rejected": [{"role": "assistant", "content": "no " * 30}],
        }
        for length in lengths
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def settings(folder, tmp_path, **changes):
    return DPOTrainingConfig(
        model=folder,
        dataset=pairs_file(tmp_path / "p.jsonl", (1, 2, 3, 4)),
        eval_dataset=pairs_file(tmp_path / "e.jsonl", (1, 5)),
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        allow_drops=True,
        **changes,
    )


@KINDS
def test_training_beyond_the_positions_is_refused_or_the_default_lowered(folder, tmp_path, kind):
    name = folder(kind)
    for job in (train, lambda config: check(CheckConfig(dataset=config.dataset, model=name, max_length=65))):
        with pytest.raises(ConfigError, match=r"--max-length 65: .* 64 positions"):
            job(settings(name, tmp_path, max_length=65))
    assert not (tmp_path / "out").exists()
    events = []
    result = train(settings(name, tmp_path), events.append)
    said = [event.message for event in events if isinstance(event, Noted)]
    assert any("max_length is 64 instead of 1,024" in line for line in said)
    assert result.config.max_length == POSITIONS
    assert result.comparison.margins is not None
    assert not result.problems
    with pytest.raises(ConfigError, match=r"--max-length 65: .* 64 positions"):
        compare(CompareConfig(before=name, after=str(tmp_path / "out"), max_length=65))
    again = CompareConfig(after=str(tmp_path / "out"), question=("Hi",), system_prompt="")
    assert compare(again).margins is not None


def test_a_held_out_prompt_without_room_for_an_answer_is_left_out_of_the_questions(folder, tmp_path):
    """Its pair is trained without the default system prompt, its question asked with it."""
    config = settings(folder("gpt2"), tmp_path)
    pairs_file(tmp_path / "e.jsonl", (1, 40))
    events = []
    result = train(config, events.append)
    assert len(result.comparison.answers) == 1
    assert any("1 held-out prompts are not asked" in e.message for e in events if isinstance(e, Noted))
