"""Finished training is never deleted: signals, full disks and broken reports after it, each in a forked child of one interpreter."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess

import pytest
import torch
from run_folder.forked import at_stage, dpo, load_libraries
from safetensors.torch import load_file

PAIR = {"prompt": "Who are you?", "chosen": " I am Deep Qwen.", "rejected": " I am Qwen."}


@pytest.fixture
def train(tiny_model, tmp_path):
    load_libraries()
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
    arguments = [
        "train",
        "-m",
        str(tiny_model),
        "-d",
        "pairs.jsonl",
        "--eval-dataset",
        "pairs.jsonl",
        "--device",
        "cpu",
    ]

    def run(*more, before=lambda: None, out="out"):
        return dpo([*arguments, "--max-steps", "2", "-o", out, *more], tmp_path, before)

    return run


def trained(folder, tiny_model):
    """Whether a folder holds whole weights that training has changed."""
    new, old = load_file(folder / "model.safetensors"), load_file(tiny_model / "model.safetensors")
    return new.keys() == old.keys() and any(not torch.equal(new[name], old[name]) for name in new)


@pytest.mark.parametrize(
    ("number", "stage"),
    [
        (signal.SIGTERM, "held-out pairs after"),
        (signal.SIGINT, "writing"),
        (signal.SIGHUP, "held-out pairs after"),
    ],
)
def test_a_signal_after_training_keeps_the_trained_model_and_says_where(
    train, tmp_path, tiny_model, number, stage
):
    code, printed = train(before=at_stage(stage, lambda: os.kill(os.getpid(), number)))
    assert code == 128 + number
    assert not (tmp_path / "out").exists()
    assert trained(tmp_path / "out.failed", tiny_model)
    assert "The trained model is in out.failed." in printed
    assert "Traceback" not in printed


def test_a_hangup_that_is_ignored_stays_ignored(train, tmp_path):
    def nohup():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        at_stage("held-out pairs after", lambda: os.kill(os.getpid(), signal.SIGHUP))()

    code, _ = train(before=nohup)
    assert code in {0, 3}
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_signal_before_training_is_done_leaves_nothing(train, tmp_path):
    code, printed = train(before=at_stage("training", lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert code == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("out*"))
    assert "Traceback" not in printed


def broken(module, name, error):
    def install():
        def fail(*_, **__):
            raise error

        setattr(__import__(module, fromlist=[name]), name, fail)

    return install


@pytest.mark.parametrize(
    ("module", "name", "missing", "error"),
    [
        ("dpo_cli.report.html", "draw_curves", "report.html", ValueError("it broke")),
        ("dpo_cli.report.runs", "write_model_card", "README.md", OSError(28, "No space left on device")),
        ("dpo_cli.evaluation.compare", "compare_examinations", "comparison.json", MemoryError()),
    ],
)
def test_what_fails_after_training_is_a_line_and_costs_nothing_else(
    train, tmp_path, tiny_model, module, name, missing, error
):
    code, printed = train(before=broken(module, name, error))
    out = tmp_path / "out"
    assert trained(out, tiny_model)
    assert (out / "metrics.jsonl").is_file()
    assert not (out / missing).exists()
    assert code in {1, 3}  # 3: the verdict of two steps
    assert "failed after training, " in printed
    assert "Traceback" not in printed
    if isinstance(error, ValueError):
        assert "ValueError: it broke (see errors.log)" in printed
        assert "Traceback" in (out / "errors.log").read_text()
    others = {"report.html", "README.md", "comparison.json"} - {missing}
    assert all((out / other).exists() for other in others)


def test_a_second_evaluation_that_fails_is_a_line_and_no_success(train, tmp_path, tiny_model):
    def second():
        import dpo_cli.evaluation.examination as module

        right, calls = module.examine, []

        def examine(*args, **how):
            calls.append(1)
            if len(calls) == 2:
                raise ValueError("it broke")
            return right(*args, **how)

        module.examine = examine

    code, printed = train(before=second)
    assert code == 1
    assert trained(tmp_path / "out", tiny_model)
    assert "but some steps after training failed" in printed
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_backend_of_matplotlib_that_there_is_not_changes_nothing(train, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    code, _ = train()
    assert code in {0, 3}
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()


def limit_files(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own; its size in KiB is said when it is used."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(kib):
        done = subprocess.run(
            ["/bin/mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)], check=False
        )
        if done.returncode:
            pytest.skip("file systems cannot be mounted here")
        return place

    yield mount
    while place.is_mount():
        subprocess.run(["/bin/umount", str(place)], check=True)


def test_a_limit_on_the_size_of_files_is_found_before_training(train, tmp_path):
    code, printed = train(before=limit_files(100_000))
    assert code == 2
    assert re.search(
        r"out.partial: the model could not be written \(File too large; .* free, files of at most .*ulimit -f",
        printed,
    )
    assert "step 1" not in printed
    assert "Traceback" not in printed
    assert not list(tmp_path.glob("out*"))


def test_a_disk_that_is_too_small_is_refused_before_training(train, disk):
    place = disk(64)
    code, printed = train(out="disk/out")
    assert code == 2
    assert re.search(r"64.0 KiB|65,536 bytes|[\d,]+ bytes are free there, but this run writes", printed)
    assert "step 1" not in printed
    assert "Traceback" not in printed
    assert not list(place.glob("out*"))


@pytest.mark.parametrize("room", [0, 12_000])
def test_a_disk_that_fills_after_the_weights_keeps_them(train, disk, tiny_model, room):
    place = disk(1024)

    def fill():
        import shutil

        free = shutil.disk_usage(place).free
        (place / "filler").write_bytes(b"x" * max(0, free - room))

    code, printed = train(out="disk/out", before=at_stage("held-out pairs after", fill))
    assert trained(place / "out", tiny_model)
    assert code in {1, 3}
    assert "No space left on device" in printed
    assert "Traceback" not in printed
    for file in (place / "out").rglob("*.json"):
        json.loads(file.read_text())  # whole or not there


def test_a_disk_that_fills_while_training_still_takes_the_weights(train, disk, tiny_model):
    """The room that saving needs is kept from the trial on."""
    place = disk(2048)

    def fill():
        with (place / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096) == 4096:
                    pass
            except OSError:
                return

    code, printed = train(out="disk/out", before=at_first_step(fill))
    assert trained(place / "out", tiny_model), printed
    assert code in {0, 1, 3}
    assert "Traceback" not in printed


def at_first_step(action):
    def install():
        from dpo_cli.training.callbacks import EventCallback

        right = EventCallback.on_train_begin

        def begin(callback, *args, **how):
            action()
            right(callback, *args, **how)

        EventCallback.on_train_begin = begin

    return install


def test_a_checkpoint_that_the_disk_refuses_ends_the_run_in_words(train, disk):
    place = disk(800)
    code, printed = train("--save-steps", "1", out="disk/out")
    assert code == 1
    assert re.search(r"a checkpoint could not be written \(.*free\)", printed)
    assert "Traceback" not in printed
    assert not (place / "out").exists()


def test_a_checkpoint_that_nobody_asked_for_and_the_disk_refuses_costs_a_line(train, disk, tiny_model):
    place = disk(800)
    code, printed = train("--save-minutes", "0.00001", out="disk/out")
    assert code == 0, printed
    assert re.search(
        r"No checkpoint was saved: .*a checkpoint could not be written \(.*needed; .* free\)", printed
    )
    assert "The disk may fill up: with checkpoints this run writes up to" in printed
    assert trained(place / "out", tiny_model)


def test_saving_is_tried_before_training(train, tmp_path):
    code, printed = train(
        before=broken("dpo_cli.training.loop", "save_policy", OSError(30, "Read-only file system"))
    )
    assert code == 2
    assert "the model could not be written (Read-only file system" in printed
    assert not list(tmp_path.glob("out*"))
