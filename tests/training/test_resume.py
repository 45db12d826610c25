"""A run that was killed and went on ends with the bits of one that never stopped: weights, figures, warnings."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from datasets import Dataset
from training.runs import pair, settings

from dpo_cli.errors import ConfigError
from dpo_cli.events import StepLogged
from dpo_cli.models.locate import locate_model
from dpo_cli.run_folder.checkpoints import newest_whole
from dpo_cli.training.checkpoint_files import weights_digest
from dpo_cli.training.loop import Probe, Training
from dpo_cli.training.policy import load_policy

BASE = {
    "max_steps": 7, "per_device_train_batch_size": 2, "eval_steps": 3, "logging_steps": 2, "save_steps": 1,
    "save_total_limit": 3,
}  # fmt: skip
KINDS = {
    "full, dropout": {"trl": {"disable_dropout": False, "eval_on_start": True}, "stop_on_collapse": True},
    "lora, accumulation, dropout": {"lora_rank": 4, "lora_dropout": 0.2, "gradient_accumulation_steps": 4},
    "a reference that moves": {
        "trl": {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.5}
    },
    "accumulation": {"gradient_accumulation_steps": 4},
    "lora": {"lora_rank": 4},
    "epochs": {"max_steps": None, "num_train_epochs": 2},
    "schedule": {"lr_scheduler_type": "cosine", "warmup_steps": 3, "optim": "adafactor"},
    "plateau": {"lr_scheduler_type": "reduce_lr_on_plateau"},
    "momentum": {"optim": "sgd"},
    "bfloat16": {"dtype": "bfloat16"},
    "TRL's forward": {"engine": "trl"},
    "best": {
        "save_steps": 3,
        "trl": {
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        },
    },
    "stream": {"streamed": True},
}
TIMES = ("_runtime", "_per_second")


class KilledError(Exception):
    """Stands for a kill: nothing after it is written."""


def run(model, folder, changes, *, killed_after=None, resume=False):
    """Train; the digest of the weights and the figures, or None when killed."""
    changes = BASE | changes
    streamed = changes.pop("streamed", False)
    pairs = Dataset.from_list([pair(number) for number in range(11)])
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / "trial", ignore_errors=True)
    config = settings(folder, **changes)

    def on_event(event):
        if killed_after and isinstance(event, StepLogged) and event.step > killed_after:
            raise KilledError

    located = locate_model(str(model))
    training = Training(
        load_policy(located, config, device="cpu"),
        located,
        config,
        pairs.to_iterable_dataset() if streamed else pairs,
        eval_pairs=Dataset.from_list([pair(number) for number in range(20, 25)]),
        probe=Probe(pair(1)["prompt"], 8),
        on_event=on_event,
    )
    found = newest_whole(folder)[0] if resume else None
    try:
        result = training.run(folder, found)
    except KilledError:
        return None
    figures = asdict(result)
    for name in ("seconds", "peak_memory_bytes", "resumed_at", "engine_forwards"):
        del figures[name]
    for record in figures["history"]:
        for name in [name for name in record if name.endswith(TIMES)]:
            del record[name]
    return weights_digest(training.model), json.dumps(figures, sort_keys=True), result.resumed_at


def same(model, tmp_path, changes, kills):
    torch.set_num_threads(1)
    whole = run(model, tmp_path / "whole", changes)
    for kill in kills:
        place = tmp_path / f"killed-{kill}"
        assert run(model, place, changes, killed_after=kill) is None
        again = run(model, place, changes, resume=True)
        assert again[2], "it began from the start"
        assert again[0] == whole[0], kill
        assert again[1] == whole[1], kill


@pytest.mark.slow
@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_runs_of_all_kinds_go_on_with_the_same_bits(tiny_model, tmp_path, changes):
    same(tiny_model, tmp_path, changes, [3, 5])


def test_changed_pairs_are_refused_by_name(tiny_model, tmp_path, monkeypatch):
    assert run(tiny_model, tmp_path / "out", {}, killed_after=2) is None
    real = Dataset.from_list
    monkeypatch.setattr(Dataset, "from_list", lambda rows: real([*rows[:-1], pair(99)]))
    with pytest.raises(ConfigError) as caught:
        run(tiny_model, tmp_path / "out", {}, resume=True)
    assert "--resume: the pairs changed since the run began" in caught.value.message
    assert "--resume: the held-out pairs changed since the run began" in caught.value.message
