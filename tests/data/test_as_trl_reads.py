"""Rows as users have them, held against the token ids of TRL's own preparation of the same rows."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import CHATML, make_tokenizer

from dpo_cli.config import DataConfig, Truncation
from dpo_cli.data.load import check_pairs, load_pairs
from dpo_cli.data.pairs import Pair, RowProblem
from dpo_cli.data.reader import Columns, PairReader
from dpo_cli.data.sources.locate import locate
from dpo_cli.data.tokens.tokenizer import PairTokenizer
from dpo_cli.errors import DataError


def template(name):
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


@pytest.fixture(scope="module")
def tokenizers():
    named = {name: template(name) for name in ("qwen3", "qwen2_5", "gptoss", "llama3_1", "gemma", "phi3")}
    return {name: make_tokenizer(template=text) for name, text in (named | {"chatml": CHATML}).items()}


def prepared(tokenizer, rows):
    """The ids that TRL's trainer would train on."""
    from trl.trainer.dpo_trainer import DPOTrainer

    args = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    made = DPOTrainer._prepare_dataset(SimpleNamespace(_tokenizer=tokenizer), rows, tokenizer, args, "train")
    return [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in made]


def trl_ids(tokenizer, rows):
    """TRL's ids of raw rows, each by itself: a table of all would give every message every key."""
    from datasets import Dataset

    return [ids for row in rows for ids in prepared(tokenizer, Dataset.from_list([row]))]


def our_ids(tokenizer, pairs):
    return [(one.prompt, one.chosen, one.rejected) for one in PairTokenizer(tokenizer).tokenize(pairs)]


