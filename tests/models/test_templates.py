"""Templates are anybody's programs: the same text as transformers makes, or a sentence, in little time and memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_models import CHATML, make_tokenizer

from dpo_cli.errors import ModelError
from dpo_cli.models import templates
from dpo_cli.models.generate import DEFAULT_SYSTEM_PROMPT, accepted_system_prompt, conversation, prompt_ids
from dpo_cli.models.loading import end_of_turn_ids
from dpo_cli.models.templates import Chat, Refusal, render_chat, render_chats

MESSAGES = [{"role": "user", "content": "Hi \ud800 مرحبا 你好"}, {"role": "assistant", "content": "Ho"}]
LOOP = "{% for i in range(99999) %}"
END = "{% endfor %}"
NESTED = "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}"
DOUBLED = "{% set ns = namespace(a='abc' * 30000000) %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a }}"


def with_template(template):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        "{{ messages | tojson(indent=2) }}{{ tools }}{{ enable_thinking }}{{ eos_token }}",
        {"default": CHATML, "tool_use": "{{ tools | tojson }}"},
    ],
)
def test_the_text_is_the_one_that_transformers_makes(template):
    tokenizer = with_template(template)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"a": [1, None, 2.5]}}}]
    for extra in ({}, {"tools": tools}):
        for start in (False, True):
            theirs = tokenizer.apply_chat_template(
                MESSAGES, tokenize=False, add_generation_prompt=start, enable_thinking=False, **extra
            )
            chat = Chat(MESSAGES, add_generation_prompt=start, variables={"enable_thinking": False}, **extra)
            assert render_chat(tokenizer, chat) == theirs


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (LOOP * 4 + END * 4, "takes more than 1.0 s"),
        (LOOP * 2 + "x" * 50 + END * 2, "takes more than 1.0 s|MiB of memory"),
        (NESTED, "takes more than 1.0 s|MiB of memory"),
        (DOUBLED, "takes more than 1.0 s|MiB of memory"),
        ("{{ 'a' * 10**10 }}", "MiB of memory"),
        ("{{ 'a'.ljust(10**10) }}", "MiB of memory"),
        ("{{ 'a' * 40000000 }}", "produces a text of 40,000,000 characters"),
        ("a" * 200_000, "has 200,000 characters"),
    ],
    ids=["loop", "print", "nested", "doubled", "product", "padding", "long text", "long template"],
)
def test_a_template_that_takes_too_much_is_stopped(template, says):
    tokenizer, before = with_template(template), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with pytest.raises(ModelError, match=says):
        render_chat(tokenizer, Chat(MESSAGES))
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1.9
    assert render_chat(with_template(CHATML), Chat(MESSAGES)).endswith("<|im_end|>\n")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ 1 / 0 }}", "fails: ZeroDivisionError: division by zero"),
        ("{{ 1 + 'a' }}", "fails: TypeError"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "fails: RecursionError"),
        ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", "fails: RecursionError"),
        ("{{ raise_exception('roles must alternate') }}", "refuses this conversation: roles must alternate"),
        ("{% for %}", "refuses this conversation"),
        ("{{ nothing.at_all }}", "refuses this conversation: 'nothing' is undefined"),
    ],
)
def test_a_template_that_fails_says_so(template, says):
    [told] = render_chats(with_template(template), [Chat(MESSAGES)])
    assert isinstance(told, Refusal)
    assert says in told.reason
    with pytest.raises(ModelError, match="the chat template"):
        prompt_ids(with_template(template), [MESSAGES])


def test_one_refusal_among_many_leaves_the_others():
    tokenizer = with_template(
        "{% if messages[0].content == 'no' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    )
    texts = [str(number) if number % 50 else "no" for number in range(200)]
    told = render_chats(tokenizer, [Chat([{"role": "user", "content": text}]) for text in texts])
    assert [text if isinstance(text, str) else "no" for text in told] == texts


def test_a_template_changed_under_a_tokenizer_is_the_new_one():
    tokenizer = with_template("{{ eos_token }}")
    assert render_chat(tokenizer, Chat(MESSAGES)) == "<|im_end|>"
    tokenizer.eos_token = "<|endoftext|>"
    assert render_chat(tokenizer, Chat(MESSAGES)) == "<|endoftext|>"
    tokenizer.chat_template = "new"
    assert render_chat(tokenizer, Chat(MESSAGES)) == "new"


def test_a_child_that_was_idle_or_killed_is_replaced(monkeypatch):
    tokenizer = with_template(CHATML)
    text = render_chat(tokenizer, Chat(MESSAGES))
    first = templates._child._pid
    os.kill(first, signal.SIGTERM)
    assert render_chat(tokenizer, Chat(MESSAGES)) == text
    time.sleep(templates._IDLE_SECONDS + 0.3)
    assert render_chat(tokenizer, Chat(MESSAGES)) == text
    assert templates._child._pid != first


def _render_here(queue, tokenizer):
    queue.put(render_chat(tokenizer, Chat(MESSAGES)))


def test_threads_and_forked_workers_render_as_well():
    tokenizer = with_template(CHATML)
    text = render_chat(tokenizer, Chat(MESSAGES))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: render_chat(tokenizer, Chat(MESSAGES)), range(100))) == {text}
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_render_here, args=(queue, tokenizer)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=20) for _ in workers] == [text, text]
    for worker in workers:
        worker.join()
    assert render_chat(tokenizer, Chat(MESSAGES)) == text


def test_nothing_is_said_about_the_fork_and_no_stream_is_held_open():
    code = (
        "from tiny_models import *; from dpo_cli.models.templates import *; t = make_tokenizer();"
        "t(['a b', 'c d'] * 1000); print(render_chat(t, Chat([dict(role='user', content='a')])))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    environment["PYTHONPATH"] = "tests"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("<|im_start|>user\na")
    assert not done.stderr


def test_the_default_system_prompt_is_left_out_where_the_template_refuses_it():
    refusing = with_template(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    )
    assert accepted_system_prompt(refusing, DEFAULT_SYSTEM_PROMPT) == ""
    assert accepted_system_prompt(refusing, "Be a pirate.") == "Be a pirate."
    assert accepted_system_prompt(with_template(CHATML), DEFAULT_SYSTEM_PROMPT) == DEFAULT_SYSTEM_PROMPT
    with pytest.raises(ModelError, match="no system role") as error:
        prompt_ids(refusing, [conversation("Hi", "Be a pirate.")])
    assert "--system-prompt ''" in error.value.hint


def test_a_template_that_refuses_turns_of_the_assistant_ends_none(tiny_model):
    from dpo_cli.models.loading import load_model_and_tokenizer

    model, tokenizer = load_model_and_tokenizer(str(tiny_model))
    tokenizer.chat_template = "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}a"
    assert end_of_turn_ids(model, tokenizer) == [tokenizer.eos_token_id]
