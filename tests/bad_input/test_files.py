"""Files of pairs: what stands at the path, and what is in it."""

import gzip
import json

from bad_input.harness import Case, bad_input_test
from bad_input.makers import (
    PAIRS,
    among,
    bound_socket,
    fifo,
    folder,
    gz,
    lines,
    link,
    parquet,
    saved,
    sparse,
)

GOOD = PAIRS[0]
CSV = "prompt,chosen,rejected\n"


def data(name, file, content, *says, **more):
    """`dpo check` of one file."""
    more = {"files": {file: content}} | more
    return Case(name, ("check", file), (file, *says), **more)


def bomb(letter: bytes, megabytes: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """One letter so often, a thousandth of that compressed; of many members, which are made at once."""
    block = gzip.compress(letter * 2**20, 9, mtime=0)
    return gz(before) + block * megabytes + gz(after)


ROW_BOMB = bomb(b"x", 1000, *json.dumps(GOOD | {"chosen": "|"}).encode().split(b"|"))
"""A row of a gigabyte."""


def wide(path):
    """A Parquet file of few bytes whose one column is gigabytes when it is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array(["x" * 2_000_000]))
    table = pa.table({"prompt": text, "chosen": text, "rejected": text})
    pq.write_table(table, path, compression="zstd")


def bad_utf8(path):
    """A Parquet file with a string column that holds bytes of no string."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = pa.array([b"It is \xff\xfe."] * 16).view(pa.string())
    whole = pa.array([row["prompt"] for row in PAIRS])
    pq.write_table(pa.table({"prompt": whole, "chosen": broken, "rejected": whole}), path)


def no_rows(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in GOOD}), path)


def damaged(path):
    parquet(PAIRS)(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + bytes(60) + whole[68:])


