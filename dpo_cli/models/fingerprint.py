"""Which weights an adapter was trained on: a folder may hold others by now, and an adapter on those is another model."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from dpo_cli.errors import ModelError
from dpo_cli.models.folder import read_object

if TYPE_CHECKING:
    from pathlib import Path

    from dpo_cli.models.locate import LocatedModel

RECORD: Final = "base.json"
"""The file beside an adapter that says what it was trained on."""
_BLOCKS: Final = 1024
_BLOCK_BYTES: Final = 4096


def fingerprint(located: LocatedModel) -> str:
    """What tells a model's weights from others: a digest of sizes, headers and 4 MiB of each file, evenly taken.

    Training moves nearly every weight, so this notices it; reading all of a large model would take minutes. An adapter's
    is that of its own weights and its base's.
    """
    digest = hashlib.sha256()
    for file in sorted(
        located.folder.glob("adapter_model*.safetensors" if located.base else "*.safetensors")
    ):
        digest.update(_sample(file))
    if located.base:
        digest.update(fingerprint(located.base).encode())
    return digest.hexdigest()


def record_base(base: LocatedModel, folder: Path) -> None:
    """Write down beside an adapter what it sits on.

    Raises:
        OSError: If a file cannot be read or written.
    """
    record = {"model": base.name, "fingerprint": fingerprint(base)}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def changed_base(located: LocatedModel) -> str:
    """A sentence where an adapter, or one below it, lies on other weights than it was trained on; else empty.

    Nothing is known of adapters that dpo did not write.
    """
    if located.base is None:
        return ""
    file = located.folder / RECORD
    try:
        recorded = read_object(located.name, file).get("fingerprint") if file.is_file() else None
    except ModelError:
        recorded = None  # a file of that name that is not ours
    if isinstance(recorded, str) and recorded != fingerprint(located.base):
        return (
            f"{located.name}: its base {located.base.name} is not the one that it was trained on;"
            " it may answer worse, or differently"
        )
    return changed_base(located.base)


def _sample(file: Path) -> bytes:
    """A digest of a file's size, of its beginning with the header, and of blocks spread over the rest."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as opened:
        if size <= _BLOCKS * _BLOCK_BYTES:
            digest.update(opened.read())
            return digest.digest()
        header = opened.read(8)
        digest.update(header + opened.read(min(int.from_bytes(header, "little"), size)))
        for block in range(_BLOCKS):
            opened.seek(block * (size - _BLOCK_BYTES) // (_BLOCKS - 1))
            digest.update(opened.read(_BLOCK_BYTES))
    return digest.digest()
