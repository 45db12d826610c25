"""Holding pairs out: by prompt, so that no prompt is on both sides.

Each prompt has a place on a line from 0 to 2^64, given by its hash. The held-out side is a stretch from
0, as long as it takes to hold the wanted share of the pairs. So the split is the same in every run, on
every machine, whatever the order of the rows, and a stream can be split without being held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpo_cli.data.pairs import fingerprint
from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dpo_cli.data.pairs import Text


@dataclass(frozen=True, slots=True)
class PromptSplit:
    """Which side a prompt is on.

    Attributes:
        last: The hash of the last prompt that is held out.
    """

    last: int

    def held_out(self, prompt: Text) -> bool:
        """Whether a prompt belongs to the evaluation side."""
        return self.side(fingerprint(prompt))

    def side(self, prompt: int) -> bool:
        """The same for a prompt's fingerprint."""
        return prompt <= self.last


def split_by_prompt(prompts: Sequence[int], fraction: float) -> PromptSplit:
    """Find the stretch of prompts that holds a share of the pairs.

    Args:
        prompts: The fingerprint of each kept pair's prompt, repeats included.
        fraction: Share of the pairs to hold out, above 0 and below 1.

    Returns:
        The split: at least one prompt on each side, the held-out pairs as near to the share as whole prompts allow.

    Raises:
        DataError: All pairs have the same prompt.
    """
    import numpy as np

    values, counts = np.unique(np.asarray(prompts, dtype=np.uint64), return_counts=True)
    if len(values) < 2:  # noqa: PLR2004 - one for each side
        raise DataError(
            "--eval-fraction needs at least two different prompts: no prompt may be in both sets.",
            hint="Give held-out pairs with --eval-dataset, or remove --eval-fraction.",
        )
    held = np.cumsum(counts)[:-1]
    nearest = int(np.argmin(np.abs(held - fraction * len(prompts))))
    return PromptSplit(int(values[nearest]))
