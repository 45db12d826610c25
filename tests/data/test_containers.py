"""The same pairs in every container, with the values that the file has."""

from __future__ import annotations

import csv
import gzip
import json

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_cli.config import DataConfig
from dpo_cli.data.load import check_pairs, load_dpo_dataset, load_pairs
from dpo_cli.data.sources.json_rows import LARGEST_ROW
from dpo_cli.errors import ConfigError, DataError

TRICKY = [
    {"prompt": "1", "chosen": "007", "rejected": "1.0"},
    {"prompt": "2024-01-31", "chosen": "true", "rejected": "null"},
    {"prompt": "NaN", "chosen": "1e5", "rejected": "Infinity"},
    {"prompt": 'quote " comma , line\nend', "chosen": " leading", "rejected": "trailing "},
    {"prompt": "é 👍 \u2028 \u00a0", "chosen": "2024-01-31T00:00:00Z", "rejected": "[]"},
]


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "chosen", "rejected"])
        writer.writeheader()
        writer.writerows(rows)


WRITERS = {
    "json": lambda path, rows: path.write_text(json.dumps(rows)),
    "jsonl": lambda path, rows: path.write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    ),
    "csv": write_csv,
    "parquet": lambda path, rows: Dataset.from_list(rows).to_parquet(str(path)),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", [*WRITERS, "arrow", "arrow-file"])
def test_values_are_those_of_the_file(tmp_path, kind, zipped):
    path = tmp_path / f"rows.{kind.removesuffix('-file')}"
    if kind.startswith("arrow"):
        import pyarrow as pa

        table = pa.Table.from_pylist(TRICKY)
        make = pa.ipc.new_file if kind == "arrow-file" else pa.ipc.new_stream
        with make(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        WRITERS[kind](path, TRICKY)
    if zipped:
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    assert load_dpo_dataset(str(path)).to_list() == TRICKY


def test_a_column_of_numbers_is_not_made_into_text(tmp_path):
    path = tmp_path / "rows.parquet"
    Dataset.from_list([{"prompt": "a", "chosen": 1, "rejected": 2}] * 3).to_parquet(str(path))
    with pytest.raises(DataError, match="chosen is a number"):
        load_dpo_dataset(str(path))


def test_an_edited_file_is_read_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    for text in ("old", "new"):
        path.write_text(json.dumps({"prompt": "a", "chosen": text, "rejected": "c"}))
        assert load_dpo_dataset(str(path))["chosen"][0] == text


def test_messages_in_tables_have_no_keys_that_the_row_did_not_have(tmp_path):
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    plain = {"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "assistant", "content": "b"}]}
    rows = [
        {**plain, "rejected": [{"role": "assistant", "content": "c"}]},
        {
            **plain,
            "rejected": [{"role": "assistant", "content": "", "tool_calls": [call]}],
            "tools": '[{"name": "f"}]',
        },
    ]
    jsonl = tmp_path / "rows.jsonl"
    jsonl.write_text("\n".join(map(json.dumps, rows)))
    loaded = load_dpo_dataset(str(jsonl)).to_list()
    assert loaded == [{**rows[0], "tools": None}, rows[1]]
    table = tmp_path / "rows.parquet"
    Dataset.from_list([{**row, "tools": row.get("tools")} for row in rows]).to_parquet(str(table))
    assert load_dpo_dataset(str(table)).to_list() == loaded


def test_calls_in_tables_have_no_arguments_of_other_calls(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def answer(**arguments):
        return [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
            }
        ]

    rows = [
        {"prompt": [{"role": "user", "content": "a"}], "chosen": answer(x=1), "rejected": answer(x=2)},
        {"prompt": [{"role": "user", "content": "b"}], "chosen": answer(y="p"), "rejected": answer(y="q")},
    ]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert load_dpo_dataset(str(path)).to_list() == rows


def test_messages_as_json_in_csv(tmp_path):
    path = tmp_path / "rows.csv"
    turns = [{"role": "user", "content": "a"}]
    write_csv(path, [{"prompt": json.dumps(turns), "chosen": "b", "rejected": "c"}])
    assert load_dpo_dataset(str(path)).to_list() == [
        {
            "prompt": turns,
            "chosen": [{"role": "assistant", "content": "b"}],
            "rejected": [{"role": "assistant", "content": "c"}],
        }
    ]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_marks(tmp_path, mark):
    path = tmp_path / "rows.csv"
    path.write_text(f"prompt{mark}chosen{mark}rejected\na{mark}b{mark}c\n")
    assert load_dpo_dataset(str(path)).to_list() == [{"prompt": "a", "chosen": "b", "rejected": "c"}]


def one(text):
    return json.dumps({"prompt": text, "chosen": "b", "rejected": "c"})


def test_folders_are_read_by_split(tmp_path):
    for name in (
        "train-00001.jsonl",
        "train-00000.jsonl",
        "test.jsonl",
        "sub/validation.jsonl",
        ".hidden.jsonl",
        "notes.md",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(one(name))
    assert load_dpo_dataset(str(tmp_path))["prompt"][:] == ["train-00000.jsonl", "train-00001.jsonl"]
    assert load_dpo_dataset(str(tmp_path), "test")["prompt"][:] == ["test.jsonl"]
    assert load_dpo_dataset(str(tmp_path), "validation")["prompt"][:] == ["sub/validation.jsonl"]
    with pytest.raises(DataError, match="no files for the split 'extra'; it has: test, train, validation"):
        load_dpo_dataset(str(tmp_path), "extra")


def test_saved_data_sets(tmp_path):
    pairs = DatasetDict({"train": Dataset.from_list(TRICKY), "test": Dataset.from_list(TRICKY[:1])})
    pairs.save_to_disk(str(tmp_path / "both"))
    pairs["train"].select([2, 0]).save_to_disk(str(tmp_path / "one"))
    assert load_dpo_dataset(str(tmp_path / "both")).to_list() == TRICKY
    assert load_dpo_dataset(str(tmp_path / "both"), "test").to_list() == TRICKY[:1]
    assert load_dpo_dataset(str(tmp_path / "one")).to_list() == [TRICKY[2], TRICKY[0]]
    with pytest.raises(DataError, match="no split 'dev'; it has: train, test"):
        load_dpo_dataset(str(tmp_path / "both"), "dev")


def test_max_samples_reads_the_first_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(one(str(index)) for index in range(5)))
    loaded = load_pairs(DataConfig(dataset=str(path), max_samples=2))
    assert loaded.train["prompt"][:] == ["0", "1"]
    assert loaded.accounting.read == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, min_size=1, max_size=4),
        min_size=1,
        max_size=6,
    ),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    array=st.booleans(),
    chunk=st.sampled_from([1, 7, 1 << 20]),
)
def test_our_reader_reads_what_pythons_does(tmp_path, monkeypatch, rows, indent, ascii_only, array, chunk):
    from dpo_cli.data.sources import json_rows
    from dpo_cli.data.sources.containers import Files

    monkeypatch.setattr(json_rows, "_CHUNK", chunk)
    texts = [json.dumps(row, indent=indent, ensure_ascii=ascii_only) for row in rows]
    path = tmp_path / "rows.json"
    path.write_text(
        json.dumps(rows, indent=indent, ensure_ascii=ascii_only) if array else "\n".join(texts),
        encoding="utf-8",
        newline="",
    )
    read = list(Files("rows", [path]).rows())
    if (
        not array
        and len(rows) == 1
        and any(isinstance(rows[0].get(name), list) for name in ("train", "data", "rows", "examples"))
    ):
        return
    assert [row.data for row in read] == rows