test_paths = bad_input_test(
    [
        Case("data that is not there", "check nofile.jsonl", "nofile.jsonl"),
        Case("data in a folder that is not there", "check no/where/p.jsonl", "no/where/p.jsonl"),
        Case(
            "data with a slip of the finger",
            "check pair.jsonl",
            ("pair.jsonl", "pairs.jsonl"),
            files={"pairs.jsonl": lines()},
        ),
        Case("data below a file", "check p.jsonl/q.jsonl", "p.jsonl/q.jsonl", files={"p.jsonl": lines()}),
        Case("data that is a FIFO", "check p.jsonl", "p.jsonl", files={"p.jsonl": fifo}),
        Case("data that is a socket", "check p.jsonl", "p.jsonl", files={"p.jsonl": bound_socket}),
        Case("data that is a device", "check /dev/zero", "/dev/zero"),
        Case(
            "data that is a link to a device",
            "check p.jsonl",
            "p.jsonl",
            files={"p.jsonl": link("/dev/zero")},
        ),
        Case("data that is a link to itself", "check p.jsonl", "p.jsonl", files={"p.jsonl": link("p.jsonl")}),
        Case("data that is a dangling link", "check p.jsonl", "p.jsonl", files={"p.jsonl": link("nowhere")}),
        Case("data in an empty folder", "check data", ("data", "no data files"), files={"data": folder}),
        Case("data in a folder of other things", "check data", "data", files={"data/notes.md": "nothing"}),
        Case(
            "data in a folder without that split",
            "check data --split test",
            ("data", "'test'"),
            files={"data/train.jsonl": lines()},
        ),
        Case(
            "a FIFO in a folder of data",
            "check data",
            code=0,
            files={"data/train.jsonl": lines(), "data/more.jsonl": fifo},
        ),
        Case(
            "a folder that holds a link to itself",
            "check data",
            code=0,
            files={"data/train.jsonl": lines(), "data/again": link(".")},
        ),
        Case(
            "data of a kind that there is not",
            "check p.xlsx",
            ("p.xlsx", ".parquet"),
            files={"p.xlsx": b"PK"},
        ),
        Case("data without an ending", "check pairs", "pairs", files={"pairs": lines()}),
        Case("data with a name of 300 letters", ("check", "n" * 300 + ".jsonl"), "nnnn"),
        Case("data with an escape in its name", ("check", "\x1b[31m.jsonl"), r"\x1b"),
        Case("data with a bidi override in its name", ("check", "\u202elnosj.jsonl"), r"\u202e"),
        Case("data with a newline in its name", ("check", "a\nb.jsonl"), "b.jsonl"),
        Case("data in a home that there is not", "check ~nobody-here/p.jsonl", "~nobody-here"),
        Case("a hub id when the hub is off", "check nobody-here/nothing-there", "nobody-here/nothing-there"),
        Case("an address for data", "check https://example.org/p.jsonl", "https://example.org/p.jsonl"),
        Case(
            "an address with a password for data",
            "check https://me:geheim@example.org/p.jsonl",
            ("--dataset", "password"),
            never=("geheim",),
        ),
        Case(
            "held-out data that is not there",
            "train -d p.jsonl --eval-dataset q.jsonl",
            "q.jsonl",
            files={"p.jsonl": lines()},
        ),
        Case(
            "held-out data that is a FIFO",
            "train -d p.jsonl --eval-dataset q.jsonl",
            "q.jsonl",
            files={"p.jsonl": lines(), "q.jsonl": fifo},
        ),
        Case(
            "held-out data that is a bomb",
            "train -d p.jsonl --eval-dataset q.jsonl.gz",
            "q.jsonl.gz",
            files={"p.jsonl": lines(), "q.jsonl.gz": ROW_BOMB},
        ),
        Case(
            "pairs to compare on that are a FIFO",
            "compare --before embedded --after embedded --pairs q.jsonl",
            "q.jsonl",
            files={"q.jsonl": fifo},
        ),
        Case(
            "held-out data that is empty",
            "train -d p.jsonl --eval-dataset q.jsonl",
            "q.jsonl",
            files={"p.jsonl": lines(), "q.jsonl": ""},
        ),
        Case(
            "pairs to compare on that are not there",
            "compare --before embedded --after embedded --pairs q.jsonl",
            "q.jsonl",
        ),
        Case(
            "pairs to compare on that are no pairs",
            "compare --before embedded --after embedded --pairs q.jsonl",
            "q.jsonl",
            files={"q.jsonl": '{"text": "a"}\n'},
        ),
        Case("pairs to measure on that are not there", "bench -d q.jsonl", "q.jsonl"),
        Case(
            "pairs to measure on that are no pairs",
            "bench -d q.jsonl",
            "q.jsonl",
            files={"q.jsonl": '{"text": "a"}\n'},
        ),
        Case(
            "an identity data set that is not there",
            "identity-shift --original-name A --new-name B --identity-dataset q.jsonl",
            "q.jsonl",
        ),
        Case(
            "an identity data set of pairs",
            "identity-shift --original-name A --new-name B --identity-dataset q.jsonl",
            "q.jsonl",
            files={"q.jsonl": lines()},
        ),
        Case(
            "an identity data set of numbers",
            "identity-shift --original-name A --new-name B --identity-dataset q.jsonl",
            "q.jsonl",
            files={"q.jsonl": '{"conversations": 3}\n'},
        ),
    ]
)

