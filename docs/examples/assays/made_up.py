r"""Made-up assays, so that the truth is known: a table of values, a base model, and how well a model ranks the truth.

    python docs/examples/assays/made_up.py make protein --out build/protein
    dpo train --config docs/examples/assays/assay.toml --model build/protein/base \
        --dataset build/protein/assay.csv --eval-dataset build/protein/heldout.csv --output-dir build/protein/dpo
    python docs/examples/assays/made_up.py score protein --out build/protein

An assay measures variants in plates. Each plate shifts all its values; every measurement has noise; a tenth of the
variants is measured twice. None of the numbers below is measured: they are rules that give a landscape some shape.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

sys.path.append(str(Path(__file__).parents[1] / "splicing"))
import language_model

if TYPE_CHECKING:
    from collections.abc import Callable

PLATES, PLATE_SD, NOISE_SD = 8, 3.0, 0.5
VARIANTS, HELD_OUT, PRETRAINING = 800, 200, 8_000

# Kyte and Doolittle's hydropathy of the twenty amino acids (J. Mol. Biol. 157, 105, 1982).
HYDROPATHY = {
    "A": 1.8, "R": -4.5, "N": -3.5, "D": -3.5, "C": 2.5, "Q": -3.5, "E": -3.5, "G": -0.4, "H": -3.2, "I": 4.5,
    "L": 3.8, "K": -3.9, "M": 1.9, "F": 2.8, "P": -1.6, "S": -0.8, "T": -0.7, "W": -0.9, "Y": -1.3, "V": 4.2,
}  # fmt: skip
PARENT = "MKELLAEIKKLVEEAL"
BURIED = (3, 4, 7, 10, 11, 14, 15)
BASE_PAIRS = {"GC": 3.0, "CG": 3.0, "AU": 2.0, "UA": 2.0, "GU": 1.0, "UG": 1.0}
STEM = 5
FITTING = 0.5


@dataclass(frozen=True)
class Assay:
    """One made-up assay.

    Attributes:
        tag: Token that stands for it in the prompt.
        letters: Alphabet of its sequences.
        draw: Draws a sequence.
        truth: What would be measured without plates and noise.
        plain: Name of a score that needs no training, and the score: what a model must beat.
    """

    tag: str
    letters: str
    draw: Callable[[np.random.Generator], str]
    truth: Callable[[str], float]
    plain: tuple[str, Callable[[str], float]]


def draw_protein(random: np.random.Generator) -> str:
    """The parent with one to five substitutions."""
    letters = list(PARENT)
    for place in random.choice(len(PARENT), size=random.integers(1, 6), replace=False):
        letters[place] = list(HYDROPATHY)[random.integers(len(HYDROPATHY))]
    return "".join(letters)


def stability(sequence: str) -> float:
    """Greasy residues inside, polar ones outside, no proline in a helix, and salt bridges one turn apart."""
    inside = sum(HYDROPATHY[sequence[place]] for place in BURIED)
    outside = sum(HYDROPATHY[letter] for place, letter in enumerate(sequence) if place not in BURIED)
    bridges = sum({one, other} == {"E", "K"} for one, other in zip(sequence, sequence[4:], strict=False))
    return 0.2 * inside - 0.05 * outside - 2.0 * sequence[1:].count("P") + 0.5 * bridges


def draw_rna(random: np.random.Generator) -> str:
    """Two arms and a loop of four; each base of the second arm fits the first with the chance `FITTING`."""
    first = [str(letter) for letter in random.choice(list("ACGU"), size=STEM)]
    partner = {"A": "U", "C": "G", "G": "C", "U": "A"}
    second = [
        partner[one] if random.random() < FITTING else str(random.choice(list("ACGU")))
        for one in reversed(first)
    ]
    return "".join([*first, *map(str, random.choice(list("ACGU"), size=4)), *second])


def pairing(sequence: str) -> float:
    """Sum over the stem: 3 for GC, 2 for AU, 1 for GU, -1 for a mismatch."""
    return sum(
        BASE_PAIRS.get(one + other, -1.0)
        for one, other in zip(sequence[:STEM], sequence[: -STEM - 1 : -1], strict=True)
    )


def greasiness(sequence: str) -> float:
    """Sum of the hydropathies."""
    return sum(HYDROPATHY[letter] for letter in sequence)


def strong_bases(sequence: str) -> float:
    """G and C in the two arms."""
    return sum(letter in "GC" for letter in sequence[:STEM] + sequence[-STEM:])


ASSAYS = {
    "protein": Assay("<STABLE>", "".join(HYDROPATHY), draw_protein, stability, ("hydropathy", greasiness)),
    "rna": Assay("<HAIRPIN>", "ACGU", draw_rna, pairing, ("G and C in the arms", strong_bases)),
}


def make(assay: Assay, folder: Path, seed: int, *, pool: bool) -> None:
    """Write `assay.csv` and `heldout.csv`, and train `base` on sequences of the same family, whatever their value.

    Args:
        assay: Which one.
        folder: Where to.
        seed: Of everything.
        pool: Leave the plate out of the table, as if values of all plates could be compared.
    """
    random = np.random.default_rng(seed)
    drawn: dict[str, None] = {}
    while len(drawn) < VARIANTS + HELD_OUT + PRETRAINING:
        drawn[assay.draw(random)] = None
    names = list(drawn)
    measured, held, rest = (
        names[:VARIANTS],
        names[VARIANTS : VARIANTS + HELD_OUT],
        names[VARIANTS + HELD_OUT :],
    )
    folder.mkdir(parents=True, exist_ok=True)
    shifts = random.normal(0, PLATE_SD, PLATES)
    rows = []
    for sequence in [*measured, *measured[: VARIANTS // 10]]:
        plate = len(rows) % PLATES
        value = assay.truth(sequence) + shifts[plate] + random.normal(0, NOISE_SD)
        rows.append((assay.tag, sequence, f"{value:.3f}", "" if pool else f"plate{plate}"))
    write_table(folder / "assay.csv", rows)
    # Held-out values are the truth: what is asked is whether the model found it behind plates and noise.
    write_table(
        folder / "heldout.csv", [(assay.tag, one, f"{assay.truth(one):.3f}", "truth") for one in held]
    )
    texts = [(assay.tag, sequence) for sequence in rest]
    language_model.pretrain(folder / "base", texts, (assay.tag,), seed=seed, epochs=3, letters=assay.letters)


def write_table(file: Path, rows: list[tuple[str, str, str, str]]) -> None:
    """Write a table in the layout of `dpo train --format assay`."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("prompt", "sequence", "value", "group"))
        writer.writerows(rows)