def test_a_large_row_within_the_limit_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    text = "a" * (LARGEST_ROW // 2)
    path.write_text(one(text) + "\n" + one("b"))
    assert load_dpo_dataset(str(path))["prompt"][:] == [text, "b"]


def test_a_split_by_prompt(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": f"question {index % 40}", "chosen": f"good {index}", "rejected": "bad"}
        for index in range(200)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    loaded = load_pairs(DataConfig(dataset=str(path), eval_fraction=0.2))
    assert (loaded.train_pairs, loaded.eval_pairs) == (len(loaded.train), len(loaded.eval)) == (160, 40)
    assert not set(loaded.train["prompt"]) & set(loaded.eval["prompt"])
    path.write_text("\n".join(map(json.dumps, rows[::-1])))
    again = load_pairs(DataConfig(dataset=str(path), eval_fraction=0.2))
    assert set(again.eval["prompt"]) == set(loaded.eval["prompt"]), "the order of rows does not matter"
    streamed = load_pairs(DataConfig(dataset=str(path), eval_fraction=0.2, streaming=True))
    assert list(streamed.train) == again.train.to_list()
    assert list(streamed.eval) == again.eval.to_list()


def test_a_split_needs_two_prompts(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(one("same") for _ in range(5)))
    with pytest.raises(DataError, match="at least two different prompts"):
        load_pairs(DataConfig(dataset=str(path), eval_fraction=0.5))
    with pytest.raises(ConfigError, match="both given"):
        load_pairs(DataConfig(dataset=str(path), eval_fraction=0.5, eval_dataset=str(path)))


def test_held_out_pairs_from_a_file_of_their_own(tmp_path):
    train, held = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    train.write_text(one("x") + "\n" + one("y"))
    held.write_text(one("z"))
    loaded = load_pairs(DataConfig(dataset=str(train), eval_dataset=str(held), max_samples=1))
    assert loaded.train["prompt"][:] == ["x"]
    assert loaded.eval["prompt"][:] == ["z"]
    assert loaded.to_json()["eval"]["rows"]["kept"] == 1


@pytest.mark.parametrize("read", ["load", "check"])
def test_held_out_pairs_have_a_split_of_their_own(tmp_path, read):
    train, held = tmp_path / "a.json", tmp_path / "b.json"
    train.write_text(f'{{"mine": [{one("x")}], "train": [{one("not me")}]}}')
    held.write_text(f'{{"train": [{one("z")}], "test": [{one("t")}, {one("u")}]}}')
    for options, expected in (
        ({"split": "mine"}, ["z"]),
        ({"split": "mine", "eval_split": "test"}, ["t", "u"]),
    ):
        if read == "load":
            loaded = load_pairs(DataConfig(dataset=str(train), eval_dataset=str(held), **options))
            assert (loaded.train["prompt"][:], loaded.eval["prompt"][:]) == (["x"], expected)
        else:
            checked = check_pairs(DataConfig(dataset=str(train), eval_dataset=str(held), **options))
            assert checked.eval_accounting.read == len(expected)


def test_a_stream_has_the_kept_rows_each_time(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [json.loads(one(str(index))) for index in range(30)]
    rows[3]["chosen"] = rows[3]["rejected"]
    path.write_text("\n".join(map(json.dumps, rows)))
    loaded = load_pairs(DataConfig(dataset=str(path), streaming=True))
    expected = [row for index, row in enumerate(rows) if index != 3]
    assert list(loaded.train) == list(loaded.train) == expected
    assert loaded.train_pairs == 29


def test_a_data_set_in_memory(tmp_path):
    rows = Dataset.from_list(TRICKY)
    assert load_pairs(DataConfig(), rows=rows).train.to_list() == TRICKY
    assert load_pairs(DataConfig(), rows=rows.to_iterable_dataset()).train.to_list() == TRICKY
