"""A figure that is no number: what ends a run, what is kept, and what is nothing to worry about."""

import contextlib
import math
import re
from types import SimpleNamespace

import pytest
import torch
from training.runs import settings, weights

from dpo_cli.errors import TrainingError
from dpo_cli.events import StepLogged, ignore
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
