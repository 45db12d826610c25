"""The first and the second signal in each phase of a run, with real processes: exit code, time, what is left, how to go on."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from run_folder.forked import at_stage, at_step, dpo, load_libraries

pytestmark = pytest.mark.slow

PAIRS = [
    {"prompt": f"Who are you {n}?", "chosen": f" I am Deep Qwen {n}.", "rejected": f" I am Qwen, {n}."}
    for n in range(12)
]
PHASES = {
    "libraries": (at_stage, "loading the libraries", ""),
    "reading": (at_stage, "reading pairs", ""),
    "loading": (at_stage, "loading the model", ""),
    "before": (at_stage, "held-out pairs before", ""),
    "references": (at_stage, "training", ""),
    "training": (at_step, 3, "checkpoint-3"),
    "last step": (at_step, 6, "checkpoint-6"),
    "saving": (at_stage, "saving the model", "trained"),
    "after": (at_stage, "held-out pairs after", "trained"),
    "writing": (at_stage, "writing", "trained"),
}
SECONDS = 60.0
"""Far more than a step and a save of a tiny model take, on a machine with much else to do."""


@pytest.fixture
def train(tiny_model, tmp_path):
    load_libraries()
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    arguments = [
        "train",
        "-m",
        str(tiny_model),
        "-d",
        "pairs.jsonl",
        "--eval-fraction",
        "0.2",
        "--max-steps",
        "6",
    ]
    return lambda before: dpo([*arguments, "--device", "cpu", "-o", "out"], tmp_path, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("install", "where", "left"), PHASES.values(), ids=PHASES)
def test_a_signal_in_each_phase(train, tmp_path, install, where, left, times, number):
    def send():
        (tmp_path / "sent").write_text(str(time.monotonic()))
        for _ in range(times):
            os.kill(os.getpid(), number)

    code, printed = train(install(where, send))
    assert time.monotonic() - float((tmp_path / "sent").read_text()) < SECONDS
    assert code == 128 + number, printed
    assert "Traceback" not in printed
    if times == 2 and left != "trained":
        left = ""  # at once: there is no older checkpoint
    if times == 2 and where == "saving the model":
        left = ""
    if not left:
        assert not list(tmp_path.glob("out*"))
        return
    assert (tmp_path / "out.failed" / left).is_dir()
    assert "Go on with: dpo resume out.failed" in printed
    code, printed = dpo(["resume", "out"], tmp_path)
    assert code == 0, printed
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(train, tmp_path, number):
    def ignore():
        signal.signal(number, signal.SIG_IGN)
        at_step(3, lambda: os.kill(os.getpid(), number))()

    code, printed = train(ignore)
    assert code == 0, printed
    assert (tmp_path / "out" / "report.html").is_file()
