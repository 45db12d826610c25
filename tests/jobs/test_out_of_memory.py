"""Memory may run out before training begins, too."""

import json

import pytest
import torch

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.errors import TrainingError
from dpo_cli.jobs.train import train


def test_memory_that_runs_out_while_held_out_pairs_are_scored_is_said_in_words(
    tiny_model, tmp_path, monkeypatch
):
    def full(*_, **__):
        msg = "CUDA out of memory. Tried to allocate 2 GiB"
        raise torch.OutOfMemoryError(msg)

    monkeypatch.setattr("dpo_cli.evaluation.examination.examine", full)
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        json.dumps({"prompt": "Who are you?", "chosen": " I am Qwen.", "rejected": " No."}) + "\n"
    )
    config = DPOTrainingConfig(
        model=str(tiny_model), dataset=str(file), eval_dataset=str(file), output_dir=str(tmp_path / "out"), device="cpu"
    )  # fmt: skip
    with pytest.raises(TrainingError, match="the device does not have enough memory") as error:
        train(config)
    assert "--max-length" in error.value.hint
    assert not (tmp_path / "out").exists()
