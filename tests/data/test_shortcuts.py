"""The two shortcuts of tokenising - templates run once for each sequence of roles, prompts tokenised once - held
against the long way, with their own checks against it switched off."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CHATML, make_tokenizer

from dpo_cli.data.pairs import Pair
from dpo_cli.data.tokens.encoding import TripleEncoder, safe_marks
from dpo_cli.data.tokens.rendering import ChatRenderer, contents_use
from dpo_cli.data.tokens.tokenizer import PairTokenizer

LOOP = "{% for m in messages %}{BODY}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{{ '<<SYS>>' + messages[0]['content'] + '<</SYS>>' }}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
PRINTS = {
    CHATML: "as it is",
    LOOP.replace("{BODY}", "{{- m.role }}: {{ m.content -}}"): "as it is",
    LOOP.replace(
        "{BODY}", "{{ '<|im_start|>' ~ m.role ~ '\n' ~ (m.content | trim) ~ '<|im_end|>' }}"
    ): "trimmed",
    LLAMA2: "as it is",
}
LOOKS_AT = [
    LOOP.replace("{BODY}", "{% if m.content %}{{ m.content }}{% endif %}"),
    LOOP.replace("{BODY}", "{{ m.content | upper }}"),
    LOOP.replace("{BODY}", "{{ m.content.strip() }}"),
    LOOP.replace("{BODY}", "{{ m.content[:5] }}{{ m.content }}"),
    LOOP.replace("{BODY}", "{{ m.content }}{{ m.content | length }}"),
    LOOP.replace("{BODY}", "{{ m.content }}{{ m }}"),
    LOOP.replace("{BODY}", "{{ m.content }}{{ m | tojson }}"),
    LOOP.replace("{BODY}", "{{ m.content }}{{ m.content | trim }}"),
    LOOP.replace("{BODY}", "{% set c = m.content %}{{ c }}"),
    LOOP.replace("{BODY}", "{% set c %}{{ m.content }}{% endset %}{{ c | upper }}"),
    LOOP.replace("{BODY}", "{% filter upper %}{{ m.content }}{% endfilter %}"),
    LOOP.replace(
        "{BODY}",
        "{{ m.content }}{% if loop.previtem is defined and loop.previtem.content == 'a' %}!{% endif %}",
    ),
    LOOP.replace("{BODY}", "{{ m.content }}{{ loop.previtem }}"),
    LOOP.replace("{BODY}", "{% for key in m %}{{ m[key] }}{% endfor %}"),
    LOOP.replace("{BODY}", "{{ m.content }}{% if 'a' in m.content %}!{% endif %}"),
    LOOP.replace("{BODY}", "{{ m.get('content') }}"),
    "{% macro say(m) %}{{ m.content }}{% endmacro %}" + LOOP.replace("{BODY}", "{{ say(m) | upper }}"),
    "{{ messages | map(attribute='content') | join }}",
    "{{ messages }}",
    "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
    "{% for m in messages if m.content != 'a' %}{{ m.content }}{% endfor %}",
    "{% set last = messages[-1] %}{{ last.content }}",
    "{{ messages[-1].content if messages[-1].content != 'a' else 'b' }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}",
    "no contents at all",
    "{{ broken",
]


@pytest.mark.parametrize(("template", "use"), PRINTS.items())
def test_templates_that_only_print_are_known(template, use):
    assert contents_use(template) == use


@pytest.mark.parametrize("template", LOOKS_AT)
def test_templates_that_look_at_contents_are_not_taken_for_others(template):
    assert contents_use(template) == "unknown"


pieces = st.sampled_from(
    [
        "a",
        "b<|im",
        " ",
        "c",
        "\n",
        "<|im_end|>",
        "<|im_start|>",
        "<|im_mid|>",
        "[INST]",
        "{{x}}",
        "%",
        "\ue0000\ue001",
        "é",
        "<|im",
    ]
)
words = st.lists(pieces, max_size=8).map("".join)


def message(role):
    return st.builds(lambda content: {"role": role, "content": content}, words)


pairs = st.builds(
    lambda system, earlier, last, chosen, rejected: Pair(
        [*system, *(turn for both in earlier for turn in both), last], [chosen], [rejected]
    ),
    st.lists(message("system"), max_size=1),
    st.lists(st.tuples(message("user"), message("assistant")), max_size=2),
    message("user"),
    message("assistant"),
    message("assistant"),
)
TOKENIZERS = {template: make_tokenizer(template=template) for template in PRINTS}


@settings(max_examples=150, deadline=None)
@given(some=st.lists(pairs, min_size=1, max_size=4), template=st.sampled_from(list(PRINTS)))
def test_a_template_run_once_says_what_it_says_each_time(some, template):
    tokenizer = TOKENIZERS[template]
    short, long = ChatRenderer(tokenizer), ChatRenderer(tokenizer)
    short._to_probe, long._use = 0, "unknown"
    assert short.render(some) == long.render(some)


def tokenizers_of_many_kinds():
    """Tokenizers that treat the beginning of a text, or added tokens, in a way of their own."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = make_tokenizer()
    yield "byte-level", plain
    spaced = make_tokenizer()
    spaced._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    yield "prefix space", spaced
    for scheme in ("first", "always"):
        inner = Tokenizer(
            models.BPE(
                byte_fallback=False,
                unk_token="<unk>",
                vocab={
                    "<unk>": 0,
                    "▁": 1,
                    **{c: i for i, c in enumerate("abcé[]INST<>|im_stdren{}%0us\n", 2)},
                },
                merges=[],
            )
        )
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        inner.decoder = decoders.Metaspace()
        inner.add_special_tokens(["<|im_start|>", "<|im_end|>"])
        yield (
            f"metaspace {scheme}",
            PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", unk_token="<unk>"),
        )
    prepending = make_tokenizer()
    prepending._tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("_"), normalizers.Lowercase()]
    )
    yield "prepending normalizer", prepending
    stripping = make_tokenizer()
    stripping.add_tokens(
        [
            AddedToken("<|im_mid|>", special=True, rstrip=True, lstrip=True, normalized=False),
            AddedToken("b<|im", special=True),
        ]
    )
    yield "stripping and crossing tokens", stripping