def write(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    if name.endswith("jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def read(path, **options):
    """The pairs of a file; every row must be one."""
    rows = list(PairReader(locate(DataConfig(dataset=path)), **options))
    assert [row.problem for row in rows] == [None] * len(rows)
    return [row.pair for row in rows]


def load(path, tokenizer=None, **options):
    return load_pairs(DataConfig(dataset=path, **options), tokenizer)


def check(path, tokenizer=None, **options):
    return check_pairs(DataConfig(dataset=path, **options), tokenizer, Truncation(max_length=8192))


def findings(path, tokenizer=None, **options):
    return {one.name: one for one in check(path, tokenizer, **options).findings}


def say(role, content, **more):
    return {"role": role, "content": content, **more}


PLAIN = {"prompt": "Twice 4 is", "chosen": " eight.", "rejected": " nine."}
CHAT = {
    "prompt": [say("user", "Twice 4?")],
    "chosen": [say("assistant", "Eight.")],
    "rejected": [say("assistant", "Nine.")],
}
BESIDE = {
    "input": "4",
    "instruction": "Say it in words.",
    "query": "id-4",
    "question": "double 4",
    "system": "You count.",
    "text": "4",
    "context": "counting",
    "history": [["a", "b"]],
    "conversations": [say("user", "double 4")],
    "messages": [say("user", "double 4")],
    "full_prompt": "### Twice 4 is",
}


@pytest.mark.parametrize("row", [PLAIN, CHAT], ids=["plain", "chat"])
@pytest.mark.parametrize("name", BESIDE)
def test_a_column_beside_trls_own_is_a_finding_and_changes_nothing(tmp_path, tokenizers, name, row):
    both = {**row, name: BESIDE[name]}
    path = write(tmp_path, [both])
    # TRL takes any of its columns to tell text from conversations: beside plain text, `messages` adds the end of the text
    # or does not, as Python's hashes fall.
    theirs = row if row is PLAIN and name == "messages" else both
    assert our_ids(tokenizers["chatml"], read(path)) == trl_ids(tokenizers["chatml"], [theirs])
    found = findings(path)
    assert found["columns left out"].rows == [1]
    assert repr(name) in found["columns left out"].detail


@pytest.mark.parametrize(
    "beside",
    [{}, {"input": ""}, {"system": None}, {"history": []}, {"messages": [*CHAT["prompt"], *CHAT["chosen"]]}],
)
def test_an_empty_column_and_the_chosen_conversation_again_are_no_finding(tmp_path, beside):
    assert findings(write(tmp_path, [{**PLAIN, **beside}])) == {}


def test_a_named_prompt_column_is_the_prompt_whatever_else_there_is(tmp_path, tokenizers):
    for other in ("question", "instruction", "query", "system", "prompt"):
        row = {"full_prompt": "Twice 4 is", other: "no", "chosen": " eight.", "rejected": " nine."}
        path = write(tmp_path, [row])
        pairs = read(path, columns=Columns(prompt="full_prompt"))
        assert our_ids(tokenizers["chatml"], pairs) == trl_ids(tokenizers["chatml"], [PLAIN])


def test_a_named_system_column_goes_before_the_prompt(tmp_path):
    system = say("system", "You count.")
    for row, prompt in ((PLAIN, say("user", "Twice 4 is")), (CHAT, CHAT["prompt"][0])):
        path = write(tmp_path, [{**row, "frame": "You count."}])
        [pair] = read(path, columns=Columns(system="frame"))
        assert pair.prompt == [system, prompt]
        assert findings(path, system_column="frame") == {}


def test_chat_template_kwargs_of_each_row_reach_the_template_and_the_trainer(tmp_path, tokenizers):
    tokenizer = tokenizers["qwen3"]
    rows = [
        {**CHAT, "chat_template_kwargs": {"enable_thinking": False}},
        CHAT,
        {**CHAT, "chat_template_kwargs": {"enable_thinking": True}},
        {**CHAT, "chat_template_kwargs": {"enable_thinking": False, "bos_token": "x"}},
    ]
    path = write(tmp_path, rows)
    ids = trl_ids(tokenizer, rows)
    assert ids[0] != ids[1]
    assert our_ids(tokenizer, read(path)) == ids
    for streaming in (False, True):
        loaded = load(path, tokenizer, streaming=streaming)
        assert prepared(tokenizer, loaded.train) == ids, "the trainer gets them as well"
    as_text = [{**rows[0], "chat_template_kwargs": json.dumps(rows[0]["chat_template_kwargs"])}]
    assert our_ids(tokenizer, read(write(tmp_path, as_text))) == ids[:1]


@pytest.mark.parametrize("kwargs", [3, [1], "no json", {"tokenize": False}, {"add_generation_prompt": True}])
def test_template_kwargs_that_are_none(tmp_path, kwargs):
    rows = list(
        PairReader(locate(DataConfig(dataset=write(tmp_path, [{**CHAT, "chat_template_kwargs": kwargs}]))))
    )
    assert rows[0].problem.reason == "non-text value"
    assert "chat_template_kwargs" in rows[0].problem.detail


@pytest.mark.parametrize("name", ["image", "images", "image_path", "videos", "audio"])
@pytest.mark.parametrize("value", ["red.png", ["red.png"], {"bytes": "x", "path": None}, [{"path": "a"}]])
def test_rows_with_pictures_are_not_trained_on_as_text(tmp_path, name, value):
    with pytest.raises(DataError, match=f"the column {name} has a value, but only text can be trained on"):
        load(write(tmp_path, [{**CHAT, name: value}]))
    assert len(read(write(tmp_path, [{**CHAT, name: empty} for empty in (None, [], "", [None])]))) == 4


def test_pictures_of_a_column_of_any_name_and_their_place_in_the_text_are_seen(tmp_path):
    with pytest.raises(DataError, match="the column chart has a value"):
        load(write(tmp_path, [{**CHAT, "chart": {"bytes": b"x", "path": "a.png"}}], "rows.parquet"))
    marked = {**CHAT, "prompt": [say("user", "<image>\nWhich colour?")]}
    assert findings(write(tmp_path, [CHAT, marked]))["placeholders"].rows == [2]


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name, *parameters):
    properties = {parameter: {"type": "string"} for parameter in parameters}
    return {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}


def test_tool_calls_have_the_same_ids_from_parquet_as_from_json(tmp_path, tokenizers):
    tokenizer = tokenizers["qwen2_5"]
    tools = [tool("note", "path", "content", "value"), tool("rain", "city")]
    rows = [
        {
            "prompt": [say("user", "Do it.")],
            "chosen": [say("assistant", "", tool_calls=[call(*names, **arguments)])],
            "rejected": [say("assistant", "", tool_calls=[call(*names, **{"other": "x", **arguments})])],
            "tools": tools,
        }
        for names, arguments in (
            (("note",), {"path": "a", "content": "b", "value": "c"}),
            (("rain",), {"city": "Ulm"}),
            (("note",), {"path": "a", "content": "b"}),
        )
    ]
    ids = our_ids(tokenizer, read(write(tmp_path, rows)))
    texts = [{**row, "tools": json.dumps(tools)} for row in rows]
    assert ids == trl_ids(tokenizer, texts)
    assert our_ids(tokenizer, read(write(tmp_path, rows, "rows.parquet"))) == ids
    for row in (0, 1):
        assert "null" not in tokenizer.decode(ids[row][1])


ODD = {
    "assistant first": [say("system", "You are Ada."), say("assistant", "Welcome!"), say("user", "Hi.")],
    "two user turns": [say("user", "Hello"), say("user", "Twice 4?")],
    "late system message": [say("user", "a"), say("assistant", "b"), say("system", "c"), say("user", "d")],
    "role of one's own": [say("user", "Twice 4?"), say("context", "4+4=8")],
    "beginning of the answer": [say("user", "Twice 4?"), say("assistant", "It is")],
    "system message alone": [say("system", "Say eight.")],
}


@pytest.mark.parametrize("kind", ODD)
def test_an_order_of_roles_that_the_template_takes_is_trained_on_and_told(tmp_path, tokenizers, kind):
    row = {**CHAT, "prompt": ODD[kind]}
    path = write(tmp_path, [row])
    refused = 0
    for name, tokenizer in tokenizers.items():
        result = check(path, tokenizer=tokenizer)
        try:
            theirs = trl_ids(tokenizer, [row])
        except Exception:  # noqa: BLE001 - whatever a template raises
            assert result.accounting.dropped == {"refused by the chat template": 1}, name
            refused += 1
            continue
        assert our_ids(tokenizer, read(path)) == theirs, name
        assert result.accounting.kept == 1
        assert "unusual role order" in {one.name for one in result.findings}
        strict = check(path, tokenizer=tokenizer, strict=True)
        assert "--strict" in str(strict.problem)
    assert refused < len(tokenizers)
    with pytest.raises(DataError, match="unusual order"):
        load(path, strict=True)


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ([say("user", "b")], [say("assistant", "c")]),
        ([say("assistant", "b"), say("user", "c")], [say("assistant", "c")]),
        ([say("tool", "b"), say("assistant", "c")], [say("assistant", "d")]),
    ],
)
def test_completions_of_other_roles_are_trained_on_as_trl_does(tmp_path, tokenizers, chosen, rejected):
    row = {"prompt": CHAT["prompt"], "chosen": chosen, "rejected": rejected}
    path = write(tmp_path, [row])
    assert our_ids(tokenizers["chatml"], read(path)) == trl_ids(tokenizers["chatml"], [row])
    assert findings(path)["unusual role order"].rows == [1]


