"""Where an answer begins, what a template is told, and who says so."""

import pytest
from kinds import ANSWER, KINDS, THOUGHTS, make_kind
from tiny_models import CHATML, make_tokenizer

from dpo_cli.config import AskConfig, DPOTrainingConfig, load_settings, to_toml
from dpo_cli.data.pairs import Pair
from dpo_cli.data.tokens.tokenizer import PairTokenizer
from dpo_cli.errors import ConfigError
from dpo_cli.jobs.asking import note_thinking
from dpo_cli.jobs.compare import ask
from dpo_cli.models.generate import conversation, generate, stream
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.models.templates import Chat, render_chat, template_variables
from dpo_cli.models.thinking import cuts_thinking, opens_thinking, set_options, split_thinking
from dpo_cli.report.answers import notes
from dpo_cli.synthesis.identity import build_identity_shift_dataset

ASKED = [{"role": "user", "content": "Who ?"}]


def told(template, thinking=None, **arguments):
    tokenizer = make_tokenizer(template=template)
    set_options(tokenizer, "m", thinking, arguments)
    return tokenizer


def asked(tokenizer, **variables):
    return render_chat(tokenizer, Chat(ASKED, add_generation_prompt=True, variables=variables))


@pytest.mark.parametrize(
    ("text", "opened", "thoughts", "answer"),
    [
        ("Paris.", False, "", "Paris."),
        ("<think>\nWell.\n</think>\n\nParis.", False, "Well.", "Paris."),
        ("\n<think></think>Paris.", False, "", "Paris."),
        ("Well.\n</think>\n\nParis.", True, "Well.", "Paris."),
        ("<think>\nWell, Par", False, "Well, Par", ""),
        ("Well, Par", True, "Well, Par", ""),
        ("The tag </think> ends it.", False, "", "The tag </think> ends it."),
        ("<think>a</think>The tag </think> ends it.", False, "a", "The tag </think> ends it."),
        ("It is <think>.", False, "", "It is <think>."),
    ],
)
def test_an_answer_is_what_follows_the_thinking_that_it_begins_with(text, opened, thoughts, answer):
    assert split_thinking(text, opened=opened) == (thoughts, answer)


@pytest.mark.parametrize(
    "name", ["thinking by a switch", "thinking opened by the template", "a switch of another name"]
)
def test_keep_gives_the_whole_answer_and_a_stream_always_does(name, tmp_path):
    kind = KINDS[name]
    make_kind(kind, tmp_path, ["Who ?"])
    more = {"template": {"thinking": True}} if "thinking" in kind.options and kind.marks_are_special else {}
    model, tokenizer = load_model_and_tokenizer(str(tmp_path), thinking="keep", **more)
    [whole] = generate(model, tokenizer, [ASKED], max_new_tokens=16)
    assert (
        whole.text.replace("</think>", " </think> ").split()
        == f"<think> {THOUGHTS} </think> {ANSWER}".split()
    )
    assert not whole.thinking
    shown = "".join(stream(model, tokenizer, conversation("Who ?", ""), max_new_tokens=16))
    if not kind.marks_are_special:
        assert shown.split() == whole.text.split()


def test_variables_reach_every_text_and_those_of_a_conversation_come_first():
    tokenizer = told(
        "{{ day }} {{ hour }}{% for m in messages %}{{ m.content }}{% endfor %}", day="Monday", hour=7
    )
    assert asked(tokenizer) == "Monday 7Who ?"
    assert asked(tokenizer, hour=8) == "Monday 8Who ?"
    pair = Pair(ASKED, [{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}])
    [tokens] = PairTokenizer(tokenizer).tokenize([pair])
    assert tokenizer.decode(tokens.prompt + tokens.chosen) == "Monday 7Who ?a"


SWITCH = CHATML + "{% if SWITCH is defined and not SWITCH %}<think></think>{% endif %}"


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_thinking_is_switched_by_the_variable_that_the_template_has(name):
    template = SWITCH.replace("SWITCH", name)
    for thinking, end in ((None, "\n"), ("keep", "\n"), ("on", "\n"), ("off", "<think></think>")):
        assert asked(told(template, thinking)).endswith("assistant" + end if end == "\n" else end)
    assert not asked(told(template, "off"), **{name: True}).endswith("</think>")


