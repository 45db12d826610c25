"""Pairs from a table of assay values: held against all couples counted one by one."""

import csv
import itertools
import json
import random

import pytest
from tiny_models import make_tokenizer

from dpo_cli.config import DataConfig, Truncation
from dpo_cli.data.assay import read_assay
from dpo_cli.data.load import load_pairs
from dpo_cli.data.sources.locate import locate
from dpo_cli.errors import DataError


def write(path, rows, columns=("sequence", "value", "group")):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return str(path)


def pairs_of(path, **options):
    data = DataConfig(dataset=path, format="assay", **options)
    return read_assay(data, locate(data))


def load(path, **options):
    return load_pairs(DataConfig(dataset=path, format="assay", **options))


def table(seed=0, groups=3, size=20):
    drawn = random.Random(seed)  # noqa: S311 - rows of a made-up table
    rows = []
    for group in range(groups):
        for _ in range(size):
            sequence = "".join(drawn.choices("ACGT", k=8))
            rows.append((sequence, round(drawn.gauss(10 * group, 1), 1), f"plate{group}"))
    return rows


@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_all_pairs_are_those_of_a_double_loop(tmp_path, margin):
    rows = table()
    expected = {
        (a[0], b[0])
        for a, b in itertools.permutations(rows, 2)
        if a[2] == b[2] and a[1] > b[1] and a[1] - b[1] >= margin
    }
    made = pairs_of(write(tmp_path / "t.csv", rows), assay_margin=margin, assay_partners=10**6)
    found = [(pair["chosen"], pair["rejected"]) for pair in made.train]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_at_most_so_many_partners_and_the_same_every_time(tmp_path):
    path = write(tmp_path / "t.csv", table())
    made = [list(pairs_of(path, assay_partners=3).train) for _ in range(2)]
    assert made[0] == made[1]
    chosen = [pair["chosen"] for pair in made[0]]
    assert max(chosen.count(one) for one in set(chosen)) == 3


def test_every_row_is_accounted_for(tmp_path):
    rows = [
        ("AAAA", "1.0", "p"),
        ("CCCC", "1.0", "p"),  # a tie with the first: both have a partner in the third
        ("GGGG", "3.0", "p"),
        ("GGGG", "5.0", "p"),  # a replicate: the mean is 4
        ("TTTT", "9.0", "alone"),  # nobody to be compared with
        ("ACGT", "n/a", "p"),
        ("", "2.0", "p"),
    ]
    made = pairs_of(write(tmp_path / "t.csv", rows), allow_drops=True)
    count = made.accounting.to_json()
    assert [(pair["chosen"], pair["rejected"]) for pair in made.train] == [("GGGG", "AAAA"), ("GGGG", "CCCC")]
    assert count["rows"] == {"read": 7, "kept": 5, "dropped": {"unreadable row": 2}}
    assert count["dropped_rows"]["unreadable row"]["rows"] == [6, 7]
    assert count["in_no_pair"] == [5]
    assert count["replicates"] == 1
    assert count["replicate_sd"] == pytest.approx(2**0.5)
    assert count["groups"] == {"p": 4, "alone": 1}


def test_a_value_that_is_no_number_names_row_and_column(tmp_path):
    path = write(tmp_path / "t.csv", [("AAAA", "1", "p"), ("CCCC", "high", "p")])
    with pytest.raises(DataError, match=r"line 3.*value is 'high', not a number"):
        load(path)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "", "1,5"])
def test_no_number_is_no_number(tmp_path, value):
    path = write(tmp_path / "t.csv", [("AAAA", "1", "p"), ("CCCC", value, "p")])
    with pytest.raises(DataError, match="not a number"):
        load(path)


def test_no_two_values_apart(tmp_path):
    path = write(tmp_path / "t.csv", [("AAAA", "1", "p"), ("CCCC", "1.2", "p"), ("GGGG", "9", "q")])
    with pytest.raises(DataError, match=r"no two values in a group differ by 0.5 or more") as raised:
        load(path, assay_margin=0.5)
    assert "--assay-margin" in raised.value.hint


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    path = write(tmp_path / "t.csv", [("AAAA", "1")], columns=("seq", "value"))
    with pytest.raises(DataError, match=r"no column 'sequence'\. The columns are: seq, value"):
        load(path)


def test_a_split_tears_no_sequence_and_no_cluster_apart(tmp_path):
    drawn = random.Random(1)  # noqa: S311 - rows of a made-up table
    rows = [
        ("".join(drawn.choices("ACGT", k=9)), drawn.random(), group, f"c{number % 12}")
        for number in range(240)
        for group in ("one", "two")
    ]
    path = write(tmp_path / "t.csv", rows, columns=("sequence", "value", "group", "cluster"))
    made = pairs_of(path, eval_fraction=0.25)
    cluster = {row[0]: row[3] for row in rows}
    sides = [
        {cluster[pair[side]] for pair in part for side in ("chosen", "rejected")}
        for part in (made.train, made.eval)
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_load_pairs_reads_it_and_says_where_rows_went(tmp_path):
    path = write(tmp_path / "t.csv", table())
    data = DataConfig(
        dataset=path, format="assay", assay_margin=0.5, prompt_column="group", eval_fraction=0.3
    )
    loaded = load_pairs(data, make_tokenizer(), Truncation(64))
    assert loaded.format == "assay"
    assert {pair["prompt"] for pair in loaded.train} == {"plate0", "plate1", "plate2"}
    document = json.loads(json.dumps(loaded.to_json()))
    assert document["dataset"] == path
    assert document["assay"][0]["rows"]["read"] == 60
    assert document["assay"][0]["pairs"] == loaded.train_pairs + loaded.eval_pairs
    assert loaded.eval_pairs > 0


def test_a_table_of_its_own_is_held_out(tmp_path):
    train, held = write(tmp_path / "a.csv", table(0)), write(tmp_path / "b.csv", table(1))
    loaded = load(train, eval_dataset=held)
    sequences = {row[0] for row in table(1)}
    assert all(pair["chosen"] in sequences and pair["rejected"] in sequences for pair in loaded.eval)
    assert len(loaded.to_json()["assay"]) == 2


def test_a_held_out_table_has_a_split_of_its_own(tmp_path):
    for folder, split in (("a", "test"), ("b", "train")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / f"{split}.csv", table(len(split)))
    loaded = load(str(tmp_path / "a"), split="test", eval_dataset=str(tmp_path / "b"))
    sequences = {row[0] for row in table(len("train"))}
    assert {pair["chosen"] for pair in loaded.eval} <= sequences
