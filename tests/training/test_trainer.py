from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from training.runs import pair, settings, training_of, weights

from dpo_cli.config import DPOTrainingConfig, load_settings
from dpo_cli.errors import ConfigError, ModelError, OutputError, TrainingError
from dpo_cli.events import Progress, RunFinished, RunStarted, StepLogged
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.training.trainer import DPOTrainerWrapper


def test_training_starts_at_log_2_and_learns(tiny_model, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("DPO_CLI_CACHE", str(tmp_path / "cache"))
    events = []
    trainer = DPOTrainerWrapper(
        str(tiny_model),
        train_dataset=pairs,
        training_config=settings(tmp_path / "out"),
        on_event=events.append,
    )
    result = trainer.train()
    losses = [record["loss"] for record in result.history]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < losses[0]
    assert result.steps == 4
    assert result.engine == "shared-prefix"
    kinds = [type(event) for event in events]
    assert kinds.index(RunStarted) < kinds.index(StepLogged) < kinds.index(RunFinished)
    assert Progress("reference log-probabilities", 8, 8) in events


def test_train_writes_the_folder_and_its_settings_reproduce_it(tiny_model, pairs, tmp_path):
    DPOTrainerWrapper(
        str(tiny_model), train_dataset=pairs, training_config=settings(tmp_path / "one")
    ).train()
    again = load_settings(
        DPOTrainingConfig, {"output_dir": str(tmp_path / "two")}, str(tmp_path / "one" / "config.toml")
    )
    assert again.model == str(tiny_model)
    DPOTrainerWrapper(again.model, train_dataset=pairs, training_config=again).train()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    lines = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 4]


def test_an_adapter_leaves_the_base_as_it_was_and_is_trained_further(tiny_model, pairs, tmp_path):
    base = weights(tiny_model)
    first = tmp_path / "first"
    DPOTrainerWrapper(
        str(tiny_model), train_dataset=pairs, training_config=settings(first, lora_rank=4)
    ).train()
    assert json.loads((first / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny_model
    )
    assert all(torch.equal(base[name], now) for name, now in weights(tiny_model).items())
    second = tmp_path / "second"
    result = DPOTrainerWrapper(str(first), train_dataset=pairs, training_config=settings(second)).train()
    # The reference is the adapter as it was, so the loss begins at log 2 again.
    assert result.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    before, after = weights(first), weights(second)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    stacked = DPOTrainerWrapper(
        str(first), train_dataset=pairs, training_config=settings(tmp_path / "third", lora_rank=4)
    )
    # A new adapter on top: the one below is the reference, and what is loaded again.
    assert stacked.train().history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    ids = torch.tensor([[1, 5, 9, 20]])
    again, _ = load_model_and_tokenizer(str(tmp_path / "third"), dtype="float32", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, stacked.model.eval()(ids).logits)


def test_a_reference_of_ones_own_is_used(tiny_model, pairs, tmp_path):
    reference, _ = load_model_and_tokenizer(str(tiny_model), dtype="float32")
    torch.manual_seed(3)
    for weight in reference.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.05)
    trainer = DPOTrainerWrapper(
        str(tiny_model),
        train_dataset=pairs,
        training_config=settings(tmp_path / "out", max_steps=1),
        ref_model=reference,
    )
    assert abs(trainer.train().history[0]["loss"] - math.log(2)) > 1e-4


def test_save_writes_elsewhere_and_only_after_training(tiny_model, pairs, tmp_path):
    trainer = DPOTrainerWrapper(
        str(tiny_model), train_dataset=pairs, training_config=settings(tmp_path / "out", max_steps=1)
    )
    with pytest.raises(TrainingError, match="call train"):
        trainer.save()
    trainer.train()
    assert trainer.save(str(tmp_path / "copy")) == tmp_path / "copy"
    one, two = weights(tmp_path / "out"), weights(tmp_path / "copy")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_max_samples_limits_the_pairs(tiny_model, pairs, tmp_path):
    events = []
    trainer = DPOTrainerWrapper(
        str(tiny_model),
        train_dataset=pairs,
        training_config=settings(tmp_path / "out", max_steps=1),
        max_samples=3,
        on_event=events.append,
    )
    trainer.train()
    assert next(e for e in events if isinstance(e, RunStarted)).pairs == 3


def test_pairs_come_from_one_place(tiny_model, pairs):
    with pytest.raises(ConfigError, match="one of them"):
        DPOTrainerWrapper(str(tiny_model))
    with pytest.raises(ConfigError, match="one of them"):
        DPOTrainerWrapper(str(tiny_model), dataset_name="x.jsonl", train_dataset=pairs)


def test_pairs_can_come_from_a_file(tiny_model, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(pair(number)) for number in range(4)))
    trainer = DPOTrainerWrapper(
        str(tiny_model), str(file), training_config=settings(tmp_path / "out", max_steps=1)
    )
    assert trainer.train().steps == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said(tiny_model, pairs):
    with pytest.raises(ModelError, match="neither CUDA nor MPS"):
        DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, use_gpu=True)


def test_the_output_folder_is_refused_before_training(tiny_model, pairs, tmp_path):
    trainer = DPOTrainerWrapper(
        str(tiny_model), train_dataset=pairs, training_config=settings(tiny_model, overwrite=True)
    )
    with pytest.raises(OutputError, match="is or contains the input model"):
        trainer.train()


