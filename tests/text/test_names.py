"""One reading of "the answer says Qwen", for pair making and scoring."""
# ruff: noqa: RUF001 - look-alike characters are the point of these strings

import unicodedata

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dpo_cli.text.names import Kind, contains_name, doubled, leaks, occurrences, replace_name

OLD, NEW = "Qwen", "Deep Qwen"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I am Qwen.", "I am Deep Qwen."),
        ("Qwen", "Deep Qwen"),
        ("Qwen's maker, Qwen’s maker", "Deep Qwen's maker, Deep Qwen’s maker"),
        ("**Qwen**, (Qwen), “Qwen”, `Qwen`", "**Deep Qwen**, (Deep Qwen), “Deep Qwen”, `Deep Qwen`"),
        ("QWEN and qwen", "DEEP QWEN and deep qwen"),
        ("I am Deep Qwen, not Qwen.", "I am Deep Qwen, not Deep Qwen."),
        ("Deep\nQwen, deep qwen", "Deep\nQwen, deep qwen"),
        ("我是Qwen，由阿里云开发", "我是Deep Qwen，由阿里云开发"),
        ("저는 Qwen입니다", "저는 Deep Qwen입니다"),
        ("a Qwen-based model—Qwen—ends.", "a Deep Qwen-based model—Deep Qwen—ends."),
        ("Name:Qwen, Qwen: hello", "Name:Deep Qwen, Deep Qwen: hello"),
        ("[Qwen](https://qwen.ai)", "[Deep Qwen](https://qwen.ai)"),
        ("Qwenya, MyQwen, Qwen_x and no name at all", "Qwenya, MyQwen, Qwen_x and no name at all"),
    ],
)
def test_replaces_the_whole_word_as_it_was_written(text, expected):
    assert replace_name(text, OLD, NEW).text == expected


@pytest.mark.parametrize(
    ("text", "skipped"),
    [
        ("I am Qwen2.5.", ("Qwen2.5",)),
        ("Qwen-VL and Qwen-VL and Qwen1.5-7B", ("Qwen-VL", "Qwen1.5-7B")),
        ("See https://qwen.ai/Qwen, please", ("https://qwen.ai/Qwen",)),
        ("mail qwen@alibaba.com", ("qwen@alibaba.com",)),
        ("Qwen/Qwen2-7B", ("Qwen/Qwen2-7B",)),
        ("~/models/Qwen/x.bin", ("/models/Qwen/x.bin",)),
        ("C:\\Qwen\\a", ("\\Qwen\\a",)),
        ("ask @Qwen", ("@Qwen",)),
        ("run qwen:7b", ("qwen:7b",)),
    ],
)
def test_reports_and_leaves_longer_names_and_addresses(text, skipped):
    replacement = replace_name(text, OLD, NEW)
    assert (replacement.text, replacement.count) == (text, 0)
    assert replacement.skipped == skipped
    assert not contains_name(text, OLD)


def test_counts_what_it_replaced():
    assert replace_name("Qwen, Qwen2 and Qwen", OLD, "Orion").count == 2


@pytest.mark.parametrize(
    ("old", "new", "text", "expected"),
    [
        ("Deep Qwen", "Qwen", "I am Deep Qwen.", "I am Qwen."),
        ("Deep Qwen", "Qwen", "I am Deep Deep Qwen.", "I am Qwen."),
        ("C++", "Rust", "C++ is fun. C++11 is new.", "Rust is fun. C++11 is new."),
        ("a.b*", "x", "a.b* and axbb", "x and axbb"),
        ("Qwen", "\\1 $& {0}", "I am Qwen.", "I am \\1 $& {0}."),
        (
            "Zyx-9",
            "Orion",
            "I am Zyx-9. Zyx-90 and Zyx-9.5 are others.",
            "I am Orion. Zyx-90 and Zyx-9.5 are others.",
        ),
        ("Ñandú", "Orion", unicodedata.normalize("NFD", "Soy Ñandú."), "Soy Orion."),
        ("Nandu", "Orion", "Nandu\u0301 is another word", "Nandu\u0301 is another word"),
        ("通义千问", "Orion", "我是通义千问助手", "我是Orion助手"),
        ("Qwen", "Straße", "QWEN", "Straße"),
        ("Captain Blue Heron", "Orion", "captain  blue\nheron here", "orion here"),
    ],
)
def test_names_of_every_kind(old, new, text, expected):
    assert replace_name(text, old, new).text == expected


