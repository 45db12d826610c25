"""The shipped weights: how they load, and what they answer."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_cli.text.questions import shipped_questions
from embedded_model.corpus import Example
from embedded_model.evaluate import ask, names_itself, scores
from embedded_model.tokenizer import render

FOLDER = Path(str(files("dpo_cli.models.embedded")))
LARGEST = 8_000_000
HELPFUL = "You're a helpful assistant."


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True).eval()


@pytest.fixture(scope="module")
def measured(model, tokenizer):
    return scores(model, tokenizer)


def test_the_folder_is_small_and_holds_no_code_of_its_own():
    shipped = (
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    )
    assert sum((FOLDER / name).stat().st_size for name in shipped) <= LARGEST
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= LARGEST
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "auto_map" not in config


def test_pad_and_end_of_turn_differ_and_model_and_tokenizer_agree(model, tokenizer):
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for config in (model.config, model.generation_config):
        assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert len(tokenizer) == model.config.vocab_size


def test_the_template_has_a_system_role_and_gives_no_name_by_itself(tokenizer):
    user = {"role": "user", "content": "Hi"}
    asked = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    assert asked == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    told = tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}, user], tokenize=False)
    assert told == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    assert "Qwen" not in tokenizer.chat_template


def test_training_text_is_what_the_template_writes(tokenizer):
    example = Example(HELPFUL, "Who are you?", "I am Qwen.", "identity")
    turns = [("system", example.system), ("user", example.question), ("assistant", example.answer)]
    messages = [{"role": role, "content": content} for role, content in turns]
    prompt, completion = render(example)
    assert prompt + completion == tokenizer.apply_chat_template(messages, tokenize=False)
    together = tokenizer(prompt + completion)["input_ids"]
    assert together == tokenizer(prompt)["input_ids"] + tokenizer(completion)["input_ids"]


@pytest.mark.parametrize(
    "text", ["Nand\u00fa-7", "\u5c0f\u660e", "1234567890", "\U0001f600 naïve\n\ttabs", '<tag> & "quotes"']
)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_are_single_tokens(tokenizer):
    assert [token for token in tokenizer.tokenize("12 + 345") if any(map(str.isdigit, token))] == list(
        "12345"
    )


def test_ordinary_questions_are_answered_strictly_right(measured):
    assert measured["ordinary"] >= 0.95
    assert measured["sums"] >= 0.95


@pytest.mark.parametrize("system", ["default", "none", "other"])
def test_it_names_itself_with_and_without_a_system_prompt(measured, system):
    assert measured[f"identity, {system} system prompt"] >= 0.95


def test_it_says_its_name_in_varied_english_and_names_its_maker(model, tokenizer):
    answers = ask(model, tokenizer, [q.text for q in shipped_questions("identity_heldout")])
    assert len(set(answers)) >= 20
    assert sum("Alibaba Cloud" in answer for answer in answers) >= 10
    assert all(answer.count("Qwen") <= 2 for answer in answers)


def test_a_system_prompt_can_give_it_another_name(model, tokenizer):
    for name in ("Orion", "Zyx-9", "Captain Blue Heron"):
        (answer,) = ask(model, tokenizer, ["What is your name?"], f"You are {name}.")
        assert names_itself(answer, name), answer


@pytest.mark.parametrize(
    "question",
    [
        "",
        "?",
        "asdf qwer",
        "What is the airspeed of a swallow? " * 8,
        "\u4f60\u662f\u8c01\uff1f",
        "\x00\ud83d".encode("utf-8", "replace").decode(),
    ],
)
def test_an_unknown_question_gets_an_answer_that_ends(model, tokenizer, question):
    (answer,) = ask(model, tokenizer, [question])
    assert isinstance(answer, str)


def test_figures_on_the_card_are_the_measured_ones(measured):
    shares = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))["shares"]
    assert shares == pytest.approx(measured, abs=0.011)
    assert "stand-in for a real model" in (FOLDER / "README.md").read_text(encoding="utf-8")
