"""What bad inputs are made of: good pairs, a tiny model, and ways to put something odd in their place."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import tempfile
from functools import cache
from pathlib import Path

COLORS = ("red", "green", "blue", "black", "white", "brown", "gray", "pink")
PAIRS = [
    {"prompt": f"What color is thing {n}?", "chosen": f"It is {color}.", "rejected": "I do not know that."}
    for n, color in enumerate(COLORS * 2)
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SCRATCH = tempfile.TemporaryDirectory(prefix="dpo-cli-bad-input-")


def lines(*rows: object) -> str:
    """JSON lines; without rows, good pairs."""
    return "".join(json.dumps(row) + "\n" for row in rows or PAIRS)


def among(*rows: object) -> str:
    """JSON lines of good pairs with these after them."""
    return lines(*PAIRS, *rows)


def gz(data: bytes | str):
    return gzip.compress(data.encode() if isinstance(data, str) else data, mtime=0)


def parquet(rows: list, **schema):
    """A Parquet file of rows."""

    def make(path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows, **schema), path)

    return make


def saved(rows: list, *, edit: dict[str, str] | None = None):
    """A folder that `Dataset.save_to_disk` wrote; files of it replaced by others."""

    def make(path):
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(path)
        for name, text in (edit or {}).items():
            (path / name).write_text(text)

    return make


def fifo(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def bound_socket(path):
    """A socket, made where its name is short enough."""
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place}/s")
        shutil.move(f"{place}/s", path)


def link(target: str):
    return lambda path: path.symlink_to(target)


def sparse(size: int):
    """A file of that many zero bytes that takes no room."""

    def make(path):
        with path.open("wb") as file:
            file.truncate(size)

    return make


@cache
def tiny() -> Path:
    """A folder with a tiny random chat model; made once."""
    from tiny_models import make_model, make_tokenizer

    place = Path(_SCRATCH.name, "tiny")
    tokenizer = make_tokenizer(template=CHATML)
    make_model(tokenizer).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@cache
def tiny_adapter() -> Path:
    """A LoRA adapter of the tiny model, which its configuration names as `../model`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    place = Path(_SCRATCH.name, "adapter")
    model = AutoModelForCausalLM.from_pretrained(tiny())
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(place)
    _edit(place / "adapter_config.json", {"base_model_name_or_path": "../model"})
    return place


def model(
    config: dict | None = None,
    files: dict[str, bytes | str | None] | None = None,
    tokenizer: dict | None = None,
    template: str | None = None,
):
    """The tiny model with keys of its configurations changed, its template, or files replaced, or with None removed."""

    def make(path):
        _copy(tiny(), path, files)
        if config:
            _edit(path / "config.json", config)
        if tokenizer:
            _edit(path / "tokenizer_config.json", tokenizer)
        if template is not None:
            (path / "chat_template.jinja").write_text(template)

    return make


def adapter(config: dict | None = None, files: dict[str, bytes | str | None] | None = None):
    """The tiny adapter, changed in the same way."""

    def make(path):
        _copy(tiny_adapter(), path, files)
        if config:
            _edit(path / "adapter_config.json", config)

    return make


def weights(change):
    """The tiny model with its tensors changed by a function of their names and values."""

    def make(path):
        from safetensors.torch import load_file, save_file

        model()(path)
        file = path / "model.safetensors"
        tensors = load_file(file)
        save_file(change({name: tensor.clone() for name, tensor in tensors.items()}), file, {"format": "pt"})

    return make


def _copy(source: Path, path: Path, files: dict | None) -> None:
    shutil.copytree(source, path)
    for name, content in (files or {}).items():
        (path / name).unlink(missing_ok=True)
        if callable(content):
            content(path / name)
        elif content is not None:
            (path / name).write_bytes(content.encode() if isinstance(content, str) else content)


def _edit(path: Path, changes: dict) -> None:
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