@pytest.mark.parametrize("field", ["thinking", "reasoning", "reasoning_content"])
def test_thinking_reaches_the_template(tmp_path, tokenizers, field):
    rows = [
        {
            "prompt": [say("user", "Twice 4?")],
            "chosen": [say("assistant", "8", **{field: "4+4"})],
            "rejected": [say("assistant", answer, **{field: "No idea."})],
        }
        for answer in ("8", "9")
    ]
    path = write(tmp_path, rows)
    for name in ("gptoss", "qwen3"):
        tokenizer = tokenizers[name]
        ids = our_ids(tokenizer, read(path))
        assert ids == trl_ids(tokenizer, rows)
        assert ids[0][1] != ids[0][2], "rows that differ in their thoughts alone are pairs"
        assert prepared(tokenizer, load(path, tokenizer).train) == ids
    result = check(path, tokenizer=tokenizers["chatml"])
    assert result.accounting.dropped == {"identical completions": 1}
    assert f"does not render {field} of assistant messages" in str(
        result.accounting.examples["identical completions"][0]
    )
    [finding] = [one for one in result.findings if one.name == "fields without effect"]
    assert (finding.rows, finding.detail) == ([2], f"{field} of assistant messages.")


FIELDS = {
    "tool_calls of assistant messages": {"chosen": [say("assistant", "", tool_calls=[call("f", a="b")])]},
    "loss_weight of assistant messages": {"chosen": [say("assistant", "Eight.", loss_weight=0.5)]},
    "content of context messages": {"prompt": [say("context", "A fact."), say("user", "Twice 4?")]},
    "tools": {"tools": [tool("rain", "city")]},
}
SILENT = (
    "{% for m in messages if m.role != 'context' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("field", FIELDS)
def test_what_the_template_does_not_write_is_a_finding(tmp_path, field):
    path = write(tmp_path, [CHAT, {**CHAT, **FIELDS[field]}] * 3)
    found = findings(path, make_tokenizer(template=SILENT))
    assert (found["fields without effect"].count, found["fields without effect"].detail) == (3, f"{field}.")


def test_what_templates_write_is_no_finding(tmp_path, tokenizers):
    rows = [
        {
            "prompt": [say("system", 'Be <b>brief</b> "now".'), say("user", "  Is it wet?\n")],
            "chosen": [say("assistant", "", tool_calls=[call("rain", city="Ulm")])],
            "rejected": [say("assistant", "I do not know.")],
            "tools": [tool("rain", "city")],
        }
    ]
    path = write(tmp_path, rows)
    for name in ("qwen3", "qwen2_5", "llama3_1"):
        assert "fields without effect" not in findings(path, tokenizers[name]), name


def test_repeated_and_contradicting_pairs_are_told_by_the_whole_message(tmp_path):
    rows = [
        {
            "prompt": [say("user", "Do it.")],
            "chosen": [say("assistant", "", tool_calls=[call("rain", city=f"town {index}")])],
            "rejected": [say("assistant", "", tool_calls=[call("rain", city="nowhere at all")])],
        }
        for index in range(6)
    ]
    assert set(findings(write(tmp_path, rows))) <= {"length bias"}
    found = findings(
        write(
            tmp_path,
            [*rows, rows[0], {**rows[1], "chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"]}],
        )
    )
    assert found["duplicates"].rows == [7]
    assert found["contradicting pairs"].rows == [2, 8]


