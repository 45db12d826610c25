"""Runs that are killed or interrupted go on: the same files, one line that says how, and never another run by mistake."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal

import pytest
from run_folder.forked import at_stage, at_step, dpo, load_libraries

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.errors import ConfigError, OutputError, RunFinishedAlready
from dpo_cli.run_folder import OutputFolder
from dpo_cli.run_folder.checkpoints import new_checkpoint

PAIRS = [
    {"prompt": f"Who are you {n}?", "chosen": f" I am Deep Qwen {n}.", "rejected": f" I am Qwen, {n}."}
    for n in range(12)
]
RUN = ["--eval-fraction", "0.2", "--max-steps", "6", "--gradient-accumulation-steps", "2", "--device", "cpu"]


@pytest.fixture
def place(tiny_model, tmp_path):
    """Makes folders in which a run of the same command gives the same files."""
    load_libraries()

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copytree(tiny_model, folder / "m")
        (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
        return folder

    return make


def train(cwd, *more, before=lambda: None):
    return dpo(["train", "-m", "m", "-d", "pairs.jsonl", "-o", "out", *RUN, *more], cwd, before)


def kill(number):
    return lambda: os.kill(os.getpid(), number)


def results(folder):
    """What must be equal: weights by SHA-256, figures without times."""
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    figures = [
        {k: v for k, v in record.items() if not k.endswith(("_runtime", "_per_second"))} for record in history
    ]
    return {
        "weights": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "comparison": (folder / "comparison.json").read_text(),
        "data": (folder / "data.json").read_text(),
        "figures": figures,
        "files": sorted(path.name for path in folder.iterdir()),
    }


@pytest.fixture
def whole(place):
    folder = place("whole")
    assert train(folder)[0] == 0
    return results(folder / "out")


def test_signals_and_kills_in_turn_end_in_the_same_files(place, whole):
    cwd = place("torn")
    code, printed = train(cwd, before=at_step(2, kill(signal.SIGTERM)))
    assert code == 128 + signal.SIGTERM, printed
    assert "SIGTERM: the run is saved and ends after this step" in printed
    assert "The checkpoints written so far are in out.failed. Go on with: dpo resume out.failed" in printed
    code, printed = dpo(["resume", "out.failed"], cwd, at_step(4, kill(signal.SIGINT)))
    assert code == 128 + signal.SIGINT, printed
    assert "Going on from checkpoint-2 (step 2)" in printed
    code, printed = train(cwd, "--resume", before=at_step(5, kill(signal.SIGKILL)))
    assert code == -signal.SIGKILL
    assert (cwd / "out.partial" / "checkpoint-4").is_dir()
    code, printed = train(cwd, "--resume", before=at_stage("held-out pairs after", kill(signal.SIGKILL)))
    assert code == -signal.SIGKILL
    assert (cwd / "out.partial" / "trained").is_dir()
    code, printed = dpo(["resume", "out"], cwd)
    assert code == 0, printed
    assert "step 6/6" not in printed, "it was trained again"
    assert results(cwd / "out") == whole
    assert sorted(path.name for path in cwd.iterdir()) == ["m", "out", "pairs.jsonl", "printed"]
    assert "after step 2, 4; continued from there" in (cwd / "out" / "report.html").read_text()
    code, printed = dpo(["resume", "--json"], cwd)
    assert code == 2
    assert "there is no run of dpo" in printed
    code, printed = train(cwd, "--resume", "--json")
    assert (code, "this run is finished" in printed) == (0, True)


def test_a_second_signal_ends_at_once_and_the_older_checkpoint_is_whole(place):
    cwd = place("twice")

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    code, printed = train(cwd, "--save-steps", "2", before=at_step(3, twice))
    assert code == 128 + signal.SIGTERM, printed
    assert [p.name for p in (cwd / "out.failed").glob("checkpoint-*")] == ["checkpoint-2"]
    assert "Go on with: dpo resume out.failed" in printed
    code, printed = train(cwd, "--resume", "--save-steps", "2", "--learning-rate", "1e-3")
    assert code == 2
    assert "--resume: --learning-rate is 0.001, but the run began with 5e-05" in printed
    assert (cwd / "out.failed").is_dir()


CHANGED = {
    "model": "another", "dataset": "other.jsonl", "eval_fraction": 0.3, "max_samples": 5, "beta": 0.3,
    "loss_type": ("hinge",), "label_smoothing": 0.1, "ld_alpha": 0.5, "use_weighting": True, "learning_rate": 1e-4,
    "num_train_epochs": 2.0, "max_steps": 7, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4,
    "lr_scheduler_type": "cosine", "warmup_steps": 3.0, "warmup_ratio": 0.1, "optim": "sgd", "weight_decay": 0.1,
    "max_grad_norm": 0.5, "max_length": 512, "truncation_mode": "keep_end", "seed": 7, "lora_rank": 8,
    "lora_alpha": 4.0, "lora_dropout": 0.1, "stop_on_collapse": True, "logging_steps": 3, "eval_steps": 5,
    "dtype": "bfloat16", "system_prompt": "Be brief.", "max_new_tokens": 7, "format": "trl-standard",
    "trl": {"disable_dropout": False}, "min_reward_accuracy": 0.9, "chat_template": "chatml",
}  # fmt: skip
FASTER = {
    "engine": "trl",
    "device": "cpu",
    "save_steps": 3,
    "gradient_checkpointing": True,
    "generation_batch_size": 4,
}


@pytest.fixture
def interrupted(tmp_path):
    """The folder of a run that was interrupted after a checkpoint."""

    def stop():
        with OutputFolder(str(tmp_path / "out"), DPOTrainingConfig()) as folder:
            with new_checkpoint(folder.staging, 3) as inside:
                (inside / "model.safetensors").write_text("weights")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    return tmp_path / "out"


def go_on(place, anyway=False, notice=lambda _: None, **changes):
    settings = DPOTrainingConfig().model_copy(update=changes)
    return OutputFolder(str(place), settings, go_on=True, anyway=anyway, notice=notice)


@pytest.mark.parametrize("anyway", [False, True])
@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_setting_is_refused_by_name(interrupted, name, anyway):
    with pytest.raises(ConfigError) as caught:
        go_on(interrupted, anyway=anyway, **{name: CHANGED[name]})
    flag = "--" + name.replace("_", "-")
    assert caught.value.message.startswith(f"--resume: {flag} is ")
    assert caught.value.message.count("\n") == 0


@pytest.mark.parametrize("name", FASTER)
def test_what_changes_only_speed_or_output_may_change_when_it_is_said(interrupted, name):
    with pytest.raises(ConfigError) as caught:
        go_on(interrupted, **{name: FASTER[name]})
    assert "--resume-anyway" in caught.value.hint
    told = []
    assert go_on(interrupted, anyway=True, notice=told.append, **{name: FASTER[name]}).left is not None
    assert any("but the run began with" in line for line in told)


@pytest.mark.parametrize(
    "change",
    [{"save_minutes": 1.0}, {"save_total_limit": 1}, {"signal_grace": 1.0}, {"overwrite": True}],
    ids=str,
)
def test_when_a_run_saves_may_change_without_a_word(interrupted, change):
    assert go_on(interrupted, **change).left is not None


def test_all_differences_are_told_at_once(interrupted):
    with pytest.raises(ConfigError) as caught:
        go_on(interrupted, beta=0.5, seed=1)
    assert caught.value.message.splitlines() == [
        "--resume: --beta is 0.5, but the run began with 0.2",
        "--resume: --seed is 1, but the run began with 42",
    ]


def test_a_damaged_checkpoint_is_skipped_in_words_and_kept_aside(interrupted):
    failed = interrupted.with_name("out.failed")
    with new_checkpoint(failed, 5) as inside:
        (inside / "model.safetensors").write_text("newer")
    (failed / "checkpoint-5" / "model.safetensors").write_text("damag")
    told = []
    with go_on(interrupted, notice=told.append) as folder:
        assert folder.checkpoint.step == 3
        assert (folder.staging / "checkpoint-5.damaged").is_dir()
    assert any("checkpoint-5 was skipped: model.safetensors was damaged" in line for line in told)
    assert any("Going on from checkpoint-3 (step 3)" in line for line in told)
    assert {path.name for path in interrupted.iterdir()} == {"config.toml", "manifest.json"}


def test_where_no_checkpoint_is_whole_nothing_begins_anew_by_itself(interrupted):
    failed = interrupted.with_name("out.failed")
    (failed / "checkpoint-3" / "model.safetensors").unlink()
    with pytest.raises(OutputError) as caught:
        go_on(interrupted)
    assert "there is no checkpoint that is whole" in caught.value.message
    assert "checkpoint-3 was skipped: model.safetensors is missing" in caught.value.message


def test_what_is_worked_on_is_not_taken(interrupted):
    with go_on(interrupted), pytest.raises(OutputError, match="another run is writing to it"):
        go_on(interrupted).__enter__()


def test_a_finished_run_is_finished_and_another_one_is_not_it(tmp_path):
    with OutputFolder(str(tmp_path / "out"), DPOTrainingConfig()):
        pass
    with pytest.raises(RunFinishedAlready, match="this run is finished"):
        go_on(tmp_path / "out")
    with pytest.raises(OutputError, match=r"with other settings \(--beta\)"):
        go_on(tmp_path / "out", beta=0.5)


def test_resume_begins_where_there_is_nothing(tmp_path):
    assert go_on(tmp_path / "out").left is None


def test_a_run_beside_says_what_it_found_and_how_to_go_on(interrupted):
    interrupted.with_name("out.failed").rename(interrupted.with_name("out.partial"))
    told = []
    with OutputFolder(str(interrupted), DPOTrainingConfig(), notice=told.append):
        pass
    assert "The checkpoints written so far are in" in told[0]
    assert f"Go on with: dpo resume {interrupted}.failed" in told[0]
