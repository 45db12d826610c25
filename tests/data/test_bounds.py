"""Time and memory are bounded whatever a file holds, and a file that changes under a run ends it."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from dpo_cli.config import DataConfig
from dpo_cli.data.load import check_pairs, load_pairs
from dpo_cli.data.sources import rows as limits
from dpo_cli.errors import DataError, TrainingError


def pairs(count):
    return [{"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No."} for n in range(count)]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path, rows):
    path.write_text("".join(",".join(line) + "\n" for line in [rows[0], *(row.values() for row in rows)]))


def write_arrow(path, rows):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


WRITERS = {
    "rows.jsonl": write_jsonl,
    "rows.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "rows.csv": write_csv,
    "rows.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
    "rows.arrow": write_arrow,
    "saved": lambda path, rows: Dataset.from_list(rows).save_to_disk(str(path)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_row_of_ten_megabytes_is_dropped_by_name_in_every_container(tmp_path, name):
    rows = pairs(30)
    rows[7]["rejected"] = "x" * 10_000_000
    WRITERS[name](tmp_path / name, rows)
    loaded = load_pairs(DataConfig(dataset=str(tmp_path / name)))
    assert loaded.train["prompt"][:] == [row["prompt"] for row in rows if row is not rows[7]]
    [drop] = loaded.accounting.examples["unreadable row"]
    assert drop.row == 8
    assert "9.5 MiB in one row, the limit is 8 MiB" in drop.detail


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.jsonl.gz"])
def test_what_goes_on_without_a_row_is_given_up(tmp_path, monkeypatch, name):
    from dpo_cli.data.sources import json_rows, table_rows

    for room in (limits, json_rows, table_rows):
        monkeypatch.setattr(room, "WITHOUT_A_ROW", 1_000_000)
    start = {"rows.csv": "prompt,chosen,rejected\n", "rows.json": "[\n"}.get(name, "\n")
    for filler in (" ", "\n"):
        data = (start + filler * 3_000_000).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        with pytest.raises(DataError, match=r"line \d+: no row ends within"):
            load_pairs(DataConfig(dataset=str(tmp_path / name)))


def test_a_table_that_unpacks_to_thousands_of_times_its_size_is_given_up(tmp_path):
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array(["x" * 500_000]))
    table = pa.table({"prompt": text, "chosen": text, "rejected": text})
    pq.write_table(table, tmp_path / "wide.parquet", compression="zstd")
    few = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000_000, pa.int32()), pa.array(["x"]))
    pq.write_table(pa.table({"prompt": few, "chosen": few, "rejected": few}), tmp_path / "long.parquet")
    (tmp_path / "same.jsonl.gz").write_bytes(gzip.compress(json.dumps(pairs(1)[0]).encode() * 3, 9))
    for name, said in (
        ("wide.parquet", "unpacks to more than"),
        ("long.parquet", "claims 3,000,000 rows in"),
    ):
        with pytest.raises(DataError, match=said):
            load_pairs(DataConfig(dataset=str(tmp_path / name)))


def test_long_rows_after_short_ones_in_a_table_are_read_whole(tmp_path):
    rows = pairs(40)
    for row in rows[20:]:
        row["rejected"] = "x" * 1_000_000
    WRITERS["rows.parquet"](tmp_path / "rows.parquet", rows)
    assert load_pairs(DataConfig(dataset=str(tmp_path / "rows.parquet"))).train.to_list() == rows


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_a_text_of_a_table_that_is_not_utf8_is_named_by_its_row(tmp_path, name):
    good = pairs(20)
    texts = [row["chosen"].encode() for row in good]
    texts[4] = b"It is \xff."
    table = pa.table(
        {
            "prompt": [row["prompt"] for row in good],
            "chosen": pa.array(texts).view(pa.string()),
            "rejected": ["No."] * 20,
        }
    )
    if name.endswith(".parquet"):
        pq.write_table(table, tmp_path / name)
    else:
        with pa.OSFile(str(tmp_path / name), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    data = {"dataset": str(tmp_path / name)}
    with pytest.raises(DataError, match="row 5: contains a text with the byte 0xff, which is not UTF-8"):
        load_pairs(DataConfig(**data))
    kept = load_pairs(DataConfig(**data, allow_drops=True))
    assert kept.train.to_list() == [row for at, row in enumerate(good) if at != 4]


def test_a_stream_ends_the_run_when_its_file_is_changed(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, pairs(20))
    loaded = load_pairs(DataConfig(dataset=str(path), streaming=True))
    assert len(list(loaded.train)) == 20
    write_jsonl(path, pairs(21))
    with pytest.raises(TrainingError, match=r"rows\.jsonl: was changed while it was being read"):
        list(loaded.train)
    path.unlink()
    with pytest.raises(TrainingError, match=r"rows\.jsonl: cannot be read"):
        list(loaded.train)


def test_a_file_that_is_written_to_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, pairs(5000))
    told = []

    def grow(event):
        if not told:
            with path.open("a") as file:
                file.write(json.dumps(pairs(1)[0]) + "\n")
        told.append(event)

    with pytest.raises(DataError, match="was changed while it was being read"):
        check_pairs(DataConfig(dataset=str(path)), on_event=grow)


def test_a_message_about_columns_stays_short(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({f"column{n}": "v" for n in range(100_000)} | {"k" * 1_000_000: "v"}) + "\n")
    with pytest.raises(DataError, match="and 99,981 more") as error:
        load_pairs(DataConfig(dataset=str(path)))
    assert len(str(error.value)) < 2000
    path.write_text(json.dumps({"k" * 1_000_000: "v"}) + "\n")
    with pytest.raises(DataError, match=r"kkkk\.\.\.") as error:
        load_pairs(DataConfig(dataset=str(path)))
    assert len(str(error.value)) < 2000
    path.write_text('{"' + '": 1, "'.join(["a", *map(str, range(50_000)), "a"]) + '": 1}\n')
    with pytest.raises(DataError, match="duplicate key 'a'"):
        load_pairs(DataConfig(dataset=str(path)))
