"""How a held-out data set is read: as the training set is, but for where its rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def heldout_options(dataset: Any, options: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - as for `locate`
    """The options that `eval_dataset` is read with.

    Layout, columns and strictness are those of the training set. The split is `eval_split`. Configuration and revision
    belong to one data set: they hold for the held-out one only where it is the same.

    Args:
        dataset: The training set.
        options: As the fields of `DataConfig`.
    """
    held = options.get("eval_dataset")
    same = isinstance(held, str) and str(dataset) == held
    return {
        **options,
        "split": options.get("eval_split", "train"),
        "dataset_config": options.get("dataset_config") if same else None,
        "dataset_revision": options.get("dataset_revision") if same else None,
        "max_samples": None,
        "eval_dataset": None,
        "eval_fraction": 0.0,
    }