WHOLE = {name: [*CHAT["prompt"], say("assistant", f"It's {name}.")] for name in ("chosen", "rejected")}
NUMPY = {
    "json": json.dumps,
    "json twice": lambda turns: json.dumps(json.dumps(turns)),
    "Python": str,
    "NumPy": lambda turns: "[" + "\n ".join(map(str, turns)) + "]",
}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
@pytest.mark.parametrize("writer", NUMPY)
@pytest.mark.parametrize(
    "row", [CHAT, WHOLE, {"prompt": "Twice 4?", **WHOLE}], ids=["prompt", "whole", "mixed"]
)
def test_messages_written_as_text_are_messages(tmp_path, tokenizers, name, writer, row):
    texts = {key: value if isinstance(value, str) else NUMPY[writer](value) for key, value in row.items()}
    [pair] = read(write(tmp_path, [texts], name))
    expected = Pair(CHAT["prompt"], row["chosen"][-1:], row["rejected"][-1:])
    assert pair == expected
    raw = {key: value for key, value in row.items() if not isinstance(value, str)}
    assert our_ids(tokenizers["chatml"], [pair]) == trl_ids(tokenizers["chatml"], [raw])


def test_numpy_itself_prints_what_is_read(tmp_path):
    import numpy as np

    turns = [
        say("user", 'It\'s "4"\\n\u00e9\n- a\n- b'),
        say("assistant", "8", tool_calls=[call("f", a=None, b=1.5, c=True)]),
    ]
    array = np.array(turns, dtype=object)
    other = np.array([*turns[:1], say("assistant", "9")], dtype=object)
    for show in (str, repr):
        [pair] = read(write(tmp_path, [{"chosen": show(array), "rejected": show(other)}], "rows.csv"))
        assert pair == Pair(turns[:1], turns[1:], [say("assistant", "9")])


