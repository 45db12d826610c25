"""Is this folder a model that can be loaded? Read from its small files, before any library is.

A folder is a stranger's: a named pipe hangs whoever opens it, a Git LFS pointer stands in for gigabytes, a
configuration may ask for a billion layers.
"""

from __future__ import annotations

import json
import math
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from dpo_cli.errors import ModelError, first_line

if TYPE_CHECKING:
    from pathlib import Path

READ: Final = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.py", "preset.toml"]
"""What is read, and fetched, of a model: no pickled weights."""
_LARGEST: Final = {".json": 2**28, ".jinja": 2**20}
"""Bytes of a file that is read whole, by ending; published tokenizers have up to 40 MB, templates 40 KB."""
_LONGEST_CONFIG: Final = 2**22
_LONGEST_POINTER: Final = 1024
_LFS: Final = b"version https://git-lfs.github.com/spec/"
_MODEL_TYPE: Final = re.compile(r"[\w.-]{1,100}")
_LAYERS: Final = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "decoder_layers",
    "encoder_layers",
)
_DIMENSIONS: Final = ("vocab_size", "hidden_size", "n_embd", "d_model")
"""What is a dimension of some tensor in every architecture, for each token or as a whole."""
_PACKAGES: Final = {
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "compressed-tensors": "compressed-tensors",
    "bitsandbytes": "bitsandbytes",
    "hqq": "hqq",
    "aqlm": "aqlm",
    "eetq": "eetq",
    "quanto": "optimum-quanto",
    "torchao": "torchao",
    "higgs": "flute-kernel",
    "vptq": "vptq",
    "spqr": "spqr_quant",
    "mxfp4": "kernels",
}
"""What transformers needs installed to load each kind of quantised weights."""


def check_model_folder(name: str, folder: Path) -> dict[str, Any]:
    """Check a folder of full weights, and give its `config.json`.

    Raises:
        ModelError: If it is no model folder, or one that cannot be loaded.
    """
    check_files(name, folder)
    if not (folder / "config.json").is_file():
        if any(folder.glob("*.gguf")):
            raise ModelError(
                f"{name}: holds GGUF files, which are for inference",
                hint="Give the model that they were made from, or convert one with transformers (from_pretrained, gguf_file=...).",
            )
        raise ModelError(
            f"{name}: has no config.json, so it is not a model folder",
            hint="Give the folder that save_pretrained wrote.",
        )
    need_weights(name, folder, "*.safetensors")
    config = read_object(name, folder / "config.json")
    kind = config.get("model_type", "")
    if not isinstance(kind, str) or (kind and not _MODEL_TYPE.fullmatch(kind)):
        raise ModelError(f"{name}: config.json: model_type is not a name")
    check_quantisation(name, config)
    _check_sizes(name, folder, config)
    return config


