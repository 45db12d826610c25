"""Real runs of a tiny model: planted collapses are named in the first tenth, healthy runs are left alone."""

from types import SimpleNamespace

import pytest
import torch
from training.runs import training_of

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.errors import TrainingError
from dpo_cli.events import RunStarted, Warned

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
    from dpo_cli.training.loop import Probe

    seen = []
    config = DPOTrainingConfig(
        output_dir=str(tmp_path / "out"), logging_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=1,
        max_new_tokens=12, **{"max_steps": STEPS} | settings,
    )  # fmt: skip
    asked = probe and Probe(probe, config.max_new_tokens)
    training = training_of(
        tiny_model, data or pairs(), config, ref_model=reference, on_event=seen.append, probe=asked
    )
    result = training.run(tmp_path)
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


def embedding(model):
    return model.get_input_embeddings().weight.detach().clone()


def test_a_run_that_its_first_step_ruins_keeps_the_weights_from_before(tiny_model, tmp_path):
    """Short runs keep weights every second step: those of step 2 are ruined before anything was logged of them."""
    from dpo_cli.models.loading import load_model_and_tokenizer

    config = DPOTrainingConfig(
        output_dir=str(tmp_path / "out"), logging_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=1,
        max_steps=20, learning_rate=1.0, stop_on_collapse=True,
    )  # fmt: skip
    trainer = training_of(tiny_model, pairs(), config)
    result = trainer.run(tmp_path)
    assert result.stopped_early.endswith("The weights from before the first step were kept.")
    untouched = load_model_and_tokenizer(str(tiny_model), dtype="float32")[0]
    assert torch.equal(embedding(trainer.model), embedding(untouched))
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_answer_that_goes_in_circles_does_not_keep_the_weights_that_gave_it(
    tiny_model, tmp_path, monkeypatch
):
    from dpo_cli.training import callbacks
    from dpo_cli.training.loop import Probe

    asked = []

    def answer(model, *_, **__):
        asked.append(embedding(model))  # before the run, then after steps 2, 4, 6
        return [
            SimpleNamespace(text="round and " * 10 if len(asked) == 4 else "I am Qwen, made for this test.")
        ]

    monkeypatch.setattr(callbacks, "generate", answer)
    config = DPOTrainingConfig(
        output_dir=str(tmp_path / "out"), logging_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=1,
        max_steps=20, learning_rate=1e-3, stop_on_collapse=True,
    )  # fmt: skip
    trainer = training_of(tiny_model, pairs(), config, probe=Probe([{"role": "user", "content": "who"}], 64))
    result = trainer.run(tmp_path)
    assert result.steps == 6
    assert "repeats itself" in result.stopped_early
    kept = [
        2 * index for index, weights in enumerate(asked) if torch.equal(weights, embedding(trainer.model))
    ]
    assert len(kept) == 1
    assert kept[0] < 6
    assert (f"The weights of step {kept[0]} were kept" in result.stopped_early) is (kept[0] > 0)


def collapse_callback(folder, watch=lambda _: []):
    from dpo_cli.events import ignore
    from dpo_cli.training.callbacks import CollapseCallback

    return CollapseCallback(ignore, watch, folder, stop=True)


def walk(callback, accuracies, *, total, every=1):
    """Drive the callback as the Trainer does: a step ends, then it may be logged. Weights are the step's number."""
    from dpo_cli.events import StepLogged

    model = torch.nn.Linear(1, 1, bias=False)
    control = SimpleNamespace(should_training_stop=False, should_save=False)
    args = SimpleNamespace(fp16=False)
    model.weight.data.fill_(0.0)
    callback.keep_initial(model)
    for step, accuracy in enumerate(accuracies, start=1):
        state = SimpleNamespace(global_step=step, max_steps=total)
        model.weight.data.fill_(float(step))
        callback.on_step_end(args, state, control, model=model)
        if step == 1 or step % every == 0:
            metrics = {"loss": 0.5, "grad_norm": 1.0, "rewards/accuracies": accuracy}
            callback.listen(StepLogged(step, total, 0.0, 0.0, metrics))
            callback.on_log(args, state, control, logs=metrics)
        if control.should_training_stop:
            break
    return model, step


def collapse_at(at):
    from dpo_cli.events import StepLogged

    def watch(event):
        ruined = isinstance(event, StepLogged) and event.step == at
        return [Warned("ruined", "It is ruined.", "", at, collapse=True)] if ruined else []

    return watch


@pytest.mark.parametrize(
    ("accuracies", "total", "every", "kept"),
    [
        # The figures of step 7 are the first ones of the weights after step 6.
        ([0, 0.6, 0.7, 0.8, 0.9, 0.9, 0.1, 0.1], 20, 1, 4),
        ([0, 0.9, 0.9, 0.8, 0.7, 0.7, 0.7, 0.1], 20, 1, 2),
        ([0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1], 20, 1, 6),
        # No better than the model before training, which prefers neither completion.
        ([0, 0.5, 0.5, 0.5, 0.4, 0.5, 0.5, 0.1], 20, 1, 0),
        # Logged every second step: weights wait for the next log, and no others are put by meanwhile.
        ([0, 0.6, 0, 0.9, 0, 0.9, 0, 0.1], 10, 2, 5),
    ],
)
def test_weights_are_kept_once_a_later_step_has_shown_that_they_are_good(
    tmp_path, accuracies, total, every, kept
):
    callback = collapse_callback(tmp_path, collapse_at(8))
    model, step = walk(callback, accuracies, total=total, every=every)
    assert step == 8  # ended by the very log that sounded the alarm
    said = callback.restore(model)
    assert model.weight.item() == kept
    assert (f"of step {kept}" if kept else "from before the first step") in said
    with callback:
        pass
    assert list(tmp_path.iterdir()) == []


def test_weights_that_cannot_be_kept_end_the_run_in_words(tmp_path):
    callback = collapse_callback(tmp_path / "there is no such folder")
    with pytest.raises(TrainingError, match="cannot be kept there during the run"):
        walk(callback, [0, 0.6], total=2)