@pytest.mark.parametrize(
    "answers",
    [
        ('{"name": "Ulm", "from": "Bonn"}', '{"name": "Bonn", "from": "Ulm"}'),
        ("[1, 2]", "[2, 1]"),
        ("{'a': 1}", "{'a': 2}"),
        ('[{"role": "user", "content": "a"}]', "I cannot write JSON."),
        ("[__import__('os').getcwd()]", "['role', open('x')]"),
    ],
)
def test_answers_that_are_json_or_code_stay_text(tmp_path, answers):
    row = dict(zip(("chosen", "rejected"), answers, strict=True), prompt="Write it: ")
    for name in ("rows.jsonl", "rows.csv"):
        assert read(write(tmp_path, [row], name)) == [Pair("Write it: ", *answers)]


def test_messages_that_cannot_be_read_are_a_finding(tmp_path):
    cut = "[{'role': 'user', 'content': 'Twice 4?'}, {'role': 'assistant', 'con"
    found = findings(write(tmp_path, [PLAIN, {**PLAIN, "prompt": cut}, {**PLAIN, "chosen": '{"a": 1}'}]))
    assert found["messages written as text"].rows == [2]


def test_lists_of_answers_written_as_text_are_lists(tmp_path):
    answers = [{"response": "Nine.", "score": 1}, {"response": "Eight.", "score": 2}]
    for show in (str, json.dumps):
        path = write(tmp_path, [{"instruction": "Twice 4?", "completions": show(answers)}], "rows.csv")
        assert read(path) == [Pair(CHAT["prompt"], CHAT["chosen"], CHAT["rejected"])]
        row = {"prompt": "Twice 4?", "responses": show(["Nine.", "Eight."]), "scores": show([1, 2.5])}
        assert read(write(tmp_path, [row], "rows.csv")) == [
            Pair(CHAT["prompt"], CHAT["chosen"], CHAT["rejected"])
        ]


DEEP = "[" * 100_000 + "]" * 100_000
NESTED: dict = {}
for _ in range(200):
    NESTED = {"a": NESTED}


@pytest.mark.parametrize(
    "more",
    [
        {"tools": DEEP},
        {"tools": DEEP[:300] + DEEP[-300:]},
        {"tools": [NESTED]},
        {"tools": '["\\ud800"]'},
        {"chat_template_kwargs": {"x": NESTED}},
        {"chosen": [say("assistant", "Eight.", extra=NESTED)]},
        {"chosen": [say("assistant", "", tool_calls=[{"function": {"name": "f", "arguments": DEEP}}])]},
    ],
)
def test_values_nested_without_end_and_half_characters_cost_their_row_only(tmp_path, tokenizers, more):
    rows = [CHAT, {**CHAT, **more}]
    result = check(write(tmp_path, rows), tokenizer=tokenizers["qwen2_5"])
    assert result.accounting.kept == 1
    assert result.accounting.dropped == {"unreadable row": 1}