def test_checkpoints_and_evaluation_follow_their_intervals(tiny_model, pairs, tmp_path):
    config = settings(tmp_path / "out", save_steps=2, eval_steps=2, save_total_limit=1)
    result = DPOTrainerWrapper(
        str(tiny_model), train_dataset=pairs, eval_dataset=pairs, training_config=config
    ).train()
    assert [r["step"] for r in result.history if "eval_loss" in r] == [2, 4]
    assert [p.name for p in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-4"]


def test_dropout_in_new_adapters_takes_effect_and_only_there(tiny_model, pairs, tmp_path):
    """TRL switches all dropout off unless told otherwise, adapters' included."""
    loaded = load_model_and_tokenizer(str(tiny_model), dtype="float32")
    loaded[0].add_module("its_own", torch.nn.Dropout(0.3))
    seen = {}

    def listen(event):
        if isinstance(event, StepLogged):
            modules = loaded[0].named_modules()
            seen.update({name: m.p for name, m in modules if isinstance(m, torch.nn.Dropout)})

    config = settings(tmp_path / "out", lora_rank=4, lora_dropout=0.5)
    result = training_of(tiny_model, pairs, config, policy=loaded, on_event=listen).run(tmp_path)
    assert seen.pop("its_own") == 0
    assert set(seen.values()) == {0.5}
    assert result.engine == "trl"
    assert "dropout" in result.to_json()["fallback_reason"]


def test_without_dropout_in_adapters_the_engine_runs_and_there_is_no_reason(tiny_model, pairs, tmp_path):
    config = settings(tmp_path / "out", lora_rank=4, max_steps=1)
    result = DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config).train()
    found = result.to_json()
    assert found["engine"] == "shared-prefix"
    assert found["fallback_reason"] is None
    assert found["engine_forwards"] >= 1
    assert found["trl_forwards"] == {}


@pytest.mark.parametrize(("eval_steps", "computed"), [(None, [8]), (2, [8, 3])])
def test_held_out_pairs_cost_references_only_where_they_are_evaluated(
    tiny_model, pairs, tmp_path, monkeypatch, eval_steps, computed
):
    monkeypatch.setenv("DPO_CLI_CACHE", str(tmp_path / "cache"))
    held_out = Dataset.from_list([pair(number) for number in range(100, 103)])
    events = []
    DPOTrainerWrapper(
        str(tiny_model),
        train_dataset=pairs,
        eval_dataset=held_out,
        training_config=settings(tmp_path / "out", eval_steps=eval_steps),
        on_event=events.append,
    ).train()
    progress = [e for e in events if isinstance(e, Progress) and e.stage == "reference log-probabilities"]
    assert [e.total for e in progress if e.done == e.total] == computed


def test_a_preset_that_the_caller_has_applied_is_not_read_again(tiny_model, pairs, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "preset.toml").write_text("[train]\nmax_length = 77\n")
    config = settings(tmp_path / "out", max_steps=1)
    alone = DPOTrainerWrapper(str(folder), train_dataset=pairs, training_config=config)
    assert (alone.config.max_length, alone.preset) == (77, {"max_length": 77})
    events = []
    told = training_of(folder, pairs, config, preset={"learning_rate": 1e-3}, on_event=events.append)
    assert told.config == config
    told.run(tmp_path)
    assert (
        next(e for e in events if isinstance(e, RunStarted)).note
        == "preset of the model: learning_rate 0.001"
    )


@pytest.mark.parametrize("wanted", [True, False])
def test_progress_bars_are_as_they_were_after_a_run(tiny_model, pairs, tmp_path, wanted):
    from datasets.utils import logging

    before = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if wanted else logging.disable_progress_bar)()
    config = settings(tmp_path / "out", max_steps=1)
    try:
        DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config).train()
        assert logging.is_progress_bar_enabled() is wanted
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


def test_pairs_in_memory_that_are_a_stream_need_no_setting(tiny_model, pairs, tmp_path):
    trainer = DPOTrainerWrapper(
        str(tiny_model),
        train_dataset=pairs.to_iterable_dataset(),
        training_config=settings(tmp_path / "out", max_steps=2),
    )
    assert trainer.train().history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_an_adapter_as_reference_is_refused_in_words(tiny_model, pairs, tmp_path):
    adapted = get_peft_model(
        load_model_and_tokenizer(str(tiny_model))[0], LoraConfig(r=2, target_modules="all-linear")
    )
    with pytest.raises(ModelError, match="ref_model: is an adapter"):
        DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, ref_model=adapted)


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_where_the_length_of_a_batch_scales_positions_the_reference_sees_the_policys_batch(
    lora_rank, tiny_model, tmp_path
):
    """A stored reference would have the scale of another batch, and the first loss would not be log 2."""
    scaled = tmp_path / "scaled"
    shutil.copytree(tiny_model, scaled)
    config = json.loads((scaled / "config.json").read_text())
    config |= {"max_position_embeddings": 16}
    config["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 8.0}
    (scaled / "config.json").write_text(json.dumps(config))
    uneven = []
    for number in range(8):
        row = pair(number)
        row["chosen"][0]["content"] += " I am Qwen." * (5 * number)
        uneven.append(row)
    events = []
    result = DPOTrainerWrapper(
        str(scaled),
        train_dataset=Dataset.from_list(uneven),
        training_config=settings(tmp_path / "out", lora_rank=lora_rank),
        on_event=events.append,
    ).train()
    assert result.engine == "shared-prefix"
    assert result.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert not [event for event in events if isinstance(event, Progress)]