def score(assay: Assay, folder: Path, model: str) -> dict[str, float]:
    """Spearman's rank correlation with the truth on held-out sequences, for four scores."""
    with (folder / "heldout.csv").open(encoding="utf-8") as stream:
        texts = [(assay.tag, row["sequence"]) for row in csv.DictReader(stream)]
    truth = [assay.truth(sequence) for _, sequence in texts]
    base, after = (np.array(language_model.log_probs(folder / part, texts)) for part in ("base", model))
    name, plain = assay.plain
    scores = {
        name: [plain(sequence) for _, sequence in texts],
        "base, log p": base,
        "DPO, log p": after,
        "DPO, implicit reward": after - base,
    }
    return {name: float(spearmanr(values, truth).statistic) for name, values in scores.items()}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Made-up assays whose truth is known.")
    parser.add_argument("what", choices=["make", "score"])
    parser.add_argument("assay", choices=sorted(ASSAYS))
    parser.add_argument("--out", type=Path, required=True, help="folder of the example")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", action="store_true", help="make: leave the plates out of the table")
    parser.add_argument("--model", default="dpo", help="score: folder of the trained model inside --out")
    options = parser.parse_args()
    assay = ASSAYS[options.assay]
    language_model.quiet()
    if options.what == "make":
        make(assay, options.out, options.seed, pool=options.pool)
        return 0
    print("| score | Spearman correlation with the truth |\n|---|---|")
    for name, value in score(assay, options.out, options.model).items():
        print(f"| {name} | {value:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
