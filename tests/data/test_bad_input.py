"""Bad input: one message with file, row and key, exit code 2, before a model is loaded; nothing is written."""

from __future__ import annotations

import gzip
import json

import pytest

from dpo_cli.config import DataConfig
from dpo_cli.data.load import check_pairs, load_dpo_dataset, load_pairs
from dpo_cli.data.sources.locate import read_rows
from dpo_cli.errors import DataError

GOOD = {"prompt": "What color is the sky?", "chosen": "It is blue.", "rejected": "It is green."}


def line(**changes):
    return json.dumps(GOOD | changes).encode()


LINES = [line(prompt=f"What color has thing {word}?") for word in ("a", "b", "c")]


def write(tmp_path, data, name="rows.jsonl"):
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


def error_of(path, **options):
    with pytest.raises(DataError) as caught:
        load_pairs(DataConfig(dataset=path, **options))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("rows.jsonl", b"", "has no rows"),
        ("rows.jsonl", b"\n \n\n", "has no rows"),
        ("rows.json", b"[]", "has no rows"),
        ("rows.csv", b"", "no header"),
        ("rows.jsonl", b"\n".join([*LINES, LINES[0][:-20]]), "line 4.*last line is cut off"),
        ("rows.json", b"[" + b",\n".join(LINES)[:-9], "line 3.*ends in the middle of a row"),
        ("rows.json", b"[" + b",\n".join(LINES), "ends in the middle"),
        ("rows.json", b"[" + b"\n".join(LINES) + b"]", "line 2.*where ',' or ']' is expected"),
        ("rows.json", b"[1, 2]", "line 1.*not an object"),
        (
            "rows.jsonl",
            b"\n".join([*LINES, line().replace(b"blue", b"bl\xfce")]),
            "line 4.*0xfc.*not UTF-8.*iconv",
        ),
        (
            "rows.json",
            b"[" + b",\n".join([*LINES, line().replace(b"blue", b"bl\xfce")]) + b"]",
            "line 4.*0xfc.*not UTF-8",
        ),
        ("rows.csv", b"prompt,chosen,rejected\na,b,\xff\n", "0xff.*not UTF-8"),
        ("rows.jsonl", "\n".join(one.decode() for one in LINES).encode("utf-16"), "UTF-16"),
        ("rows.jsonl", b"\n".join([line(chosen=None)]), "line 1.*chosen is null"),
        ("rows.jsonl", b"\n".join([line(rejected=3)]), "line 1.*rejected is a number"),
        ("rows.jsonl", b'{"prompt": "a", "chosen": NaN, "rejected": "c"}', "line 1.*chosen is a number"),
        (
            "rows.jsonl",
            b'{"prompt": "a", "chosen": "b\\ud800", "rejected": "c"}',
            "line 1.*chosen.*surrogate",
        ),
        (
            "rows.json",
            b'[{"prompt": "a", "chosen": "b\\ud800", "rejected": "c"}]',
            "line 1.*chosen.*surrogate",
        ),
        (
            "rows.jsonl",
            b'{"prompt": "a", "chosen": "b", "chosen": "c", "rejected": "d"}',
            "line 1.*duplicate key 'chosen'",
        ),
        (
            "rows.json",
            b'[{"prompt": "a", "chosen": "b", "chosen": "c", "rejected": "d"}]',
            "line 1.*duplicate key 'chosen'",
        ),
        ("rows.csv", b"prompt,chosen,chosen\na,b,c\n", "duplicate column 'chosen'"),
        ("rows.csv", b"prompt,chosen,rejected\na,b\n", "line 2.*2 cells.*header has 3"),
        ("rows.jsonl", line(chosen="a" * 10_000_000), "line 1.*9.5 MiB in one row"),
        ("rows.jsonl", b"[" * 100_000, "line 1|rows.jsonl"),
        ("rows.jsonl", b'{"a": ' * 100_000, "line 1"),
        ("rows.jsonl", LINES[0] + LINES[1], "more than one JSON value"),
        ("rows.parquet", b"PAR1 no", "not a readable Parquet"),
        ("rows.arrow", b"nothing of the kind", "not a readable Arrow"),
        ("rows.jsonl.gz", gzip.compress(b"\n".join(LINES), mtime=0)[:-12], "compressed file is truncated"),
        ("rows.jsonl.gz", b"no gzip", "compressed file"),
        ("rows.txt", b"a", "is not a supported kind of file.*parquet"),
    ],
)
def test_bad_files_are_explained(tmp_path, name, data, said):
    import re

    message = error_of(write(tmp_path, data, name))
    assert re.search(said, message, re.DOTALL), message
    assert "rows" in message


