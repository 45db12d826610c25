"""A figure that is no number: what ends a run, what is kept, and what is nothing to worry about."""

import contextlib
import math
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from training.runs import settings, weights

from dpo_cli.config import AskConfig, CompareConfig
from dpo_cli.errors import ModelError, TrainingError
from dpo_cli.events import StepLogged, ignore
from dpo_cli.jobs.compare import ask, compare
from dpo_cli.jobs.train import train
from dpo_cli.training.alarms import Alarms
from dpo_cli.training.trainer import DPOTrainerWrapper


def poisoned_at(step):
    """A listener that spoils the weights once that step was logged, and the place to put the trainer."""
    trainer = []

    def listen(event):
        if isinstance(event, StepLogged) and event.step == step:
            trainer[0].model.get_input_embeddings().weight.data.fill_(math.nan)

    return listen, trainer


def test_a_loss_that_is_no_number_ends_the_run_with_the_reason(tiny_model, pairs, tmp_path):
    listen, place = poisoned_at(2)
    config = settings(tmp_path / "out", logging_steps=1, max_steps=10)
    trainer = DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config, on_event=listen)
    place.append(trainer)
    with pytest.raises(TrainingError, match="step 3: the loss is nan") as error:
        trainer.train()
    assert "--stop-on-collapse" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_keeps_the_best_weights_where_that_was_asked_for(
    tiny_model, pairs, tmp_path
):
    listen, place = poisoned_at(7)
    config = settings(tmp_path / "out", logging_steps=1, max_steps=20, stop_on_collapse=True)
    trainer = DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config, on_event=listen)
    place.append(trainer)
    result = trainer.train()
    assert result.steps == 8
    assert result.stopped_early.startswith("Step 8: loss is nan; the weights are ruined.")
    assert re.search(r"The weights of step [246] were kept\.$", result.stopped_early)
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "out").values())
    assert not list((tmp_path / "out").glob("best*"))


@pytest.mark.parametrize(("loss", "ended"), [(0.5, False), (math.nan, True)])
def test_a_gradient_that_overflows_in_fp16_ends_no_run(tmp_path, loss, ended):
    """The scaler lowers its scale until gradients fit; those steps are left out."""
    from dpo_cli.training.callbacks import CollapseCallback

    logs = {"loss": loss, "grad_norm": math.inf}
    callback = CollapseCallback(ignore, Alarms(scaled_loss=True), tmp_path, stop=False)
    callback.listen(StepLogged(2, 10, 0.0, 0.0, logs))
    arguments, state = SimpleNamespace(fp16=True), SimpleNamespace(global_step=2)
    control = SimpleNamespace(should_training_stop=False)
    with pytest.raises(TrainingError, match="loss is nan") if ended else contextlib.nullcontext():
        callback.on_log(arguments, state, control, logs=logs)
    assert {warning.name for warning in callback.warnings} == ({"not_finite"} if ended else set())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fp16 is for GPUs")
def test_an_fp16_run_survives_the_search_for_a_scale(tiny_model, pairs, tmp_path):
    config = settings(tmp_path / "out", dtype="float16", logging_steps=1, max_steps=8)
    result = DPOTrainerWrapper(
        str(tiny_model), train_dataset=pairs, training_config=config, use_gpu=True
    ).train()
    assert result.steps == 8
    assert result.warnings == []


@pytest.mark.parametrize(("steps", "decay"), [(1, 1e300), (5, 1e30)])
@pytest.mark.parametrize("lora_rank", [None, 4])
def test_weights_that_become_no_numbers_between_two_logged_steps_are_never_written(
    tiny_model, pairs, tmp_path, steps, decay, lora_rank
):
    config = settings(
        tmp_path / "out", logging_steps=1000, max_steps=steps, weight_decay=decay, learning_rate=1.0,
        save_steps=1, lora_rank=lora_rank,
    )  # fmt: skip
    trainer = DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config)
    with pytest.raises(TrainingError, match=r"step [1-5]: .*the weights are ruined"):
        trainer.train()
    assert not (tmp_path / "out").exists()
    for file in tmp_path.rglob("*.safetensors"):  # checkpoints of finite weights may be kept
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values()), file


def test_the_last_step_may_ruin_weights_and_the_kept_ones_are_written(tiny_model, pairs, tmp_path):
    config = settings(
        tmp_path / "out", logging_steps=1000, max_steps=1, weight_decay=1e300, learning_rate=1.0, stop_on_collapse=True
    )  # fmt: skip
    trainer = DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config)
    result = trainer.train()
    assert "The weights from before the first step were kept." in result.stopped_early
    kept, before = weights(tmp_path / "out"), weights(tiny_model)
    assert all(torch.equal(kept[name], before[name]) for name in before)


def test_a_step_that_is_not_logged_is_looked_at(tiny_model, pairs, tmp_path):
    config = settings(tmp_path / "out", logging_steps=1000, max_steps=40)
    trainer = DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config)
    steps = []

    def poison(model, *_):
        steps.append(1)
        if len(steps) == 20:
            model.get_input_embeddings().weight.data.fill_(math.nan)

    trainer.model.register_forward_pre_hook(poison)
    with pytest.raises(TrainingError, match=r"step \d+: the loss is nan") as error:
        trainer.train()
    assert int(re.search(r"step (\d+)", str(error.value))[1]) < 25


def test_a_model_of_weights_that_are_no_numbers_is_neither_asked_nor_trained(tiny_model, tmp_path):
    folder = tmp_path / "ruined"
    shutil.copytree(tiny_model, folder)
    tensors = load_file(folder / "model.safetensors")
    name = min(tensors)
    tensors[name].view(-1)[3] = math.inf
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for use in (
        lambda: ask(AskConfig(model=str(folder), question=("Who?",))),
        lambda: compare(CompareConfig(before=str(tiny_model), after=str(folder), question=("Who?",))),
        lambda: train(settings(tmp_path / "out", model=str(folder))),
    ):
        with pytest.raises(
            ModelError, match=f"1 weight tensor contains NaN or infinity, {re.escape(name)} first"
        ):
            use()
    assert not (tmp_path / "out").exists()
