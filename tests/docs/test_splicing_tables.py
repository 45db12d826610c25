"""Tables of a user's own: the three layouts, and what is refused, always by row and column."""

import csv
import gzip
import itertools
import math

import pytest
import run
import user_experiment
import user_table
from measures import auroc, both_right, pair_accuracy
from sites import LETTERS, Sites, bits, read_matrix, strength

from dpo_cli.errors import DataError

PLAIN = "sequence,condition,value\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def refused(path, text, message):
    with pytest.raises(DataError, match=message) as raised:
        user_table.read_tables([write(path, text)])
    assert raised.value.exit_code == 2


def test_elp1_layout(tmp_path):
    text = "ss,elp1_dmso,elp1_rg,elp1_nvs\nCAG/GUAAGU,99.5,104.2,98\nACA/GCAAAA,0.1,,NA\n"
    rows = user_table.read_tables([write(tmp_path / "mpsa_data_elp1.csv", text)])
    assert [(row.sequence, row.condition, row.value) for row in rows] == [
        ("CAGGTAAGT", "<DMSO>", 99.5),
        ("CAGGTAAGT", "<RG>", 104.2),
        ("CAGGTAAGT", "<NVS>", 98.0),
        ("ACAGCAAAA", "<DMSO>", 0.1),
    ]


def test_mavenn_layout_and_gzip(tmp_path):
    path = tmp_path / "mpsa_data.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("set,tot_ct,ex_ct,y,x\ntraining,28,2,0.023,GGAGUGAUG\ntest,315,7,-0.074,AGUGUGCAA\n")
    rows = user_table.read_tables([path])
    assert [(row.sequence, row.condition, row.value) for row in rows] == [
        ("GGAGTGATG", "<MPSA>", 0.023),
        ("AGTGTGCAA", "<MPSA>", -0.074),
    ]