def test_what_is_accepted(tmp_path):
    plain = load_dpo_dataset(write(tmp_path, b"\n".join(LINES), "plain.jsonl"))
    for name, data in {
        "bom.jsonl": b"\xef\xbb\xbf" + b"\n".join(LINES),
        "crlf.jsonl": b"\r\n".join([*LINES, b""]),
        "blank.jsonl": b"\n\n".join([b"", *LINES, b"  ", b""]),
        "array.json": b"\xef\xbb\xbf [\r\n" + b",\r\n".join(LINES) + b"\r\n]\r\n",
        "lines.json": b"\n".join(LINES),
        "array.jsonl": b"[" + b",".join(LINES) + b"]",
        "pretty.json": b"\n".join(json.dumps(json.loads(one), indent=2).encode() for one in LINES),
        "named.json": b'{"train": [' + b",".join(LINES) + b'], "test": []}',
        "zipped.jsonl.gz": gzip.compress(b"\n".join(LINES)),
        "zipped.json.gz": gzip.compress(b"[" + b",".join(LINES) + b"]"),
    }.items():
        assert load_dpo_dataset(write(tmp_path, data, name)).to_list() == plain.to_list(), name


def test_missing_files_and_folders(tmp_path):
    (tmp_path / "pairs.jsonl").write_bytes(LINES[0])
    assert "no such file or folder (did you mean" in error_of(str(tmp_path / "pair.jsonl"))
    assert "does not exist either" in error_of(str(tmp_path / "nowhere" / "pair.jsonl"))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("none")
    assert "has no data files" in error_of(str(empty))


def test_one_bad_row_in_many_is_dropped_and_named(tmp_path):
    rows = [line(prompt=f"What color has {index}?") for index in range(30)]
    rows[4] = line(chosen=None)
    rows[7] = b'{"prompt": '
    path = write(tmp_path, b"\n".join(rows))
    loaded = load_pairs(DataConfig(dataset=path))
    assert loaded.accounting.dropped == {"unreadable row": 1, "non-text value": 1}
    assert loaded.to_json()["dropped_rows"]["unreadable row"]["rows"] == [8]
    assert len(loaded.train) == 28
    assert "line 5: chosen is null" in error_of(path, strict=True)


def test_more_than_a_tenth_is_an_error_unless_allowed(tmp_path):
    rows = [line(prompt=f"What color has {index}?") for index in range(18)] + [line(chosen="")] * 2
    assert len(load_dpo_dataset(write(tmp_path, b"\n".join(rows)))) == 18
    path = write(tmp_path, b"\n".join([*rows, line(rejected="")]))
    message = error_of(path)
    assert "3 of 21 rows would be dropped, more than a tenth" in message
    assert "line 19" in message
    assert "--allow-drops" in message
    assert len(load_dpo_dataset(path, allow_drops=True)) == 18


def test_a_damaged_file_stops_unless_drops_are_allowed(tmp_path):
    rows = [line(prompt=f"What color has {index}?") for index in range(50)]
    path = write(tmp_path, b"\n".join([*rows, rows[0][:30]]))
    assert "line 51: the last line is cut off" in error_of(path)
    assert len(load_dpo_dataset(path, allow_drops=True)) == 50
    assert check_pairs(DataConfig(dataset=path)).problem is not None


def test_nothing_left_is_an_error_whatever_is_allowed(tmp_path):
    path = write(tmp_path, line(chosen=""))
    assert "no usable pairs in 1 rows" in error_of(path, allow_drops=True)


def test_raw_rows_of_any_layout_are_read(tmp_path):
    path = write(tmp_path, b'{"conversations": []}\n{"a": 1}')
    assert list(read_rows(path)) == [{"conversations": []}, {"a": 1}]
    with pytest.raises(DataError, match="line 1: not JSON"):
        list(read_rows(write(tmp_path, b"{\n{}\n")))
