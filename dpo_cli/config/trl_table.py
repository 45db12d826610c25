"""The fields of TRL's DPOConfig, read without importing TRL.

Importing trl costs seconds and brings torch; a mistyped key should cost neither. The field names are
read from the source of the dataclasses that make up DPOConfig.
"""

from __future__ import annotations

import ast
import difflib
import math
from functools import cache, reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dpo_cli.errors import quoted

_SOURCES = (
    ("trl", "trainer/dpo_config.py", "DPOConfig"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("transformers", "training_args.py", "TrainingArguments"),
)

_NOT_RESUMED = "a run is gone on with by --resume"
_BY_SCRIPTS = "only the example scripts of transformers read it"
_NOT_SENT = "dpo sends nothing; upload the output folder with `hf upload`"
_WITHOUT_EFFECT = {
    "resume_from_checkpoint": _NOT_RESUMED,
    "restore_callback_states_from_checkpoint": _NOT_RESUMED,
    "ignore_data_skip": _NOT_RESUMED,
    "do_train": _BY_SCRIPTS,
    "do_eval": _BY_SCRIPTS,
    "do_predict": _BY_SCRIPTS,
    "model_init_kwargs": "dpo loads the model, see --dtype, --device and --trust-remote-code",
    "push_to_hub": _NOT_SENT,
    "hub_model_id": _NOT_SENT,
    "hub_strategy": _NOT_SENT,
    "hub_private_repo": _NOT_SENT,
    "hub_always_push": _NOT_SENT,
    "hub_revision": _NOT_SENT,
    "padding_free": "TRL has disabled it",
    "label_smoothing_factor": "DPO does not read it, see --label-smoothing",
}
"""Fields of TRL's DPOConfig that change nothing here, and why."""


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        msg = f"{package} is not installed"
        raise ModuleNotFoundError(msg)
    return Path(spec.origin).parent


_PACKAGES = (
    ("galore_", "galore_torch"), ("apollo_", "apollo_torch"), ("lomo", "lomo_optim"), ("adalomo", "lomo_optim"),
    ("grokadamw", "grokadamw"), ("schedule_free_", "schedulefree"), ("stable_adamw", "optimi"),
    ("adamw_torch_4bit", "torchao"), ("adamw_torch_8bit", "torchao"), ("adamw_torch_xla", "torch_xla"),
    ("adamw_torch_npu_fused", "torch_npu"), ("adamw_anyprecision", "torchdistx"), ("paged_", "bitsandbytes"),
    ("ademamix", "bitsandbytes"), ("lion_", "bitsandbytes"), ("rmsprop_bnb", "bitsandbytes"),
    ("adamw_bnb_8bit", "bitsandbytes"), ("adamw_8bit", "bitsandbytes"),
)  # fmt: skip
"""How the name of an optimizer begins, and the package that it comes from; the first that fits counts."""


@cache
def optimizers() -> tuple[str, ...]:
    """Names of the optimizers of the installed transformers, read from its source."""
    tree = ast.parse((_package_folder("transformers") / "training_args.py").read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "OptimizerNames")
    values = [n.value for n in node.body if isinstance(n, ast.Assign)]
    return tuple(str(value.value) for value in values if isinstance(value, ast.Constant))


def check_optimizer(name: str) -> str:
    """Return the name of an optimizer that can be used here.

    Raises:
        ValueError: If transformers does not know it, or its package is not installed.
    """
    if name == "adamw_torch":
        return name
    if name not in optimizers():
        near = difflib.get_close_matches(name, optimizers(), n=1)
        msg = f"{name} is not an optimizer of transformers" + (f", did you mean {near[0]}?" if near else "")
        raise ValueError(msg)
    package = next((package for start, package in _PACKAGES if name.startswith(start)), None)
    if package is not None and find_spec(package) is None:
        msg = f"{name} needs {package}, which is not installed: pip install {_DISTRIBUTIONS.get(package, package)}"
        raise ValueError(msg)
    return name


_DISTRIBUTIONS = {
    "galore_torch": "galore-torch", "apollo_torch": "apollo-torch", "lomo_optim": "lomo-optim", "optimi": "torch-optimi",
}  # fmt: skip
"""Packages that are installed by another name."""


@cache
def trl_types() -> dict[str, Any]:
    """The fields of the installed TRL's DPOConfig, and the type that each is declared with, as far as it is a plain one."""
    types: dict[str, Any] = {}
    for package, file, cls in _SOURCES:
        tree = ast.parse((_package_folder(package) / file).read_text(encoding="utf-8"))
        node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls)
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                types.setdefault(field.target.id, _plain_type(field.annotation))
    return {name: of for name, of in types.items() if not name.startswith("_")}


