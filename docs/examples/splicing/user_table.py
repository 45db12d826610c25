"""The same question on a table of your own: read it, refuse what cannot be right, split, train, measure."""

from __future__ import annotations

import csv
import gzip
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from experiment import say

from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

COLUMNS = ("pair accuracy", "both tags right", "detection AUROC", "switch AUROC")
ALPHABET = "ACGT"
HELD_OUT = 0.2
"""Share of the sequences that is held out, with all their conditions."""
PAIRS = 6_000
MISSING = {"", "NA", "NaN", "nan"}
TOP = 0.1
"""A site counts as used when its value is among the highest tenth of its condition."""


@dataclass(frozen=True)
class Measured:
    """One value of one site in one condition, and where it stands."""

    sequence: str
    condition: str
    value: float
    place: str


def read_tables(files: list[Path]) -> list[Measured]:
    """Read tables in any of the three layouts and check them against each other.

    Raises:
        DataError: With row and column, for a letter outside of the alphabet, sites of unequal length, a value that
            is no number, or one condition only in a table that has a column for it.
    """
    rows: list[Measured] = []
    for file in files:
        rows += read_table(file)
    first = rows[0]
    for row in rows:
        if len(row.sequence) != len(first.sequence):
            raise DataError(
                f"{row.place}: {len(row.sequence)} letters, and {first.place} has {len(first.sequence)}.",
                hint="All sites must have the same length, the exon-intron border in the same place.",
            )
    return rows


def read_table(file: Path) -> list[Measured]:
    """Read one table; its layout is found from its columns.

    - `ss,elp1_dmso,elp1_rg,elp1_nvs`: RNA, a slash at the border, PSI in per cent in three conditions.
    - `x` and `y` among others (mavenn's MPSA): RNA or DNA, log10 PSI in one condition, named after the file.
    - `sequence,condition,value`.

    Raises:
        DataError: As `read_tables`.
    """
    with _open(file) as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or []
        if "ss" in columns and any(name.startswith("elp1_") for name in columns):
            conditions = [name for name in columns if name.startswith("elp1_")]
            rows = list(_wide(file, reader, conditions))
        elif {"x", "y"} <= set(columns):
            name = file.name.split(".")[0].replace("_data", "").upper()
            rows = [_measured(file, number, row, "x", name, "y") for number, row in _numbered(reader)]
        elif {"sequence", "condition", "value"} <= set(columns):
            rows = [
                _measured(file, number, row, "sequence", _condition(file, number, row), "value")
                for number, row in _numbered(reader)
            ]
            _need_two_conditions(file, rows)
        else:
            raise DataError(
                f"{file} row 1: the columns {', '.join(columns) or '(none)'} are no layout that is known.",
                hint="Known are sequence,condition,value; ss,elp1_...; and set,tot_ct,ex_ct,y,x.",
            )
    if not rows:
        raise DataError(f"{file} row 2: there are no rows below the header.")
    return rows


def _open(file: Path) -> TextIO:
    if not file.is_file():
        raise DataError(f"{file}: there is no such file.")
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")


