"""The fields of TRL's DPOConfig, read without importing TRL.

Importing trl costs seconds and brings torch; a mistyped key should cost neither. The field names are
read from the source of the dataclasses that make up DPOConfig.
"""

from __future__ import annotations

import ast
import difflib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dpo_cli.errors import quoted

_SOURCES = (
    ("trl", "trainer/dpo_config.py", "DPOConfig"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("transformers", "training_args.py", "TrainingArguments"),
)

_NOT_RESUMED = "dpo starts every run from the beginning"
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
def trl_fields() -> dict[str, str]:
    """The fields of the installed TRL's DPOConfig, each with its type as the source has it."""
    fields: dict[str, str] = {}
    for package, file, cls in _SOURCES:
        tree = ast.parse((_package_folder(package) / file).read_text(encoding="utf-8"))
        node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls)
        for n in node.body:
            if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name):
                fields.setdefault(n.target.id, ast.unparse(n.annotation))
    return {name: kind for name, kind in fields.items() if not name.startswith("_")}


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((float, int), "a number"),
    "str": ((str,), "text"),
    "dict": ((dict,), "a table"),
    "list": ((list,), "a list"),
    "None": ((), ""),
}
"""Types as TRL's source spells them: what TOML gives for them, and their name in words."""


def _of_another_type(key: str, value: object) -> str:
    """What a field must be, when the value is not; empty when it is, or when its type is not a simple one."""
    names = [name.strip() for name in re.sub(r"\[.*?\](?=\s*(\||$))", "", trl_fields()[key]).split("|")]
    if not all(name in _KINDS for name in names):
        return ""
    allowed = tuple(kind for name in names for kind in _KINDS[name][0])
    if isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool)):
        return ""
    return " or ".join(words for name in names if (words := _KINDS[name][1]))


def check_trl_table(table: dict[str, Any], taken: frozenset[str]) -> dict[str, Any]:
    """Return `table` if each key is a field of TRL's DPOConfig that has an effect and is no setting of ours.

    Raises:
        ValueError: Naming every key that is unknown to TRL, without effect here, or a setting of our own, or of another type.
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
        elif must := _of_another_type(key, value):
            wrong.append(f"{key} must be {must}, not {quoted(value)}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return table