KINDS = dict(tokenizers_of_many_kinds())


@settings(max_examples=150, deadline=None)
@given(some=st.lists(pairs, min_size=1, max_size=4), kind=st.sampled_from(list(KINDS)))
def test_cutting_at_marks_changes_no_ids(some, kind):
    tokenizer = KINDS[kind]
    tokenizer.chat_template = CHATML
    renderer = ChatRenderer(tokenizer)
    encoder = TripleEncoder(tokenizer)
    encoder._to_probe = 0
    triples = renderer.render(some)
    joined = [[start + end for end in ends] for start, *ends in encoder.triples(triples)]
    assert joined == [tokenizer(list(triple), add_special_tokens=False)["input_ids"] for triple in triples]


def test_marks_that_others_cross_are_not_safe():
    assert set(safe_marks(KINDS["byte-level"])) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    assert set(safe_marks(KINDS["stripping and crossing tokens"])) == {"<|endoftext|>", "b<|im"} - {"b<|im"}


def test_a_difference_switches_cutting_off():
    tokenizer = make_tokenizer()
    work = PairTokenizer(tokenizer)
    work._encoder._marks = ("\n",)  # a place at which texts must not be cut: "\n" is no token of its own
    work._encoder._ends["\nassistant\n"] = [0]
    pair = Pair(
        [{"role": "user", "content": "a"}],
        [{"role": "assistant", "content": "b"}],
        [{"role": "assistant", "content": "c"}],
    )
    work._encoder._ends["\n"] = [7, 7]
    [found] = work.tokenize([pair])
    assert not work._encoder._marks
    assert found == PairTokenizer(tokenizer).tokenize([pair])[0]