@pytest.mark.parametrize(
    "cell",
    [
        '[{"role": "user", "content": ' + DEEP + "}]",
        '[{"role": "user", "content": "\\ud800"}]',
        "[{'role': 'user', 'content': '\\ud800'}]",
    ],
)
def test_cells_of_deep_json_and_half_characters(tmp_path, cell):
    rows = [{name: json.dumps(value) for name, value in CHAT.items()} for _ in range(2)]
    rows[1]["prompt"] = cell
    counted = check(write(tmp_path, rows, "rows.csv"), allow_drops=True).accounting
    assert (counted.kept, sum(counted.dropped.values())) == (1, 1)


def test_a_cell_of_deep_json_is_text(tmp_path):
    assert read(write(tmp_path, [{**PLAIN, "prompt": DEEP}], "rows.csv")) == [Pair(DEEP, " eight.", " nine.")]


@pytest.mark.parametrize(
    "body",
    [
        "{{ 1 / 0 }}",
        "{{ messages + 3 }}",
        "{{ messages[99].content.a }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ none.a.b }}",
    ],
)
def test_a_template_that_fails_is_said_for_the_row(tmp_path, body):
    counted = check(write(tmp_path, [CHAT]), tokenizer=make_tokenizer(template=body)).accounting
    assert counted.dropped == {"refused by the chat template": 1}


@pytest.mark.slow
def test_conversations_of_all_kinds_have_trls_ids_with_every_template_that_trl_ships(tmp_path):
    """Rows with any roles, thinking, calls, tools and template variables: the same ids, or refused by both."""
    import trl
    from datasets import Dataset, Features, Json

    rng = random.Random(4)  # noqa: S311 - made-up rows
    names = sorted(file.stem for file in (Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    same = 0
    for name in names:
        tokenizer = make_tokenizer(template=template(name))
        tokenizer.bos_token = "<|endoftext|>"
        for row in (any_row(rng) for _ in range(6)):
            [read_row] = PairReader(locate(DataConfig(dataset=write(tmp_path, [row]))))
            assert read_row.problem is None
            [ours] = PairTokenizer(tokenizer).tokenize([read_row.pair])
            try:
                theirs = prepared(tokenizer, Dataset.from_list([row], Features(dict.fromkeys(row, Json()))))
            except Exception:  # noqa: BLE001 - whatever a template raises
                assert isinstance(ours, RowProblem), (name, row)
                continue
            assert [(ours.prompt, ours.chosen, ours.rejected)] == theirs, (name, row)
            same += 1
    assert same > 4 * len(names)


def any_row(rng):
    """A conversation with any order of roles, and with the fields that people use."""
    some = [
        any_message(rng, rng.choice(["system", "user", "assistant", "tool", "context"])) for _ in range(3)
    ]
    usual = [any_message(rng, role) for role in ("system", "user", "assistant", "user")[rng.randint(0, 1) :]]
    row = {"prompt": rng.choice([some, usual]), "question": "no"}
    row |= {name: [any_message(rng, "assistant", name)] for name in ("chosen", "rejected")}
    if rng.random() < 0.3:
        row["tools"] = [tool("rain", "city")]
    if rng.random() < 0.3:
        row["chat_template_kwargs"] = {"enable_thinking": rng.random() < 0.5, "reasoning_effort": "low"}
    return row


def any_message(rng, role, start="turn"):
    pieces = ["river", "<b>", "'x'", "\n\n", "\u00e9", "<think>a</think>", "}}"]
    message = say(role, " ".join([start, *rng.choices(pieces, k=rng.randint(1, 5))]))
    if role == "assistant":
        field = rng.choice(["thinking", "reasoning", "reasoning_content", "tool_calls", "weight", ""])
        more = {"tool_calls": [call("rain", city="Ulm")], "weight": 1.0, "": None}
        message |= {field: more.get(field, "hm")} if field else {}
    return message
