"""The states of all random numbers as JSON: nothing that could run code is read back."""

from __future__ import annotations

import base64
import json
import random
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path

_FILE: Final = "random_state.json"


def write_random_state(folder: Path) -> None:
    """Write the states of all random numbers, of every device, as JSON."""
    version, words, gauss = random.getstate()
    kind, keys, place, has, cached = np.random.get_state()  # noqa: NPY002 - what transformers seeds
    document: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), [int(key) for key in keys], int(place), int(has), float(cached)],
        "cpu": _text(torch.random.get_rng_state()),
        "cuda": [_text(one) for one in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
        "mps": _text(torch.mps.get_rng_state()) if torch.backends.mps.is_available() else None,
    }
    (folder / _FILE).write_text(json.dumps(document), encoding="utf-8")


def read_random_state(folder: Path) -> None:
    """Set all random numbers to what `write_random_state` has written."""
    document = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    version, words, gauss = document["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = document["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))  # noqa: NPY002 - as above
    torch.random.set_rng_state(_tensor(document["cpu"]))
    if torch.cuda.is_available() and len(document["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_tensor(one) for one in document["cuda"]])
    if torch.backends.mps.is_available() and document["mps"] is not None:
        torch.mps.set_rng_state(_tensor(document["mps"]))


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
