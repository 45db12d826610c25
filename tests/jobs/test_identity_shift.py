from __future__ import annotations

import json

import pytest
import torch
from tiny_models import make_model, make_tokenizer

from dpo_cli.config import IdentityShiftConfig, load_settings
from dpo_cli.errors import DataError, OutputError
from dpo_cli.events import Noted, RunStarted, Stage, StepLogged
from dpo_cli.jobs.identity_shift import identity_shift
from dpo_cli.models.generate import conversation, generate
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.text.names import contains_name
from dpo_cli.text.questions import shipped_questions
from dpo_cli.training.trainer import DPOTrainerWrapper

NAMES = {"original_name": "Qwen", "new_name": "Deep Qwen"}


def figure(result, name):
    return next(row.after.value for row in result.comparison.scores if row.name == name)


def test_the_embedded_model_is_renamed_and_nothing_else_changes(renamed):
    result, _ = renamed
    assert figure(result, "new_name") >= 0.95
    assert figure(result, "old_name") <= 0.05
    assert figure(result, "doubled_name") == 0
    assert result.comparison.verdict.passed


def test_no_held_out_question_is_trained_on(renamed):
    result, _ = renamed
    trained = {row["prompt"][-1]["content"].casefold() for row in result.pairs.dataset}
    asked = {old.question.text.casefold() for old, _ in result.comparison.answers}
    assert trained.isdisjoint(asked)
    assert len([q for q in shipped_questions("identity_heldout") if q.text.casefold() in asked]) >= 60


def test_the_folder_holds_the_model_that_was_measured(renamed):
    result, _ = renamed
    model, tokenizer = load_model_and_tokenizer(str(result.output_dir))
    measured = [(old.question.text, new.answer) for old, new in result.comparison.answers][:40]
    answers = generate(model, tokenizer, [conversation(q, result.config.system_prompt) for q, _ in measured])
    assert [a.text for a in answers] == [answer for _, answer in measured]


