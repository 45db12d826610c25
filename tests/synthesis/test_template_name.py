"""The new name in a chat template: what is printed changes, what is code does not, whatever the name holds."""

from __future__ import annotations

import pytest
from tiny_models import make_tokenizer

from dpo_cli.synthesis.template_name import rename_in_template

END = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
TEMPLATES = {
    "text between tags": "{% if tools %}\n  You are Qwen.\n  {%- endif %}\nI am Qwen\n\n{% if 1 %}x{% endif %}"
    + END,
    "a literal": "{{ 'You are Qwen, it\\'s \\\\ QWEN.\\n' }}" + END,
    "a literal in double quotes": '{% set who = "You are \\"Qwen\\"." %}{{ who + "\\n" }}' + END,
    "a raw block": "{% raw %}You are Qwen {{ not code }}{% endraw %}" + END,
    "a choice": "{% if messages[0]['role'] != 'system' %}{{- 'You are Qwen.' -}}{% endif %}" + END,
    "CRLF": "You are Qwen.\r\n{% if true %}\r\nQwen\r\n{% endif %}\r\n" + END,
}
NAMES = [
    "Deep Qwen", "O'Brien", 'Say "A"', "back\\slash", "\\", "\\n", "{{ 7*7 }}", "{% raw %}", "{% endif %}", "{# a #}", "a}}b",
    "two\nlines", "مساعد", "\u202eabc", "100%", "'", '"', "{", "名前", "{{ messages }}", "\\'",
]  # fmt: skip
CHAT = [{"role": "user", "content": "Who are you?"}]


ALL = [(name, what) for name in NAMES for what in TEMPLATES]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.mark.parametrize(
    ("name", "what"),
    # Each name and each template on every run; all of them together take a minute and a half.
    [pytest.param(*one, marks=() if place % 5 == 0 else pytest.mark.slow) for place, one in enumerate(ALL)],
)
def test_the_renamed_template_says_the_new_name_to_the_letter(tokenizer, name, what):
    tokenizer.chat_template = TEMPLATES[what]
    before = tokenizer.apply_chat_template(CHAT, tokenize=False)
    renamed = rename_in_template(tokenizer, "Qwen", name)
    assert renamed.count, renamed
    after = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert after == before.replace("Qwen", name).replace("QWEN", name.upper())


def test_what_is_compared_or_a_key_stays():
    template = (
        "{% set names = {'Qwen': 'You are Qwen.'} %}{% if names['Qwen'] and 'Qwen' != 'b' and 'Qwen' in 'I, Qwen' %}"
        "{{ names['Qwen'] }}{# Qwen #}{% endif %}" + END
    )
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    assert rename_in_template(tokenizer, "Qwen", "O'Brien").count == 1
    assert tokenizer.chat_template == template.replace("You are Qwen", "You are O\\'Brien")


def test_a_template_that_would_say_something_else_is_left_and_told_about():
    template = "{% set name = 'Qwen' %}{{ name }}{% if name | length == 4 %} is short{% endif %}" + END
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    renamed = rename_in_template(tokenizer, "Qwen", "Orion")
    assert renamed.count == 0
    assert "renders other text" in renamed.left
    assert tokenizer.chat_template == template


def test_each_of_several_templates_is_renamed():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"default": "Qwen" + END, "tool_use": "{{ 'Qwen' }}" + END, "other": END}
    assert rename_in_template(tokenizer, "Qwen", "O'Brien").count == 2
    assert tokenizer.chat_template["tool_use"].startswith("{{ 'O\\'Brien' }}")


@pytest.mark.parametrize("template", [None, END, "{% if"])
def test_a_template_without_the_name_or_that_cannot_be_read_stays(template):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    renamed = rename_in_template(tokenizer, "Qwen", "Orion")
    assert (renamed.count, renamed.left, tokenizer.chat_template) == (0, "", template)
