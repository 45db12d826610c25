"""Rows of like length, together: little of a batch is padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def batches_by_length(
    lengths: Sequence[int], most: int, tokens: int | None = None, *, longest_first: bool = False
) -> list[list[int]]:
    """Group places so that rows of like length come together.

    Args:
        lengths: Tokens of each row.
        most: Rows in a batch, at most.
        tokens: Tokens in a batch, at most, padding included; a single row may have more. None sets no limit.
        longest_first: Begin with the longest rows, so that a lack of memory shows at once.

    Returns:
        Batches that hold every place once.
    """
    batches: list[list[int]] = []
    longest = 0  # of the last batch
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=longest_first):
        longest = max(longest, lengths[place])
        full = not batches or len(batches[-1]) >= most
        if full or (tokens is not None and longest * (len(batches[-1]) + 1) > tokens):
            batches.append([])
            longest = lengths[place]
        batches[-1].append(place)
    return batches