test_json = bad_input_test(
    [
        data("no bytes", "p.jsonl", ""),
        data("blank lines alone", "p.jsonl", "\n \n\n"),
        data("no rows in a list", "p.json", "[]"),
        data("a list that is not closed", "p.json", "[" + json.dumps(GOOD)),
        data("a list of numbers", "p.json", "[1, 2]"),
        data("text alone", "p.json", '"hello"'),
        data("a number alone", "p.jsonl", "3"),
        data("null alone", "p.jsonl", "null"),
        data(
            "a page of HTML in place of the file", "p.jsonl", "<!doctype html><html><body>404</body></html>"
        ),
        data(
            "a pointer of Git LFS in place of the file",
            "p.jsonl",
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
            "LFS",
        ),
        data("a line that is cut off", "p.jsonl", among(GOOD)[:-30], "line 17"),
        data("a line that is not JSON", "p.jsonl", lines() * 2 + "{nope}\n" * 10, "line"),
        data("single quotes", "p.jsonl", str(GOOD)),
        data(
            "bytes of Latin-1", "p.jsonl", lines().encode() + '{"prompt": "Größe"}'.encode("latin-1"), "UTF-8"
        ),
        data("UTF-16", "p.jsonl", lines().encode("utf-16"), "UTF-16"),
        data("UTF-32", "p.jsonl", lines().encode("utf-32"), "UTF-"),
        data("zero bytes alone", "p.jsonl", sparse(1000)),
        data("a hundred megabytes of zero bytes", "p.jsonl", sparse(100_000_000)),
        data(
            "a line of 100 MB",
            "p.jsonl",
            lambda path: path.write_bytes(b'{"prompt": "' + b"x" * 100_000_000 + b'"}'),
            "line 1",
        ),
        data("a line of 20 MB of blanks", "p.jsonl", " " * 20_000_000),
        data("100,000 brackets", "p.jsonl", "[" * 100_000),
        data("100,000 braces", "p.json", '{"a": ' * 100_000),
        data(
            "a value that nests 100,000 deep",
            "p.jsonl",
            '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + ', "chosen": "a", "rejected": "b"}',
            "line 1",
        ),
        data(
            "a number of 5,000 digits",
            "p.jsonl",
            '{"prompt": ' + "9" * 5000 + ', "chosen": "a", "rejected": "b"}',
            "line 1",
        ),
        data(
            "a number that is infinite",
            "p.jsonl",
            '{"prompt": Infinity, "chosen": "a", "rejected": "b"}',
            "line 1",
        ),
        data(
            "a key that stands twice",
            "p.jsonl",
            '{"prompt": "a", "chosen": "b", "chosen": "c", "rejected": "d"}',
            "line 1",
            "'chosen'",
        ),
        data(
            "a lone surrogate",
            "p.jsonl",
            '{"prompt": "a", "chosen": "b\\ud800", "rejected": "c"}',
            "line 1",
            "surrogate",
        ),
        data(
            "a lone surrogate in a key",
            "p.jsonl",
            '{"prompt": "a", "cho\\ud800": "b", "rejected": "c"}',
            "line 1",
        ),
        data("an escape in a key", "p.jsonl", '{"\\u001b[31m": "a"}', r"\x1b"),
        data("a bidi override in a key", "p.jsonl", '{"\\u202e": "a"}', r"\u202e"),
        data("a C1 control in a key", "p.jsonl", '{"\\u009b31m": "a"}', r"\x9b"),
        data("a hundred thousand keys", "p.jsonl", json.dumps({f"k{n}": "v" for n in range(100_000)})),
        data("a key of a megabyte", "p.jsonl", json.dumps({"k" * 1_000_000: "v"})),
        data("two objects in a line", "p.jsonl", json.dumps(GOOD) * 2, "line 1"),
        data("a gzip that is cut off", "p.jsonl.gz", gz(lines())[:-12], "truncated"),
        data("a gzip that is none", "p.jsonl.gz", lines()),
        data("a gzip of a gzip", "p.jsonl.gz", gz(gz(lines()))),
        data("a gzip with rubbish after it", "p.jsonl.gz", gz(lines()) + b"rubbish"),
        data("a gzip bomb of one row", "p.jsonl.gz", ROW_BOMB, "line 1"),
        data("a gzip bomb of blanks", "p.jsonl.gz", bomb(b" ", 500)),
        data("a gzip bomb of brackets", "p.json.gz", bomb(b"[", 500)),
    ]
)

