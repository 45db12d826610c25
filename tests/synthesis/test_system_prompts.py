from __future__ import annotations

from collections import Counter

from tiny_models import make_tokenizer

from dpo_cli.synthesis.system_prompts import HELD_OUT, IN_PAIRS, SystemPrompts, system_prompts
from dpo_cli.text.questions import Question

DEFAULT = "You're a helpful assistant."
CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}{{ '<|im_start|>system\nOWN<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + m.role + '\n' + m.content }}{% endfor %}"
)


def of(template, default=DEFAULT, old="SmolLM"):
    return system_prompts(make_tokenizer(template=template), default, old, "Orion")


def test_the_templates_own_prompt_is_read_and_renamed():
    prompts = of(CHATML.replace("OWN", "You are SmolLM, trained by Hugging Face"))
    assert prompts.own == "You are SmolLM, trained by Hugging Face"
    assert prompts.renamed == "You are Orion, trained by Hugging Face"
    assert of(CHATML.replace("OWN", "You are SmolLM."), old="Elena").renamed == ""


def test_a_template_that_puts_in_nothing_has_no_prompt_of_its_own():
    plain = CHATML.replace("<|im_start|>system\nOWN<|im_end|>\n", "")
    assert of(plain) == SystemPrompts(DEFAULT)


def test_a_template_that_refuses_system_messages_is_asked_without():
    prompts = of(GEMMA)
    assert prompts == SystemPrompts("", accepted=False)
    assert prompts.spread_over(12) == prompts.asked(12) == [""] * 12
    questions = [Question("Who are you?", "identity")]
    assert prompts.spread(questions) == questions


def test_pairs_are_spread_and_most_are_asked_as_people_ask():
    counts = Counter(SystemPrompts(DEFAULT, "I am SmolLM", "I am Orion").spread_over(160))
    assert counts[DEFAULT] == 64
    assert counts[""] == 48
    assert counts["I am Orion"] == counts["I am SmolLM"] == 8
    assert set(counts) - {DEFAULT, "", "I am Orion", "I am SmolLM"} == set(IN_PAIRS)


def test_a_model_is_asked_with_the_default_and_without():
    assert Counter(SystemPrompts(DEFAULT, "I am SmolLM", "I am Orion").asked(160)) == {DEFAULT: 120, "": 40}


def test_held_out_questions_are_asked_with_the_default_and_without_and_a_part_otherwise():
    questions = [Question(f"{n}?", "identity") for n in range(9)]
    asked = SystemPrompts(DEFAULT, "I am SmolLM", "I am Orion").spread(questions)
    assert asked[:9] == questions
    assert Counter(question.asked_with for question in asked) == {
        "default": 9,
        "none": 9,
        "renamed": 3,
        "other": 3,
    }
    assert {q.system_prompt for q in asked if q.asked_with == "other"} <= set(HELD_OUT)
    assert set(HELD_OUT).isdisjoint(IN_PAIRS)
    # Where the default is no system prompt, nothing is asked twice.
    assert Counter(question.asked_with for question in SystemPrompts("").spread(questions)) == {
        "default": 9,
        "other": 3,
    }