def test_a_block_that_the_template_opens_is_closed_before_answers_too():
    opens = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    pair = Pair(ASKED, [{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}])
    for template in (opens, CHATML_WITH_BLOCK):
        tokenizer = told(template, "off")
        assert asked(tokenizer).endswith("assistant\n<think>\n\n</think>\n\n")
        [tokens] = PairTokenizer(tokenizer).tokenize([pair])
        assert tokenizer.decode(tokens.prompt) == asked(tokenizer)
        assert tokenizer.decode(tokens.chosen).startswith("a<|im_end|>")
    [as_trl] = PairTokenizer(told(opens)).tokenize([pair])
    assert tokenizer.decode(as_trl.left_out) == "<think>\n"


# Qwen3-Thinking: opens the block where it is asked, and writes an empty one before an answer without thinking.
CHATML_WITH_BLOCK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def test_the_variables_of_a_template_are_those_that_it_reads_before_it_sets_them():
    template = (
        "{% if not date is defined %}{% set date = 'x' %}{% endif %}{% set mine = 1 %}{% set kind = kind or 2 %}{{ mine }}{{ date }}"
        "{{ bos_token }}{% for m in messages %}{% set said = m.content %}{{ said }}{{ strftime_now('%d') }}{% endfor %}"
        "{% generation %}{{ style }}{% endgeneration %}{{ namespace(a=1).a }}"
    )
    assert template_variables(make_tokenizer(template=template)) == {"date", "kind", "messages", "style"}
    named = make_tokenizer(template={"default": "{{ a }}", "tool_use": "{{ b }}"})
    assert template_variables(named) == {"a", "b"}


def test_what_is_asked_of_templates_is_recorded_and_read_back(tmp_path):
    flags = {"thinking": "keep", "template": ["a=False", "b=[1, 'x']", "c=plain text", "d=1.5"]}
    config = load_settings(DPOTrainingConfig, flags)
    assert config.template == {"a": False, "b": [1, "x"], "c": "plain text", "d": 1.5}
    file = tmp_path / "config.toml"
    file.write_text(to_toml(config, "x"))
    again = load_settings(DPOTrainingConfig, {}, str(file))
    assert (again.template, again.thinking) == (config.template, "keep")


def test_from_python_too_a_mistake_is_told(tmp_path):
    make_kind(KINDS["base model"], tmp_path)
    with pytest.raises(ConfigError, match=r"--template colour: the chat template of .* has no such variable"):
        load_model_and_tokenizer(str(tmp_path), chat_template="chatml", template={"colour": 1})


@pytest.mark.parametrize(
    ("name", "cuts", "opens"),
    [
        ("thinking by a switch", False, False),
        ("thinking opened by the template", True, True),
        ("base model", False, False),
    ],
)
def test_it_is_known_where_templates_leave_thinking_out_and_where_they_ask_for_it(name, cuts, opens):
    tokenizer = make_tokenizer(template=KINDS[name].template or CHATML)
    tokenizer.bos_token = "<|endoftext|>"
    assert (cuts_thinking(tokenizer), opens_thinking(tokenizer)) == (cuts, opens)
    for thinking, says in ((None, "--thinking off asks as is trained"), ("keep", "so none is kept")):
        told = []
        set_options(tokenizer, "m", thinking, {})
        note_thinking(tokenizer, told.append)
        assert [says in one.message for one in told] == ([True] if cuts else [])


def test_identity_pairs_have_thinking_only_if_it_is_kept(tmp_path):
    make_kind(KINDS["thinking by a switch"], tmp_path, ["Who ?"])
    rows = [{"conversations": [{"from": "human", "value": "Who ?"}]}]
    for thinking, before in ((None, ""), ("keep", f"<think> {THOUGHTS} </think> ")):
        model, tokenizer = load_model_and_tokenizer(str(tmp_path), thinking=thinking)
        [row] = build_identity_shift_dataset(
            model, tokenizer, "Qwen", "Orion", raw_dataset=rows, max_new_tokens=16
        )
        said = before + ANSWER
        assert row["rejected"][0]["content"] == said
        assert row["chosen"][0]["content"] == said.replace("Qwen", "Orion")


def test_answers_that_are_cut_while_thinking_are_told(tmp_path):
    make_kind(KINDS["thinking by a switch"], tmp_path, ["Who ?"])
    told, how = [], {"device": "cpu", "dtype": "float32"}
    _, [answer] = ask(
        AskConfig(model=str(tmp_path), question=("Who ?",), max_new_tokens=4, **how), told.append
    )
    assert (answer.answer, answer.thinking, notes(answer)) == ("", "let me see", ["cut off while thinking"])
    assert any("1 of 1 answers were cut off while thinking" in str(event) for event in told)
    _, [answer] = ask(
        AskConfig(model=str(tmp_path), question=("Who ?",), max_new_tokens=16, thinking="off", **how)
    )
    assert (answer.answer, answer.thinking, notes(answer)) == (ANSWER, "", [])