def _numbered(reader: csv.DictReader) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their number as a spreadsheet counts: the header is row 1."""
    yield from enumerate(reader, start=2)


def _wide(file: Path, reader: csv.DictReader, conditions: list[str]) -> Iterator[Measured]:
    missing = 0
    for number, row in _numbered(reader):
        for name in conditions:
            if (row[name] or "").strip() in MISSING:
                missing += 1
                continue
            yield _measured(file, number, row, "ss", name.removeprefix("elp1_").upper(), name)
    if missing:
        say(f"{file}: {missing:,} values are missing and left out")


def _condition(file: Path, number: int, row: dict[str, str]) -> str:
    name = (row["condition"] or "").strip()
    if not name or any(mark in name for mark in "<> \t"):
        raise DataError(
            f"{file} row {number}, column condition: {name!r} is no name (letters, digits, no spaces)."
        )
    return name


def _measured(
    file: Path, number: int, row: dict[str, str], sequence: str, condition: str, value: str
) -> Measured:
    place = f"{file} row {number}, column {sequence}"
    letters = (row[sequence] or "").strip().upper().replace("U", "T")
    if letters.count("/") == 1 and letters.index("/") != 3:  # noqa: PLR2004 - a donor has three letters of exon
        raise DataError(
            f"{place}: the border is after letter {letters.index('/')}, in a donor it is after letter 3."
        )
    letters = letters.replace("/", "", 1)
    if not letters:
        raise DataError(f"{place}: there is no sequence.")
    strange = next((at for at, letter in enumerate(letters) if letter not in ALPHABET), None)
    if strange is not None:
        raise DataError(f"{place}: letter {strange + 1} is {letters[strange]!r}; known are A, C, G, T and U.")
    return Measured(letters, f"<{condition}>", _number(file, number, row, value), place)


def _number(file: Path, number: int, row: dict[str, str], column: str) -> float:
    text = row[column]
    try:
        found = float(text)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{file} row {number}, column {column}: {text!r} is not a number.")
    return found


def _need_two_conditions(file: Path, rows: list[Measured]) -> None:
    conditions = {row.condition for row in rows}
    if len(conditions) == 1:
        raise DataError(
            f"{file} rows 2 to {len(rows) + 1}, column condition: all are {conditions.pop()[1:-1]!r}.",
            hint="The question is which site is used in which condition: there must be two at least.",
        )


@dataclass(frozen=True)
class Split:
    """The table, its sequences shared out: no sequence is on both sides."""

    train: list[Measured]
    heldout: list[Measured]


def split_by_sequence(rows: list[Measured], seed: int) -> Split:
    """Hold out a fifth of the sequences, drawn with the seed."""
    names = sorted({row.sequence for row in rows})
    drawn = set(
        np.random.default_rng(seed).permutation(names)[: max(1, round(HELD_OUT * len(names)))].tolist()
    )
    return Split(
        [row for row in rows if row.sequence not in drawn], [row for row in rows if row.sequence in drawn]
    )


def run_seed(
    seed: int, folder: Path, files: list[Path], *, margin: float | None, engine: str, small: bool
) -> dict[str, dict[str, float]]:
    """Everything for one seed on the user's tables.

    Args:
        seed: Of the split, of the base model and of its data.
        folder: Where data, models and logs go.
        files: The tables.
        margin: Least difference of a pair; half a standard deviation of all values when None.
        engine: Of `dpo train`.
        small: Read fewer sites before training.

    Returns:
        For each scorer, its measures.

    Raises:
        DataError: If a table is wrong, or a condition is in no pair.
    """
    rows = read_tables(files)
    margin = 0.5 * float(np.std([row.value for row in rows])) if margin is None else margin
    split = split_by_sequence(rows, seed)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = training_pairs(split.train, rows, margin, seed)
    language_model.write_jsonl(folder / "pairs.jsonl", pairs)
    tags = sorted({row.condition for row in rows})
    base = folder / "base"
    length = len(rows[0].sequence)
    say(
        f"seed {seed}: {len(rows):,} values, {length} letters, conditions {' '.join(tags)}, {len(pairs):,} pairs {margin:.3g} or more apart"
    )
    language_model.pretrain(
        base, pretraining_sites(split, tags, seed, 4_000 if small else 20_000), tags, seed=seed
    )
    runs = {"dpo": ["--engine", engine], "sft": ["--engine", engine, "--loss-type", "sft"]}
    dpo, sft = dpo_train(folder, base, runs)
    scorers: dict[str, Scorer] = {}
    if length >= DONOR:
        scorers["PWM log-odds"] = lambda texts: [bits(site) for _, site in texts]
    models = {"base": base, "sft": sft, "dpo": dpo}
    log_p = {
        name: lambda texts, f=path: np.array(language_model.log_probs(f, texts))
        for name, path in models.items()
    }
    scorers |= {
        "base, log p": log_p["base"],
        "SFT on chosen, log p": log_p["sft"],
        "SFT, log-ratio to base": lambda texts: log_p["sft"](texts) - log_p["base"](texts),
        "DPO, log p": log_p["dpo"],
        "DPO, implicit reward": lambda texts: BETA * (log_p["dpo"](texts) - log_p["base"](texts)),
    }
    return {name: measure(split.heldout, scorer, margin) for name, scorer in scorers.items()}


Scorer = "Callable[[Sequence[tuple[str, str]]], Sequence[float]]"


def pretraining_sites(split: Split, tags: list[str], seed: int, count: int) -> list[tuple[str, str]]:
    """What the base model reads: donors drawn from the matrix, cut to the table's length, under random tags.

    Sequences that are too long for a donor with its intron, or too short, are read from the training side itself.
    """
    sites, length = Sites(seed), len(split.train[0].sequence)
    if length == DONOR:
        texts = [sites.nine() for _ in range(count)]
    elif length == len(sites.donor()):
        texts = [sites.any_donor() for _ in range(count)]
    else:
        own = sorted({row.sequence for row in split.train})
        texts = [own[at] for at in sites.random.integers(len(own), size=count)]
    return [(tags[sites.random.integers(len(tags))], text) for text in texts]


def training_pairs(
    train: list[Measured], rows: list[Measured], margin: float, seed: int
) -> list[dict[str, str]]:
    """Pairs within a condition, at least a margin apart: the same that `dpo train --format assay` makes.

    Raises:
        DataError: If a condition is in no pair.
    """
    from datasets import Dataset

    from dpo_cli.data.assay import read_assay

    table = Dataset.from_list(
        [{"sequence": one.sequence, "value": one.value, "group": one.condition} for one in train]
    )
    made = read_assay(table, margin=margin, options={"prompt_column": "group"})
    pairs = [dict(pair) for pair in made.train]
    seen = {pair["prompt"] for pair in pairs}
    lost = next((row for row in rows if row.condition not in seen), None)
    if lost is not None:
        raise DataError(
            f"{lost.place.rpartition(', column ')[0]}, column condition: {lost.condition[1:-1]!r} is in no pair:"
            f" no two of its training values are {margin:.3g} apart.",
            hint="Lower --margin, or leave the condition out.",
        )
    order = np.random.default_rng(seed).permutation(len(pairs))[:PAIRS]
    return [pairs[at] for at in order]


def measure(heldout: list[Measured], scorer: Scorer, margin: float) -> dict[str, float]:
    """The table's columns, on held-out sequences."""
    values: dict[str, dict[str, float]] = {}
    for row in heldout:
        values.setdefault(row.condition, {})[row.sequence] = row.value
    scored = {
        tag: dict(zip(of, scorer([(tag, site) for site in of]), strict=True)) for tag, of in values.items()
    }
    found = {"pair accuracy": _pairs_right(values, scored, margin)}
    switches = [(one, other) for one, other in itertools.combinations(sorted(values), 2)]
    flips = [flip for pair in switches if (flip := _flips(values, scored, pair, margin)) is not None]
    if flips:
        found["both tags right"] = sum(flips) / len(flips)
    found["detection AUROC"] = float(np.mean([_detection(values[tag], scored[tag]) for tag in values]))
    switch = [one for pair in switches if (one := _switch(values, scored, pair)) is not None]
    if switch:
        found["switch AUROC"] = float(np.mean(switch))
    return found


