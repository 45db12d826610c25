"""Every layout, from the example rows that docs/data.md shows, and from the ways in which real files differ."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dpo_cli.data.formats import FORMATS, detect, nearest, recognise
from dpo_cli.data.pairs import Pair, RowProblem, check_pair, plain
from dpo_cli.data.reader import Columns, PairReader, resolve_format
from dpo_cli.data.sources.containers import Files
from dpo_cli.data.unwrapping import unwrapped
from dpo_cli.errors import ConfigError, DataError

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
EXAMPLE = re.compile(
    r"^### (?P<title>[^\n]*?) \{#(?P<name>[\w-]+)\}\n.*?^```json\n(?P<rows>.*?)^```", re.MULTILINE | re.DOTALL
)


def examples():
    found = [
        (match["name"], json.loads(line))
        for match in EXAMPLE.finditer(PAGE.read_text())
        for line in match["rows"].splitlines()
    ]
    return [pytest.param(name, row, id=f"{name}-{index}") for index, (name, row) in enumerate(found)]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


YES, NO = [assistant("It is blue.")], [assistant("It is green.")]
ASK = [user("What color is the sky?")]


def pair_of(row):
    row = unwrapped(row)
    return check_pair(recognise(row).convert(row))


def problem_of(row, name):
    with pytest.raises(RowProblem) as caught:
        check_pair(FORMATS[name].convert(row))
    return caught.value


def test_the_page_shows_every_format():
    assert {param.values[0] for param in examples()} == set(FORMATS)


@pytest.mark.parametrize(("name", "row"), examples())
def test_an_example_row_of_the_page_is_read_in_its_format(name, row):
    assert detect([unwrapped(row)]).name == name
    pair = pair_of(row)
    assert pair.chosen != pair.rejected
    assert (
        "lue" in plain(pair.chosen) or pair.chosen == "CAGGTACGTTGCATGGGTTGC" or "Deep" in plain(pair.chosen)
    )
    assert "ree" in plain(pair.rejected) or pair.prompt == "<BRN>" or "I'm Qwen" in plain(pair.rejected)


def test_trl_standard_with_a_prompt_is_taken_as_it_stands():
    row = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green.", "score": 3}
    assert pair_of(row) == Pair("The sky is", " blue.", " green.")


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("The sky is blue.", "The sky is green."),
        ("Q: one\nA: two", "Q: one\nA: three"),
        ("abc", "abd"),
        ("The sky is", "The sky is blue"),
        ([user("a"), assistant("b")], [user("a"), assistant("c")]),
        ([system("s"), user("a"), assistant("b")], [system("s"), user("a"), assistant("c")]),
        (
            [user("a"), assistant("b"), user("c"), assistant("d")],
            [user("a"), assistant("x"), user("c"), assistant("y")],
        ),
    ],
)
def test_an_implicit_prompt_is_cut_where_trl_cuts_it(chosen, rejected):
    from trl.data_utils import extract_prompt

    row = {"chosen": chosen, "rejected": rejected}
    theirs = extract_prompt(row)
    ours = recognise(row).convert(row)
    if (chosen, rejected) == ("The sky is", "The sky is blue"):
        # TRL leaves the last shared character in both completions, which no tokenizer would; ours is empty, and dropped.
        assert (ours.prompt, ours.chosen, ours.rejected) == ("The sky is", "", " blue")
        return
    assert (ours.prompt, ours.chosen, ours.rejected) == (
        theirs["prompt"],
        theirs["chosen"],
        theirs["rejected"],
    )


def test_the_specifications_own_example():
    start = [system("You're a helpful assistant."), user("What is your name?")]
    row = {
        "chosen": [*start, assistant("I'm Deep Qwen, a helpful AI assistant.")],
        "rejected": [*start, assistant("I'm Qwen, a helpful AI assistant.")],
    }
    pair = pair_of(row)
    assert pair.prompt == start
    assert pair.chosen == [assistant("I'm Deep Qwen, a helpful AI assistant.")]


def test_ultrafeedback_with_its_other_columns():
    row = {
        "prompt": "What color is the sky?",
        "prompt_id": "x",
        "chosen": ASK + YES,
        "rejected": ASK + NO,
        "messages": ASK + YES,
        "score_chosen": 8.5,
        "score_rejected": 3.0,
    }
    assert recognise(row).name == "ultrafeedback-binarized"
    assert pair_of(row) == Pair(ASK, YES, NO)
    assert pair_of({**row, "chosen": YES, "rejected": NO}) == Pair(ASK, YES, NO)


def test_hh_transcripts_share_the_prompt_up_to_the_last_answer():
    start = "\n\nHuman: Hi.\n\nAssistant: Hello!\n\nHuman: What color is the sky?\n\nAssistant:"
    pair = pair_of({"chosen": f"{start} It is blue.", "rejected": f"{start} It is green."})
    assert pair == Pair([user("Hi."), assistant("Hello!"), *ASK], YES, NO)
    assert pair_of({"prompt": start, "chosen": " It is blue.", "rejected": " It is green."}) == pair


def test_hh_transcripts_that_part_early_keep_what_follows():
    one = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"
    other = "\n\nHuman: a\n\nAssistant: x\n\nHuman: c\n\nAssistant: y"
    pair = pair_of({"chosen": one, "rejected": other})
    assert pair.prompt == [user("a")]
    assert pair.chosen == [assistant("b"), user("c"), assistant("d")]
    assert (
        problem_of({"chosen": one, "rejected": "\n\nHuman: z\n\nAssistant: d"}, "anthropic-hh").reason
        == "wrong role order"
    )


@pytest.mark.parametrize("question", ["question", "query", "input"])
@pytest.mark.parametrize("text", ["You answer.", "", None])
def test_orca_pairs(question, text):
    row = {
        "system": text,
        question: "What color is the sky?",
        "chosen": "It is blue.",
        "rejected": "It is green.",
    }
    assert recognise(row).name == "orca-pairs"
    assert pair_of(row) == Pair([*([system(text)] if text else []), *ASK], YES, NO)


@pytest.mark.parametrize(
    ("more", "asked"),
    [({}, "Add."), ({"input": ""}, "Add."), ({"input": None}, "Add."), ({"input": "1 2"}, "Add.\n1 2")],
)
def test_alpaca_ranking(more, asked):
    row = {"instruction": "Add.", **more, "chosen": "3", "rejected": "4", "history": [["a", "b"]]}
    assert pair_of(row) == Pair([user("a"), assistant("b"), user(asked)], [assistant("3")], [assistant("4")])


@pytest.mark.parametrize("names", [("from", "value"), ("role", "content")])
@pytest.mark.parametrize(
    "roles", [("human", "gpt"), ("user", "assistant"), ("User", "model"), ("prompter", "ChatGPT")]
)
@pytest.mark.parametrize("shape", ["message", "list", "text"])
def test_sharegpt_ranking(names, roles, shape):
    role, content = names
    asks, answers = roles

    def say(text):
        return {
            "message": {role: answers, content: text},
            "list": [{role: answers, content: text}],
            "text": text,
        }[shape]

    turns = [
        {role: "system", content: "s"},
        {role: asks, content: "a"},
        {role: answers, content: "b"},
        {role: asks, content: "c"},
    ]
    row = {"conversations": turns, "chosen": say("yes"), "rejected": say("no")}
    assert recognise(row).name == "sharegpt-ranking"
    assert pair_of(row) == Pair(
        [system("s"), user("a"), assistant("b"), user("c")], [assistant("yes")], [assistant("no")]
    )


def test_sharegpt_with_a_system_column_and_function_calls():
    call = '{"name": "add", "arguments": {"a": 1}}'
    row = {
        "system": "s",
        "tools": '[{"name": "add"}]',
        "conversations": [
            {"from": "human", "value": "1+1"},
            {"from": "function_call", "value": call},
            {"from": "observation", "value": "2"},
        ],
        "chosen": {"from": "gpt", "value": "2"},
        "rejected": {"from": "gpt", "value": "3"},
    }
    pair = pair_of(row)
    assert [message["role"] for message in pair.prompt] == ["system", "user", "assistant", "tool"]
    assert pair.prompt[2]["tool_calls"] == [
        {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    ]
    assert pair.tools == [{"name": "add"}]


def test_openai_preferences_with_typed_parts_tools_and_calls():
    parts = [{"type": "text", "text": "What color "}, {"type": "text", "text": "is the sky?"}]
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"up": true}'}}
    row = {
        "input": {
            "messages": [{"role": "developer", "content": "s"}, user(parts)],
            "tools": [{"type": "function"}],
            "parallel_tool_calls": True,
        },
        "preferred_output": [{"role": "assistant", "content": None, "tool_calls": [call]}],
        "non_preferred_output": NO,
    }
    pair = pair_of(row)
    assert pair.prompt == [system("s"), *ASK]
    assert pair.chosen[0]["tool_calls"][0]["function"]["arguments"] == {"up": True}
    assert pair.chosen[0]["content"] == ""
    assert pair.tools == [{"type": "function"}]


@pytest.mark.parametrize(
    ("row", "reason", "key"),
    [
        ({"prompt": "a", "chosen": None, "rejected": "b"}, "non-text value", "chosen"),
        ({"prompt": "a", "chosen": 7, "rejected": "b"}, "non-text value", "chosen"),
        ({"prompt": None, "chosen": "c", "rejected": "b"}, "non-text value", "prompt"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "empty completion", "chosen"),
        ({"prompt": "a", "chosen": "b", "rejected": " \n"}, "empty completion", "rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "identical completions", ""),
    ],
)
def test_wrong_values_in_plain_text(row, reason, key):
    problem = problem_of(row, "trl-standard")
    assert (problem.reason, problem.key) == (reason, key)


@pytest.mark.parametrize(
    ("prompt", "chosen", "reason", "key"),
    [
        ([], YES, "wrong role order", "prompt"),
        ([{"role": " ", "content": "a"}], YES, "non-text value", "prompt[0]"),
        ([{"content": "a"}], YES, "non-text value", "prompt[0]"),
        ([{"role": "user", "content": 3}], YES, "non-text value", "prompt[0].content"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            YES,
            "non-text value",
            "prompt[0].content[0]",
        ),
        (ASK, [assistant("")], "empty completion", "chosen"),
        (ASK, [], "empty completion", "chosen"),
        (ASK, NO, "identical completions", ""),
    ],
)
def test_wrong_values_in_conversations(prompt, chosen, reason, key):
    problem = problem_of({"prompt": prompt, "chosen": chosen, "rejected": NO}, "trl-conversational")
    assert (problem.reason, problem.key) == (reason, key)


def test_the_nearest_format_and_what_is_missing():
    layout, lacks = nearest({"instruction": "a", "chosen": "b"})
    assert layout.name == "alpaca-ranking"
    assert lacks == ["a column 'rejected' with text"]


def rows_file(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Files("rows.jsonl", [path])


def test_a_row_of_no_format_names_columns_nearest_and_missing(tmp_path):
    with pytest.raises(DataError) as caught:
        PairReader(rows_file(tmp_path, {"question": "a", "good": "b", "bad": "c"}))
    message = str(caught.value)
    assert "rows.jsonl line 1" in message
    assert "question, good, bad" in message
    assert "orca-pairs" in message
    assert "'chosen'" in message
    assert "--chosen-column" in message


def test_columns_are_renamed(tmp_path):
    source = rows_file(tmp_path, {"question": "a", "good": "b", "bad": "c", "frame": "s"})
    reader = PairReader(source, columns=Columns(prompt="question", chosen="good", rejected="bad"))
    assert [row.pair for row in reader] == [Pair("a", "b", "c")]
    reader = PairReader(
        source, columns=Columns(prompt="question", chosen="good", rejected="bad", system="frame")
    )
    assert [row.pair for row in reader] == [
        Pair([system("s"), user("a")], [assistant("b")], [assistant("c")])
    ]


def test_a_column_that_does_not_exist(tmp_path):
    with pytest.raises(
        DataError, match=r"(?s)no column 'promt'.*prompt, chosen, rejected.*Did you mean 'prompt'"
    ):
        PairReader(
            rows_file(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c"}),
            columns=Columns(prompt="promt"),
        )


def test_a_prompt_under_an_unknown_name_is_not_silently_lost(tmp_path):
    with pytest.raises(DataError, match=r"--prompt-column"):
        PairReader(rows_file(tmp_path, {"request": "Say a or b.", "chosen": "The a", "rejected": "The b"}))


def test_mixed_layouts_name_the_first_odd_row(tmp_path):
    plain = {"prompt": "a", "chosen": "b", "rejected": "c"}
    source = rows_file(tmp_path, plain, plain, {"instruction": "a", "chosen": "b", "rejected": "c"}, plain)
    with pytest.raises(DataError, match=r"rows.jsonl line 3.*alpaca-ranking.*trl-standard"):
        list(PairReader(source))
    chat = {"prompt": ASK, "chosen": YES, "rejected": NO}
    with pytest.raises(DataError, match=r"rows.jsonl line 2.*trl-conversational"):
        list(PairReader(rows_file(tmp_path, plain, chat)))
    with pytest.raises(DataError, match=r"rows.jsonl line 2.*trl-standard"):
        list(PairReader(rows_file(tmp_path, chat, plain)))


def test_a_bad_row_of_the_same_shape_is_no_other_layout(tmp_path):
    good = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    rows = list(PairReader(rows_file(tmp_path, good, {**good, "chosen": "\n\nHuman: a"}, good)))
    assert [row.problem.reason if row.problem else None for row in rows] == [None, "wrong role order", None]


def test_a_row_with_its_prompt_elsewhere_is_another_layout(tmp_path):
    plain = {"prompt": "a", "chosen": "The b", "rejected": "The c"}
    odd = {"instruction": "a", "chosen": "The b", "rejected": "The c"}
    with pytest.raises(DataError, match=r"rows.jsonl line 2.*alpaca-ranking"):
        list(PairReader(rows_file(tmp_path, plain, odd)))


def test_wrong_values_in_the_first_rows_do_not_hide_the_format(tmp_path):
    rows = [{"prompt": "a", "chosen": None, "rejected": "c"}] * 3
    reader = PairReader(rows_file(tmp_path, *rows))
    assert reader.format.name == "trl-standard"
    assert {row.problem.reason for row in reader} == {"non-text value"}


def test_a_format_is_named_by_its_beginning():
    assert resolve_format("sharegpt").name == "sharegpt-ranking"
    assert resolve_format("TRL_standard").name == "trl-standard"
    with pytest.raises(ConfigError, match=r"Known formats"):
        resolve_format("trl")
    with pytest.raises(ConfigError, match=r"is not a known format"):
        resolve_format("parquet")


def test_a_forced_format_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"not in the format alpaca-ranking.*'instruction'"):
        PairReader(rows_file(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c"}), layout="alpaca")