_PLAIN: dict[str, Any] = {"bool": bool, "int": int, "float": float, "str": str, "dict": dict, "list": list}


def _plain_type(node: ast.expr) -> Any:  # noqa: ANN401 - a type of any kind
    """The type that an annotation says; Any where it needs a class of TRL or transformers, unless a text stands for it."""
    match node:
        case ast.Name(id=name):
            return _PLAIN.get(name, Any)
        case ast.Constant(value=None):
            return type(None)
        case ast.BinOp(op=ast.BitOr()):
            sides = [_plain_type(node.left), _plain_type(node.right)]
            known = [side for side in sides if side is not Any]
            return reduce(or_, known) if len(known) == len(sides) or str in known else Any
        case ast.Subscript(value=ast.Name(id="list" | "dict" as name), slice=inner):
            of = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _PLAIN[name][tuple(map(_plain_type, of))]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Constant(value=value)):
            return Literal[value]
        case _:
            return Any


def trl_fields() -> frozenset[str]:
    """Names of all fields of the installed TRL's DPOConfig."""
    return frozenset(trl_types())


def check_trl_table(table: dict[str, Any], taken: frozenset[str]) -> dict[str, Any]:
    """Return `table` if each key is a field of TRL's DPOConfig that has an effect and is no setting of ours.

    Raises:
        ValueError: Naming every key that is unknown to TRL, without effect here, a setting of our own, or whose value
            is not of the type that TRL declares.
    """
    if not table:
        return table
    wrong = []
    for key, value in table.items():
        if key in taken:
            wrong.append(f"{key} is a dpo setting, give it outside trl")
        elif key in _WITHOUT_EFFECT:
            wrong.append(f"{key} has no effect here: {_WITHOUT_EFFECT[key]}")
        elif key not in trl_fields():
            near = difflib.get_close_matches(key, trl_fields(), n=1)
            wrong.append(
                f"{key} is not a field of TRL's DPOConfig" + (f", did you mean {near[0]}?" if near else "")
            )
        elif reason := _wrong_value(key, value):
            wrong.append(f"{key} {reason}, not {quoted(value)}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return table


_RANGES: dict[str, tuple[float, float]] = {
    "precompute_ref_batch_size": (1, 2**20),
    "pad_to_multiple_of": (1, 2**20),
    "dataset_num_proc": (1, 2**10),
    "dataloader_num_workers": (0, 2**10),
    "ref_model_sync_steps": (1, 2**31 - 1),
    "ref_model_mixup_alpha": (0, 1),
    "eval_accumulation_steps": (1, 2**31 - 1),
    "eval_delay": (0, 2**31 - 1),
    "neftune_noise_alpha": (0, 2**31 - 1),
    "ddp_timeout": (1, 2**31 - 1),
}
"""Least and most, where a type cannot tell and neither TRL nor transformers asks."""

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a table",
    list: "a list",
}


def _wrong_value(key: str, value: object) -> str:
    """Why a field cannot have this value; empty if it can, as far as its type says."""
    of = trl_types()[key]
    try:
        TypeAdapter(of, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        if any(detail["type"] == "finite_number" for detail in error.errors()):
            return "must be a finite number"
        return f"must be {_in_words(of)}"
    if key.endswith("_kwargs") and isinstance(value, str) and not value.startswith("{"):
        return "must be a table"  # any text is TRL's type; only JSON becomes a table
    least, most = _RANGES.get(key, (-math.inf, math.inf))
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not least <= value <= most:
        return f"must be from {least:g} to {most:,}"
    return ""


def _in_words(of: Any) -> str:  # noqa: ANN401 - a type of any kind
    kind = get_origin(of) or of
    if kind in {Union, UnionType}:
        return " or ".join(_in_words(side) for side in get_args(of) if side is not type(None))
    if kind is Literal:
        return " or ".join(map(repr, get_args(of))).lower()
    inner = get_args(of)[-1:]
    return _WORDS[kind] + (f" of {_in_words(inner[0])}" if inner and inner[0] in _WORDS else "")