def _check_sizes(name: str, folder: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that asks for more than the weights hold: a model is built before it is filled."""
    shapes = [shape for file in folder.glob("*.safetensors") for shape in tensor_shapes(file).values()]
    largest = max((size for shape in shapes for size in shape), default=0)
    if quantisation(config):
        largest = 0  # several numbers are packed into one
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        for keys, most, what in (
            (_LAYERS, len(shapes), "{:,} tensors"),
            (_DIMENSIONS, largest, "no tensor with a dimension above {:,}"),
        ):
            for key in keys:
                size = part.get(key, 0)
                if isinstance(size, int) and size < 0:
                    raise ModelError(f"{name}: config.json: {key} is {size}")
                if isinstance(size, int) and size > most > 0:
                    raise ModelError(
                        f"{name}: config.json: {key} is {size:,}, and the weights hold {what.format(most)}"
                    )


def check_files(name: str, folder: Path) -> None:
    """Refuse what would hang whoever reads it or fill the memory, and what only stands for a file.

    Raises:
        ModelError: If a file of the model's is no regular file, too large, or a Git LFS pointer.
    """
    for pattern in (*READ, "additional_chat_templates/*"):
        for file in folder.glob(pattern):
            if file.is_dir():
                continue
            if not file.is_file():
                what = (
                    "a link to nothing" if file.is_symlink() and not file.exists() else "not a regular file"
                )
                raise ModelError(f"{name}: {file.name} is {what}")
            size, most = file.stat().st_size, _LARGEST.get(file.suffix)
            if most is not None and size > most:
                raise ModelError(f"{name}: {file.name} has more than {most // 2**20} MiB")
            if size < _LONGEST_POINTER:
                with file.open("rb") as opened:
                    if opened.read(len(_LFS)) == _LFS:
                        raise ModelError(
                            f"{name}: {file.name} is a Git LFS pointer, not the file that it stands for",
                            hint="Run `git lfs pull` in that folder, or download the model again.",
                        )


def need_weights(name: str, folder: Path, pattern: str) -> None:
    """Refuse a folder without safetensors.

    Raises:
        ModelError: If none of its files matches `pattern`.
    """
    if any(folder.glob(pattern)):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ModelError(
            f"{name}: has only pickled weights, and unpickling runs code",
            hint="Convert them to safetensors: load them somewhere safe and call save_pretrained.",
        )
    raise ModelError(
        f"{name}: has no weights ({pattern})", hint="Was the download or the training run finished?"
    )


def read_object(name: str, file: Path) -> dict[str, Any]:
    """A JSON object from a file of a model's.

    Raises:
        ModelError: If the file cannot be read, is too long, or holds something else.
    """
    try:
        if file.stat().st_size > _LONGEST_CONFIG:
            raise ModelError(f"{name}: {file.name} has more than {_LONGEST_CONFIG // 2**20} MiB")
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name}: {file.name} cannot be read ({first_line(error)})") from None
    if not isinstance(document, dict):
        raise ModelError(f"{name}: {file.name} is not a JSON object")
    return document


def check_tokenizer(name: str, folder: Path) -> None:
    """Refuse a tokenizer that only a package can read that is not installed.

    Raises:
        ModelError: If that is so; it names the package.
    """
    file = next(iter(sorted(folder.glob("*.model"))), None)
    if file is None or (folder / "tokenizer.json").exists():
        return
    with file.open("rb") as opened:
        package = (
            "sentencepiece" if opened.read(1) == b"\n" else "tiktoken"
        )  # a protobuf message, or lines of text
    if find_spec(package) is None:
        raise ModelError(
            f"{name}: has its tokenizer as {file.name} alone, and the package {package} is not installed",
            hint=f"pip install {package} protobuf, or add the tokenizer.json that save_pretrained writes.",
        )


def quantisation(config: dict[str, Any]) -> str | None:
    """How a model's weights are quantised, by its `config.json`; None where they are not."""
    named = config.get("quantization_config")
    if isinstance(named, dict):
        return str(named.get("quant_method") or "bitsandbytes")
    return "mlx" if isinstance(config.get("quantization"), dict) else None


def check_quantisation(name: str, config: dict[str, Any]) -> None:
    """Refuse quantised weights that nothing here can load.

    Raises:
        ModelError: If that is so; it names what to install.
    """
    method = quantisation(config)
    if method == "mlx":
        raise ModelError(
            f"{name}: its weights are quantised for MLX, which transformers cannot load",
            hint="Give the model that it was made from.",
        )
    package = _PACKAGES.get(method or "")
    if package and find_spec(package.replace("-", "_")) is None:
        raise ModelError(
            f"{name}: its weights are quantised ({method}) and the package {package} is not installed",
            hint=f"pip install {package}, or give the model that it was made from.",
        )


def refuse_training(name: str, config: dict[str, Any]) -> None:
    """Refuse to train quantised weights.

    Raises:
        ModelError: If they are quantised.
    """
    if method := quantisation(config):
        raise ModelError(
            f"{name}: its weights are quantised ({method}) and cannot be trained",
            hint="Give the model that it was made from, with --lora-rank 16 if memory is short.",
        )


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, from its header; empty where that is damaged."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > 100 * 2**20 or length > file.stat().st_size:
            return {}  # the loader says how it is damaged
        try:
            header = json.loads(opened.read(length))
            return {
                key: tuple(int(size) for size in entry["shape"])
                for key, entry in header.items()
                if key != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}


def count_parameters(folder: Path) -> int:
    """Parameters of a model, from the headers of its weights; tied ones are stored, and counted, once."""
    files = [*folder.glob("model*.safetensors")] or [*folder.glob("*.safetensors")]
    shapes = {name: shape for file in files for name, shape in tensor_shapes(file).items()}
    return sum(math.prod(shape) for shape in shapes.values())