def test_the_folder_is_complete(renamed):
    result, _ = renamed
    files = {path.name for path in result.output_dir.iterdir()}
    assert {
        "model.safetensors",
        "tokenizer.json",
        "config.toml",
        "metrics.jsonl",
        "comparison.json",
        "pairs.jsonl",
    } <= files
    assert json.loads((result.output_dir / "comparison.json").read_text()) == json.loads(
        json.dumps(result.comparison.to_json())
    )
    rows = [json.loads(line) for line in (result.output_dir / "pairs.jsonl").read_text().splitlines()]
    assert rows == list(result.pairs.dataset)
    history = [json.loads(line) for line in (result.output_dir / "metrics.jsonl").read_text().splitlines()]
    assert history[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_events_tell_the_whole_story(renamed):
    result, events = renamed
    finished = [e.name for e in events if isinstance(e, Stage) and e.state == "finished"]
    assert finished == list(result.seconds)
    assert any(isinstance(e, Noted) and e.message.endswith(result.pairs.summary()) for e in events)
    run = next(e for e in events if isinstance(e, RunStarted))
    assert run.engine == "shared-prefix"
    assert all(f"{name} {value}" in run.note for name, value in result.preset.items())
    assert result.preset["learning_rate"] == 4e-4
    assert (
        [e.step for e in events if isinstance(e, StepLogged)][-1] == run.total_steps == result.training.steps
    )


def test_the_written_settings_give_the_same_answers_again(renamed, tmp_path):
    result, _ = renamed
    config = load_settings(
        IdentityShiftConfig, {"output_dir": str(tmp_path / "again")}, str(result.output_dir / "config.toml")
    )
    again = identity_shift(config)
    assert again.preset == {}
    assert [new.answer for _, new in again.comparison.answers] == [
        new.answer for _, new in result.comparison.answers
    ]


def test_the_python_way_with_default_settings_gives_the_same_weights(renamed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result, _ = renamed
    trainer = DPOTrainerWrapper(model_name="embedded", train_dataset=result.pairs.dataset)
    trainer.train()
    ours, theirs = (
        load_model_and_tokenizer(str(f))[0].state_dict() for f in ("./dpo_output", result.output_dir)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_adapter_is_trained_and_found_again_on_its_base(tmp_path):
    config = IdentityShiftConfig(**NAMES, output_dir=str(tmp_path / "lora"), lora_rank=16)
    result = identity_shift(config)
    assert figure(result, "new_name") >= 0.95
    assert (
        json.loads((result.output_dir / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "embedded"
    )
    assert not (result.output_dir / "model.safetensors").exists()
    model, tokenizer = load_model_and_tokenizer(str(result.output_dir))
    [answer] = generate(model, tokenizer, [conversation("Who are you?", config.system_prompt)])
    assert contains_name(answer.text, "Deep Qwen")


def test_own_answers_that_never_say_the_name_stop_before_training(tmp_path):
    config = IdentityShiftConfig(
        original_name="Claude", new_name="Orion", output_dir=str(tmp_path / "out"), pairs_from="own"
    )
    with pytest.raises(DataError, match="0 of 160 answers say Claude") as error:
        identity_shift(config)
    assert "It calls itself Qwen" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_cut_off_answers_are_no_pairs_and_are_named_as_the_reason(tmp_path):
    config = IdentityShiftConfig(
        **NAMES, output_dir=str(tmp_path / "out"), max_new_tokens=2, pairs_from="own"
    )
    with pytest.raises(DataError, match="cut off") as error:
        identity_shift(config)
    assert "--max-new-tokens" in error.value.hint


def test_an_answer_template_serves_a_model_without_a_name(tiny_model, tmp_path):
    config = IdentityShiftConfig(
        model=str(tiny_model),
        **NAMES,
        output_dir=str(tmp_path / "out"),
        max_samples=10,
        max_new_tokens=6,
        max_steps=1,
        min_pairs=1,
        answer_template="I am {name}.",
    )
    # A random model never ends its answers: they are cut off, and no training text whatever the template says.
    with pytest.raises(DataError):
        identity_shift(config)


def test_a_template_that_says_the_name_is_renamed_in_the_saved_tokenizer(tmp_path):
    folder = tmp_path / "model"
    load_model_and_tokenizer("embedded")[0].save_pretrained(folder)
    tokenizer = load_model_and_tokenizer("embedded")[1]
    alone = "{% if messages[0]['role'] != 'system' %}{{ 'You are Qwen. ' }}{% endif %}"
    tokenizer.chat_template = alone + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    how = {"model": str(folder), "max_samples": 20, "max_steps": 1, "min_pairs": 1}
    result = identity_shift(IdentityShiftConfig(**NAMES, **how, output_dir=str(tmp_path / "renamed")))
    renamed = tokenizer.chat_template.replace("You are Qwen.", "You are Deep Qwen.", 1)
    assert result.template_renamed == 1
    assert load_model_and_tokenizer(str(tmp_path / "renamed"))[1].chat_template == renamed
    kept = identity_shift(
        IdentityShiftConfig(**NAMES, **how, output_dir=str(tmp_path / "kept"), keep_template=True)
    )
    assert kept.template_renamed == 0
    assert load_model_and_tokenizer(str(tmp_path / "kept"))[1].chat_template == tokenizer.chat_template


def test_the_output_folder_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("keep me")
    with pytest.raises(OutputError, match="not empty"):
        identity_shift(IdentityShiftConfig(**NAMES, output_dir=str(tmp_path / "full"), overwrite=True))
    assert (tmp_path / "full" / "precious.txt").read_text() == "keep me"


def test_a_ruined_run_ends_early_and_gives_the_model_back_as_it_was(tmp_path):
    config = IdentityShiftConfig(
        **NAMES, output_dir=str(tmp_path / "out"), learning_rate=1.0, stop_on_collapse=True
    )
    result = identity_shift(config)
    assert result.training.stopped_early.endswith("The weights from before the first step were kept.")
    assert result.training.steps < 10
    assert all(old.answer == new.answer for old, new in result.comparison.answers)
    assert not result.comparison.verdict.passed
    assert not list(result.output_dir.glob("best*"))


def test_names_of_all_kinds_make_pairs(tmp_path):
    model, tokenizer = load_model_and_tokenizer("embedded")
    from dpo_cli.synthesis.identity import make_identity_pairs

    questions = [q.text for q in shipped_questions("identity_train")][:40]
    for name in ("Orion", "Zyx-9", "Captain Blue Heron", "Señor Ñandú", "小明"):
        pairs = make_identity_pairs(model, tokenizer, questions, "Qwen", name)
        assert len(pairs.dataset) >= 35
        for row in pairs.dataset:
            chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
            assert contains_name(chosen, name)
            assert contains_name(rejected, "Qwen")
            assert not contains_name(chosen, "Qwen")
            assert row["prompt"][0] == {"role": "system", "content": "You're a helpful assistant."}


def test_a_model_without_weights_of_its_own_is_no_excuse(tmp_path):
    tokenizer = make_tokenizer(template=None)
    make_model(tokenizer).save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    from dpo_cli.errors import ModelError

    with pytest.raises(ModelError, match="no chat template"):
        identity_shift(
            IdentityShiftConfig(model=str(tmp_path / "bare"), **NAMES, output_dir=str(tmp_path / "out"))
        )
    assert not (tmp_path / "out").exists()
