"""Pairs that know what they are made for."""

from __future__ import annotations

from datasets import Dataset


class IdentityDataset(Dataset):
    """Pairs of a changed name: `DPOTrainerWrapper` trains on them with the preset that a model has for that.

    A part of it, as from `select`, is a plain `Dataset`.
    """

    job = "identity-shift"
