"""Real runs of a tiny model: planted collapses are named in the first tenth, healthy runs are left alone."""

import pytest

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.events import RunStarted

STEPS = 30
WORDS = ["one", "two", "three", "Paris", "Qwen", "France", "capital", "made", "who", "are"]


def pairs(*, same=False):
    """Prompts of words; the chosen answer says the first word, the rejected one the last."""
    from datasets import Dataset

    rows = []
    for n in range(40):
        asked = " ".join(WORDS[(n * step) % len(WORDS)] for step in (1, 3, 7))
        chosen, rejected = f"{asked.split()[0]} one", f"{asked.split()[-1]} two"
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"{asked} {n}"}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": chosen if same else rejected}],
            }
        )
    return Dataset.from_list(rows)


def warnings_of(tiny_model, tmp_path, *, data=None, reference=None, probe=None, **settings):
    from dpo_cli.training.trainer import DPOTrainerWrapper

    seen = []
    config = DPOTrainingConfig(
        output_dir=str(tmp_path / "out"), logging_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=1,
        max_new_tokens=12, **{"max_steps": STEPS} | settings,
    )  # fmt: skip
    trainer = DPOTrainerWrapper(
        str(tiny_model), train_dataset=data or pairs(), training_config=config, ref_model=reference, on_event=seen.append, probe=probe,
    )  # fmt: skip
    result = trainer.train(into=tmp_path)
    assert any(isinstance(event, RunStarted) for event in seen)
    return {warning.name: warning for warning in result.warnings}, result


def test_a_learning_rate_of_one_is_named_and_stopped(tiny_model, tmp_path):
    probe = [{"role": "user", "content": "who are"}]
    found, result = warnings_of(tiny_model, tmp_path, learning_rate=1.0, stop_on_collapse=True, probe=probe)
    collapses = [warning for warning in found.values() if warning.collapse]
    assert collapses
    assert collapses[0].step <= STEPS / 10
    assert "--learning-rate" in collapses[0].advice
    assert result.stopped_early.endswith("The weights from before the first step were kept.")
    assert result.steps < STEPS


def test_pairs_without_a_difference_are_named(tiny_model, tmp_path):
    found, _ = warnings_of(tiny_model, tmp_path, data=pairs(same=True), learning_rate=1e-3)
    assert found["nothing_to_learn"].step <= STEPS / 10


def test_another_reference_is_named(tiny_model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    reference = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    found, _ = warnings_of(tiny_model, tmp_path, reference=reference, learning_rate=1e-4, max_steps=3)
    assert found["wrong_reference"].step == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 1e-3},
        pytest.param({"learning_rate": 1e-4, "beta": 0.1, "loss_type": ("ipo",)}, marks=pytest.mark.slow),
        pytest.param(
            {"learning_rate": 1e-3, "lora_rank": 4, "loss_type": ("sigmoid", "sft")}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_healthy_run_is_left_alone(tiny_model, tmp_path, settings):
    # No probe: what a model with random weights says is nothing to judge it by.
    found, result = warnings_of(tiny_model, tmp_path, **settings)
    assert found == {}
    assert result.steps == STEPS
