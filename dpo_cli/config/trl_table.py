"""The fields of TRL's DPOConfig, read without importing TRL.

Importing trl costs seconds and brings torch; a mistyped key should cost neither. The field names are
read from the source of the dataclasses that make up DPOConfig.
"""

from __future__ import annotations

import ast
import difflib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_SOURCES = (
    ("trl", "trainer/dpo_config.py", "DPOConfig"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("transformers", "training_args.py", "TrainingArguments"),
)

_NOT_RESUMED = "dpo starts every run from the beginning"
_BY_SCRIPTS = "only the example scripts of transformers read it"
_WITHOUT_EFFECT = {
    "resume_from_checkpoint": _NOT_RESUMED,
    "restore_callback_states_from_checkpoint": _NOT_RESUMED,
    "ignore_data_skip": _NOT_RESUMED,
    "do_train": _BY_SCRIPTS,
    "do_eval": _BY_SCRIPTS,
    "do_predict": _BY_SCRIPTS,
    "model_init_kwargs": "dpo loads the model, see --dtype, --device and --trust-remote-code",
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


@cache
def trl_fields() -> frozenset[str]:
    """Names of all fields of the installed TRL's DPOConfig."""
    names: set[str] = set()
    for package, file, cls in _SOURCES:
        tree = ast.parse((_package_folder(package) / file).read_text(encoding="utf-8"))
        node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls)
        names |= {
            n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        }
    return frozenset(n for n in names if not n.startswith("_"))


def check_trl_table(table: dict[str, Any], taken: frozenset[str]) -> dict[str, Any]:
    """Return `table` if each key is a field of TRL's DPOConfig that has an effect and is no setting of ours.

    Raises:
        ValueError: Naming every key that is unknown to TRL, without effect here, or a setting of our own.
    """
    if not table:
        return table
    wrong = []
    for key in table:
        if key in taken:
            wrong.append(f"{key} is a dpo setting, give it outside trl")
        elif key in _WITHOUT_EFFECT:
            wrong.append(f"{key} has no effect here: {_WITHOUT_EFFECT[key]}")
        elif key not in trl_fields():
            near = difflib.get_close_matches(key, trl_fields(), n=1)
            wrong.append(
                f"{key} is not a field of TRL's DPOConfig" + (f", did you mean {near[0]}?" if near else "")
            )
    if wrong:
        raise ValueError("; ".join(wrong))
    return table