test_tables = bad_input_test(
    [
        data("a CSV of no bytes", "p.csv", ""),
        data("a CSV of a header alone", "p.csv", CSV),
        data("a CSV with a column twice", "p.csv", "prompt,chosen,chosen\na,b,c\n", "'chosen'"),
        data("a CSV with a cell too few", "p.csv", CSV + "a,b\n", "line 2"),
        data("a CSV with a cell too many", "p.csv", CSV + "a,b,c,d\n", "line 2"),
        data("a CSV with a quote that is not closed", "p.csv", CSV + '"a,b,c\n' * 3),
        data("a CSV with zero bytes", "p.csv", CSV + "a\0,b,c\n", code=0),
        data("a CSV that is not UTF-8", "p.csv", CSV.encode() + b"a,b,\xff\n", "UTF-8"),
        data("a CSV in UTF-16", "p.csv", (CSV + "a,b,c\n").encode("utf-16"), "UTF-16"),
        data("a CSV with a cell of 20 MB", "p.csv", CSV + "a,b," + "x" * 20_000_000 + "\n", "line 2"),
        data("a CSV with a cell of deep JSON", "p.csv", CSV + '"' + "[" * 50_000 + '",b,c\n'),
        data(
            "a CSV with a cell of JSON with a lone surrogate",
            "p.csv",
            CSV + '"[{""role"": ""user"", ""content"": ""\\ud800""}]",b,c\n',
        ),
        data(
            "a CSV with a hundred thousand columns", "p.csv", ",".join(f"c{n}" for n in range(100_000)) + "\n"
        ),
        data("a CSV without the columns", "p.csv", "a,b\n1,2\n"),
        data("a CSV with an escape in its header", "p.csv", "\x1b[31m,b\n1,2\n", r"\x1b"),
        data("a Parquet that is text", "p.parquet", "PAR1 no"),
        data("a Parquet of no bytes", "p.parquet", ""),
        data(
            "a Parquet that is cut off",
            "p.parquet",
            lambda path: (parquet(PAIRS)(path), path.write_bytes(path.read_bytes()[:-100])),
        ),
        data("a Parquet without rows", "p.parquet", no_rows),
        data("a Parquet of numbers", "p.parquet", parquet([{"prompt": 1, "chosen": 2, "rejected": 3}] * 4)),
        data(
            "a Parquet of nulls",
            "p.parquet",
            parquet([{"prompt": None, "chosen": None, "rejected": None}] * 4),
        ),
        data(
            "a Parquet of bytes",
            "p.parquet",
            parquet([{"prompt": b"a", "chosen": b"b", "rejected": b"c"}] * 4),
        ),
        data("a Parquet with strings that are not UTF-8", "p.parquet", bad_utf8),
        data("a Parquet whose pages are damaged", "p.parquet", damaged),
        data("a Parquet bomb", "p.parquet", wide),
        data("an Arrow file that is text", "p.arrow", "nothing of the kind"),
        data("an Arrow file of no bytes", "p.arrow", ""),
        Case(
            "a saved data set whose state is a list",
            "check data",
            ("data", "state.json"),
            files={"data": saved(PAIRS, edit={"state.json": "[]"})},
        ),
        Case(
            "a saved data set whose state is not JSON",
            "check data",
            ("data", "state.json"),
            files={"data": saved(PAIRS, edit={"state.json": "{"})},
        ),
        Case(
            "a saved data set whose splits are a list",
            "check data",
            ("data", "dataset_dict.json"),
            files={"data/dataset_dict.json": "[]"},
        ),
        Case(
            "a saved data set whose splits are a number",
            "check data",
            ("data", "dataset_dict.json"),
            files={"data/dataset_dict.json": '{"splits": 3}'},
        ),
        Case(
            "a saved data set whose splits are not there",
            "check data",
            "data",
            files={"data/dataset_dict.json": '{"splits": ["train"]}'},
        ),
        Case(
            "a saved data set whose splits lie elsewhere",
            "check data --split ../p",
            "data",
            files={"data/dataset_dict.json": '{"splits": ["../p"]}', "p": saved(PAIRS)},
        ),
        Case(
            "a saved data set whose info is damaged",
            "check data",
            "data",
            files={"data": saved(PAIRS, edit={"dataset_info.json": "{"})},
        ),
        Case(
            "a saved data set whose rows are damaged",
            "check data",
            "data",
            files={"data": saved(PAIRS, edit={"data-00000-of-00001.arrow": "nothing"})},
        ),
        Case(
            "a saved data set whose state names a file elsewhere",
            "check data",
            "data",
            files={
                "data": saved(PAIRS, edit={"state.json": '{"_data_files": [{"filename": "../../x.arrow"}]}'})
            },
        ),
    ]
)