Table = "dict[str, dict[str, float]]"
EVENTS = 4_000
"""Pairs of held-out sites that are looked at in each condition."""


def _pairs_right(values: Table, scored: Table, margin: float) -> float:
    better, worse = [], []
    for tag, of in values.items():
        for one, other in _couples(sorted(of)):
            if abs(of[one] - of[other]) >= margin and of[one] != of[other]:
                first, second = (one, other) if of[one] > of[other] else (other, one)
                better.append(scored[tag][first])
                worse.append(scored[tag][second])
    return pair_accuracy(better, worse) if better else math.nan


def _couples(names: list[str]) -> list[tuple[str, str]]:
    """Couples drawn from all there are; the same for every scorer."""
    drawn = np.random.default_rng(0).integers(len(names), size=(EVENTS, 2))
    return [(names[one], names[other]) for one, other in drawn if one != other]


def _flips(values: Table, scored: Table, tags: tuple[str, str], margin: float) -> float | None:
    """Share of couples, better and worse swapped between two conditions, that are ranked rightly in both."""
    both = sorted(values[tags[0]].keys() & values[tags[1]].keys())
    better, worse = [], []
    for one, other in _couples(both) if len(both) > 1 else []:
        gaps = [values[tag][one] - values[tag][other] for tag in tags]
        if min(map(abs, gaps)) >= margin and gaps[0] * gaps[1] < 0:
            for tag, gap in zip(tags, gaps, strict=True):
                first, second = (one, other) if gap > 0 else (other, one)
                better.append(scored[tag][first])
                worse.append(scored[tag][second])
    return both_right(better, worse) if better else None


def _top(values: dict[str, float]) -> set[str]:
    ordered = sorted(values, key=values.__getitem__)
    return set(ordered[-max(1, round(TOP * len(ordered))) :])


def _detection(values: dict[str, float], scored: dict[str, float]) -> float:
    """The highest tenth of a condition against the rest."""
    top = _top(values)
    return auroc([scored[site] for site in top], [scored[site] for site in values if site not in top])


def _switch(values: Table, scored: Table, tags: tuple[str, str]) -> float | None:
    """Sites that gain most in rank from one condition to the other, against those that lose most."""
    both = sorted(values[tags[0]].keys() & values[tags[1]].keys())
    if len(both) < 2 / TOP:
        return None
    ranks = [rankdata([values[tag][site] for site in both]) for tag in tags]
    order = np.argsort(ranks[0] - ranks[1], kind="stable")
    count = round(TOP * len(both))
    gain = [scored[tags[0]][site] - scored[tags[1]][site] for site in both]
    return auroc([gain[at] for at in order[-count:]], [gain[at] for at in order[:count]])