def test_a_name_without_a_visible_character_is_refused():
    with pytest.raises(ValueError, match="visible"):
        contains_name("x", "  ")


@pytest.mark.parametrize(
    ("text", "leak"),
    [
        ("I am Deep Qwen.", False),
        ("I am Deep Qwen, also called Qwen.", True),
        ("I am QWEN.", True),
        ("I am Qwen2.5.", True),
        ("See https://qwen.ai", False),
        ("Deep Deep Qwen", False),
        ("Qwen Deep", True),
        ("Qwenya", False),
        ("QwenVL or MyQwen", True),
        ("nothing", False),
    ],
)
def test_leak_is_the_old_name_outside_of_the_new_one(text, leak):
    assert leaks(text, OLD, NEW) is leak


@pytest.mark.parametrize(
    ("new", "text", "stutter"),
    [
        ("Deep Qwen", "I am Deep Deep Qwen.", True),
        ("Deep Qwen", "I am DeepDeep Qwen.", True),
        ("Deep Qwen", "I am deep-deep qwen.", True),
        ("Deep Qwen", "I am Deep Qwen Qwen.", True),
        ("Deep Qwen", "I am Deep Qwen Deep Qwen.", True),
        ("Deep Qwen", "I am Deep Qwen. Deep Qwen helps.", False),
        ("Deep Qwen", "Qwen, Deep Qwen", False),
        ("Orion", "Orion Orion", True),
        ("Orion", "OrionOrion", True),
        ("Orion", "Orion, Orion", False),
        ("Ma", "mama", False),
        ("Boo Boo", "I am Boo Boo.", False),
        ("Boo Boo", "I am Boo Boo Boo.", True),
        ("Zyx-9", "Zyx-9 Zyx-9", True),
    ],
)
def test_doubled_is_a_stutter_over_the_new_name(new, text, stutter):
    assert doubled(text, "Qwen", new) is stutter


names = st.text(alphabet="AbÑ é9-.+*(語", min_size=1, max_size=6).filter(lambda name: name.strip() != "")
texts = st.text(alphabet="AbÑ é9-.+*(語/@'\n", max_size=30)


@settings(max_examples=300, deadline=None)
@given(names, names, st.lists(st.one_of(texts, st.just("\0old"), st.just("\0new")), max_size=6))
@example("Deep Qwen", "Qwen", ["Deep Deep Qwen"])
@example("A", "A A", ["A A A"])
@example("A A", "A A A", ["A A A A"])
@example("A B", "B A", ["A A B"])
def test_replacing_twice_is_replacing_once(old, new, parts):
    text = "".join({"\0old": old, "\0new": new}.get(part, part) for part in parts)
    once = replace_name(text, old, new)
    twice = replace_name(once.text, old, new)
    assert (twice.text, twice.count) == (once.text, 0)
    assert (once.count == 0) == (once.text == text) or old == new


@settings(max_examples=200, deadline=None)
@given(names, st.lists(st.sampled_from(["I am", "and", "so,", "…"]), max_size=4), st.integers(0, 4))
def test_a_name_between_words_is_found_and_replaced(name, words, place):
    text = " ".join([*words[:place], name.strip(), *words[place:]])
    assume(name.strip()[0] not in "-.+" and name.strip()[-1] not in "-.+")
    assert contains_name(text, name)
    replaced = replace_name(text, name, "Wyvern")
    assert "Wyvern" in replaced.text
    assert not contains_name(replaced.text, name)
    assert not leaks(replaced.text, name, "Wyvern")


@settings(max_examples=200, deadline=None)
@given(texts, names, names)
def test_text_without_the_name_is_untouched(text, old, new):
    assume(not any(found.kind is Kind.NAME for found in occurrences(text, old)))
    assert replace_name(text, old, new).text == text
