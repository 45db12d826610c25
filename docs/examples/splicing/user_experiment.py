"""The same question on tables of the user's own: split, train, measure."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import language_model
import numpy as np
from experiment import BETA, dpo_train, say
from measures import auroc, both_right, pair_accuracy
from scipy.stats import rankdata
from sites import DONOR, Sites, bits
from user_table import read_tables

from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from user_table import Measured

    Scorer = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
    Table = dict[str, dict[str, float]]
    """Condition to sequence to a number."""

COLUMNS = ("pair accuracy", "both tags right", "detection AUROC", "switch AUROC")
HELD_OUT = 0.2
"""Share of the sequences that is held out, with all their conditions."""
MARGIN = 0.5
"""Least difference of a pair, in standard deviations of its condition, unless one is given in the table's unit."""
PAIRS = 6_000
EVENTS = 4_000
"""Couples of held-out sites that are looked at in each condition."""
TOP = 0.1
"""A site counts as used when its value is among the highest tenth of its condition."""


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
        margin: Least difference of a pair; half a standard deviation of its condition's values when None.
        engine: Of `dpo train`.
        small: Read fewer sites before training.

    Returns:
        For each scorer, its measures.

    Raises:
        DataError: If a table is wrong, or a condition is in no pair.
    """
    rows = read_tables(files)
    if margin is None:
        rows, margin = in_deviations(rows), MARGIN
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


def in_deviations(rows: list[Measured]) -> list[Measured]:
    """The same rows, each value in standard deviations of its condition: tables may differ in their units."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.condition, []).append(row.value)
    deviation = {condition: float(np.std(of)) or 1.0 for condition, of in values.items()}
    return [replace(row, value=row.value / deviation[row.condition]) for row in rows]


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

    from dpo_cli.config import DataConfig
    from dpo_cli.data.assay import read_assay
    from dpo_cli.data.sources.locate import locate

    table = Dataset.from_list(
        [{"sequence": one.sequence, "value": one.value, "group": one.condition} for one in train]
    )
    how = DataConfig(format="assay", assay_margin=margin, prompt_column="group")
    made = read_assay(how, locate(how, table))
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
