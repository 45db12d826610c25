"""Splice donor sites drawn from published frequencies, and an invented rule of which one a tissue uses.

A site is 21 letters: the 9 of the donor matrix (-3..+6) and 12 of the intron behind them. Frequencies are
real (`frequencies.toml`); the rule is ours and is what makes an oracle possible::

    strength(site, tissue) = 0.8 * bits(site) + 4 * [TGCATG in the intron, <BRN>] - 4 * [CTCTCT in the intron, <LIV>]

TGCATG is what RBFOX binds, an activator in brain; CU-rich elements repress through PTB. A preference between
two sites is drawn by Bradley and Terry: P(a over b) = sigmoid(strength(a) - strength(b)).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

LETTERS = "ACGT"
DONOR = 9
INTRON = 12
LENGTH = DONOR + INTRON
CONSTITUTIVE, BRAIN, LIVER = "<CON>", "<BRN>", "<LIV>"
TISSUES = (BRAIN, LIVER)
ENHANCER, SILENCER = "TGCATG", "CTCTCT"
MOTIFS = ("", ENHANCER, SILENCER)
BITS_WEIGHT, MOTIF_WEIGHT = 0.8, 4.0
MOTIF_SHARE = 0.5
CLOSE_BITS = 3.0
"""Two sites of an event are at most this far apart: competitors are of similar strength."""


def read_matrix(kind: str = "donor") -> np.ndarray:
    """Read a frequency matrix: float64 [positions, 4 letters], each row summing to 1."""
    table = tomllib.loads((Path(__file__).parent / "frequencies.toml").read_text(encoding="utf-8"))[kind]
    matrix = np.array([table[letter] for letter in LETTERS]).T
    return matrix / matrix.sum(axis=1, keepdims=True)


_DONOR_MATRIX = read_matrix("donor")
_DONOR_BITS = np.log2(_DONOR_MATRIX / 0.25)


def bits(site: str) -> float:
    """Log-odds of the first nine letters against a uniform background, in bits: the PWM score."""
    return float(
        sum(_DONOR_BITS[position, LETTERS.index(letter)] for position, letter in enumerate(site[:DONOR]))
    )


def strength(site: str, tissue: str) -> float:
    """The invented truth, in logits."""
    intron = site[DONOR:]
    enhanced = tissue == BRAIN and ENHANCER in intron
    silenced = tissue == LIVER and SILENCER in intron
    return BITS_WEIGHT * bits(site) + MOTIF_WEIGHT * (enhanced - silenced)


@dataclass(frozen=True)
class Event:
    """Two competing donors, the same under every tissue."""

    first: str
    second: str

    def better(self, tissue: str) -> tuple[str, str]:
        """The sites as (used, not used) in a tissue, by the truth."""
        first_wins = strength(self.first, tissue) > strength(self.second, tissue)
        return (self.first, self.second) if first_wins else (self.second, self.first)

    @property
    def adaptive(self) -> bool:
        """Whether brain and liver use different sites."""
        return self.better(BRAIN) != self.better(LIVER)


class Sites:
    """Draws sites; never the same one twice, so that no part of the data knows a site of another part.

    Args:
        seed: Of the generator.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self._drawn: set[str] = set()

    def donor(self, motif: str = "") -> str:
        """A donor with `motif` in its intron, or with none."""
        return self._fresh(lambda: self._from_matrix() + self._intron(motif))

    def nine(self) -> str:
        """The nine letters of the matrix alone; these repeat, there are not so many of them."""
        return self._from_matrix()

    def any_donor(self) -> str:
        """A donor as the base model reads them: every other one has a motif, whatever its tag."""
        motif = MOTIFS[self.random.integers(1, len(MOTIFS))] if self.random.random() < MOTIF_SHARE else ""
        return self.donor(motif)

    def decoy(self) -> str:
        """A site that is none: GT where a donor has it, everything else by chance, no motif."""
        return self._fresh(lambda: self._by_chance(3) + "GT" + self._by_chance(4) + self._intron(""))

    def event(self) -> Event:
        """Two donors that differ in their motif and are at most `CLOSE_BITS` apart."""
        first_motif, second_motif = self.random.permutation(len(MOTIFS))[:2]
        first = self.donor(MOTIFS[first_motif])
        while True:
            second = self.donor(MOTIFS[second_motif])
            if abs(bits(first) - bits(second)) <= CLOSE_BITS:
                return Event(first, second)

    def preferred(self, event: Event, tissue: str) -> tuple[str, str]:
        """The sites as (chosen, rejected), drawn by Bradley and Terry: sometimes the weaker one wins."""
        margin = strength(event.first, tissue) - strength(event.second, tissue)
        first_wins = self.random.random() < 1 / (1 + np.exp(-margin))
        return (event.first, event.second) if first_wins else (event.second, event.first)

    def _fresh(self, draw: Callable[[], str]) -> str:
        while True:
            site = draw()
            if site not in self._drawn:
                self._drawn.add(site)
                return site

    def _from_matrix(self) -> str:
        chances = self.random.random((DONOR, 1))
        picks = (chances > _DONOR_MATRIX.cumsum(axis=1)).sum(axis=1)
        return "".join(LETTERS[min(pick, 3)] for pick in picks)

    def _by_chance(self, length: int) -> str:
        return "".join(LETTERS[pick] for pick in self.random.integers(4, size=length))

    def _intron(self, motif: str) -> str:
        """Twelve letters with exactly the motif that was asked for."""
        while True:
            letters = self._by_chance(INTRON)
            if motif:
                start = self.random.integers(INTRON - len(motif) + 1)
                letters = letters[:start] + motif + letters[start + len(motif) :]
            if all((one in letters) == (one == motif) for one in MOTIFS[1:]):
                return letters