def test_plain_layout_with_a_byte_order_mark(tmp_path):
    rows = user_table.read_tables([write(tmp_path / "t.csv", "\ufeff" + PLAIN + "cag,a,1\nCAU,b,-2e3\n")])
    assert [(row.sequence, row.condition, row.value) for row in rows] == [
        ("CAG", "<a>", 1.0),
        ("CAT", "<b>", -2000.0),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("CAG,a,1\nCAN,b,2\n", r"row 3, column sequence: letter 3 is 'N'"),
        ("CAG,a,1\nCAGG,b,2\n", r"row 3, column sequence: 4 letters, and .* row 2, column sequence has 3"),
        ("CAG,a,1\nCAC,b,high\n", r"row 3, column value: 'high' is not a number"),
        ("CAG,a,1\nCAC,b,nan\n", r"row 3, column value: 'nan' is not a number"),
        ("CAG,a,1\nCAC,b,\n", r"row 3, column value: '' is not a number"),
        ("CAG,a,1\nCAC,b\n", r"row 3, column value: None is not a number"),
        ("CAG,a,1\n,b,2\n", r"row 3, column sequence: no sequence"),
        ("CAG,a,1\nCAC,,2\n", r"row 3, column condition: '' is no name"),
        ("CAG,a,1\nCAC,a,2\n", r"rows 2 to 3, column condition: all are 'a'"),
        ("", r"row 2: no rows"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, rows, message):
    refused(tmp_path / "t.csv", PLAIN + rows, message)


def test_a_border_in_the_wrong_place(tmp_path):
    text = "ss,elp1_dmso\nCAG/GUAAGU,1\nCAGG/UAAGU,1\n"
    refused(tmp_path / "t.csv", text, r"row 3, column ss: the border is after letter 4")


def test_an_unknown_layout(tmp_path):
    refused(tmp_path / "t.csv", "seq,psi\nCAG,1\n", r"row 1: the columns seq, psi are no layout")


@pytest.fixture
def usual_field_limit():
    """Python's own: it is one for the whole process, and reading data sets raises it."""
    before = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"CAG,a,1\nC\xe9G,b,2\n", r"t.csv line 3: is not UTF-8 text"),
        (b"CAG,a,1\nCAC,b\0,2\n", r"t.csv line 3: has a NUL byte"),
        (b"CAG,a,1\n" + b"A" * 200_000 + b",b,2\n", r"t.csv line 3: field larger than field limit"),
        (b'CAG,a,1\n"CAC,b,2\n' + b"CAG,a,1\n" * 20_000, r"t.csv line \d+: field larger than field limit"),
    ],
    ids=["not UTF-8", "NUL", "a long field", "an open quotation mark"],
)
def test_what_is_no_table_of_text_ends_in_one_message(tmp_path, data, message, capsys, usual_field_limit):
    path = tmp_path / "t.csv"
    path.write_bytes(PLAIN.encode() + data)
    with pytest.raises(DataError, match=message):
        user_table.read_tables([path])
    assert run.main(["--sites", str(path), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert str(path) in told.err


@pytest.mark.parametrize(
    "data", [b"no gzip", gzip.compress(b"CAG,a,1\n" * 50)[:-20]], ids=["none", "cut off"]
)
def test_a_damaged_gzip_is_named(tmp_path, data):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"t.csv.gz: cannot be read"):
        user_table.read_tables([path])


def test_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        user_table.read_tables([tmp_path / ("x" * 300)])


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        user_table.read_tables([tmp_path / "none.csv"])


def test_a_condition_that_is_in_no_pair(tmp_path):
    sites = Sites(0)
    rows = [f"{sites.nine()},{tag},{value}" for value in range(30) for tag in ("a",)] + [
        f"{sites.nine()},flat,5"
    ] * 1
    read = user_table.read_tables([write(tmp_path / "t.csv", PLAIN + "\n".join(rows) + "\n")])
    with pytest.raises(DataError, match=r"row 32, column condition: 'flat' is in no pair"):
        user_experiment.training_pairs(read, read, 1.0, seed=0)


def test_tables_in_different_units_both_give_pairs():
    sites = Sites(0)
    rows = [
        user_table.Measured(sites.nine(), tag, value * unit, "")
        for value in range(30)
        for tag, unit in (("<percent>", 3.0), ("<log10>", 0.02))
    ]
    scaled = user_experiment.in_deviations(rows)
    for tag, unit in (("<percent>", 3.0), ("<log10>", 0.02)):
        deviation = unit * math.sqrt((30**2 - 1) / 12)  # of the numbers 0 to 29
        expected = [row.value / deviation for row in rows if row.condition == tag]
        assert [row.value for row in scaled if row.condition == tag] == pytest.approx(expected)
    pairs = user_experiment.training_pairs(scaled, scaled, user_experiment.MARGIN, seed=0)
    assert {pair["prompt"] for pair in pairs} == {"<percent>", "<log10>"}


def test_a_split_tears_no_sequence_apart(tmp_path):
    rows = [
        user_table.Measured(f"{'ACGT'[n % 4]}{n}", tag, 0.0, "") for n in range(50) for tag in ("<a>", "<b>")
    ]
    split = user_experiment.split_by_sequence(rows, seed=3)
    names = [{row.sequence for row in side} for side in (split.train, split.heldout)]
    assert not names[0] & names[1]
    assert len(names[1]) == 10
    assert len(split.train) + len(split.heldout) == 100


def test_measures_of_a_perfect_a_blind_and_a_wrong_scorer():
    truth = {
        ("s" + str(n), tag): float(n if tag == "<a>" else 40 - n) for n in range(40) for tag in ("<a>", "<b>")
    }
    rows = [user_table.Measured(site, tag, value, "") for (site, tag), value in truth.items()]

    def measured(score):
        return user_experiment.measure(rows, lambda texts: [score(tag, site) for tag, site in texts], 1.0)

    assert set(measured(lambda tag, site: truth[site, tag]).values()) == {1.0}
    blind = measured(lambda _tag, site: float(site[1:]))
    assert blind["both tags right"] == 0
    assert blind["switch AUROC"] == 0.5
    assert blind["pair accuracy"] == pytest.approx(0.5, abs=0.02)
    assert measured(lambda tag, site: -truth[site, tag])["detection AUROC"] == 0


def test_auroc_is_the_share_of_couples():
    positives, negatives = [3.0, 1.0, 2.0], [2.0, 0.0]
    expected = sum((p > n) + 0.5 * (p == n) for p, n in itertools.product(positives, negatives)) / 6
    assert auroc(positives, negatives) == pytest.approx(expected)


def test_pair_accuracy_and_both_right():
    assert pair_accuracy([1, 2, 3, 0], [0, 2, 4, -1]) == pytest.approx(2.5 / 4)
    assert both_right([1, 1, 1, 0], [0, 0, 0, 1]) == 0.5


def test_drawn_sites_follow_the_matrix():
    sites, matrix = Sites(7), read_matrix("donor")
    drawn = [sites.nine() for _ in range(4000)]
    for position in range(9):
        for index, letter in enumerate(LETTERS):
            share = sum(site[position] == letter for site in drawn) / len(drawn)
            spread = math.sqrt(matrix[position, index] * (1 - matrix[position, index]) / len(drawn))
            assert abs(share - matrix[position, index]) < 5 * spread + 1e-3


def test_the_truth_is_the_formula_of_the_page():
    site = "CAGGTAAGT" + "TGCATGAAAAAA"
    matrix = read_matrix("donor")
    expected = sum(math.log2(matrix[at, LETTERS.index(letter)] / 0.25) for at, letter in enumerate(site[:9]))
    assert bits(site) == pytest.approx(expected)
    assert strength(site, "<BRN>") == pytest.approx(0.8 * expected + 4)
    assert strength(site, "<LIV>") == pytest.approx(0.8 * expected)
    assert strength("CAGGTAAGT" + "CTCTCTAAAAAA", "<LIV>") == pytest.approx(0.8 * expected - 4)


def test_acceptor_matrix_is_complete():
    matrix = read_matrix("acceptor")
    assert matrix.shape == (22, 4)
    assert matrix.sum(axis=1) == pytest.approx(1)


def test_no_site_is_drawn_twice():
    from experiment import SMALL, draw

    drawn = draw(1, SMALL)
    held = (
        [site for event in drawn.events for site in (event.first, event.second)] + drawn.donors + drawn.decoys
    )
    seen = {text for _, text in drawn.pretraining} | {
        row[side] for row in drawn.pairs for side in ("chosen", "rejected")
    }
    assert len(set(held)) == len(held)
    assert not seen & set(held)
    assert len(drawn.pairs) == 1600
