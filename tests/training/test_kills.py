"""SIGKILL while a run trains and saves: at every file operation of a save, at random moments, and a hundred times in one run.

`make test-kills` runs these and prints how many points were tried; `KILLS=25` tries so many of them, evenly taken.
"""

from __future__ import annotations

import builtins
import io
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from killing import kill_before
from training.test_resume import BASE, run

from dpo_cli.run_folder import checkpoints
from dpo_cli.training.checkpoint import CheckpointedTrainer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

OPERATIONS = ("mkdir", "open", "rename", "replace", "unlink", "rmdir", "fsync", "scandir", "link", "write")
SETTINGS = BASE | {"max_steps": 6, "save_steps": 2, "save_total_limit": 2, "stop_on_collapse": True}


def in_child(work, answer):
    """Do work in a forked child that may be killed; its exit code, and the text that it wrote into `answer`."""
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            result = work()
            answer.write_text("|".join(map(str, result[:2])))
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, answer.read_text() if answer.exists() else None


def killed_in_save(step, point):
    """Count the file operations of the save after a step, and end the process before the one of a number."""
    save = CheckpointedTrainer._save_checkpoint

    def watched(trainer, *arguments):
        if trainer.state.global_step != step:
            return save(trainer, *arguments)
        count, counted = kill_before(point, OPERATIONS)
        io.open = builtins.open = counted(io.open)
        checkpoints.exchange = counted(checkpoints.exchange)
        result = save(trainer, *arguments)
        Path(trainer.checkpoints.folder, "operations").write_text(str(count[0]))
        return result

    CheckpointedTrainer._save_checkpoint = watched


def gone_on_with(model, place, changes, answer):
    """Exit code and ending of a run that goes on with a killed one; its folder goes if it came to its end."""
    checkpoints.remove_unfinished(place)
    found = in_child(lambda: run(model, place, changes, resume=True), answer)
    if found[0] == 0:
        shutil.rmtree(place)
    return found


def some(points):
    """All points, or as many as `KILLS` says."""
    wanted = int(os.environ.get("KILLS", len(points)))
    return points if wanted >= len(points) else [points[i * len(points) // wanted] for i in range(wanted)]


@pytest.fixture
def whole(tiny_model, tmp_path):
    """What a run that is never stopped ends with."""
    run(tiny_model, tmp_path / "first", SETTINGS)  # references are in the cache from now on
    code, ending = in_child(lambda: run(tiny_model, tmp_path / "whole", SETTINGS), tmp_path / "answer")
    assert code == 0
    return ending


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_a_kill_at_every_file_operation_of_a_save(tiny_model, tmp_path, adapter, capsys):
    changes = SETTINGS | ({"lora_rank": 4, "lora_dropout": 0.1} if adapter else {})
    run(tiny_model, tmp_path / "first", changes)
    code, ending = in_child(lambda: run(tiny_model, tmp_path / "whole", changes), tmp_path / "answer")
    assert code == 0

    def counting():
        killed_in_save(4, 0)
        return run(tiny_model, tmp_path / "counted", changes)

    assert in_child(counting, tmp_path / "answer") == (0, ending)
    operations = int((tmp_path / "counted" / "operations").read_text())
    points = some(range(1, operations + 1))
    for point in points:
        place = tmp_path / "killed"

        def killed(point=point, place=place):
            killed_in_save(4, point)
            return run(tiny_model, place, changes)

        assert in_child(killed, tmp_path / "answer")[0] == -signal.SIGKILL, point
        assert gone_on_with(tiny_model, place, changes, tmp_path / "answer") == (0, ending), point
    with capsys.disabled():
        print(f"\n{len(points)} of {operations} file operations of a save: all equal to the bit")  # noqa: T201


def test_kills_at_random_moments(tiny_model, tmp_path, whole, capsys):
    dice = random.Random(0)  # noqa: S311 - moments, not secrets
    started = time.monotonic()
    in_child(lambda: run(tiny_model, tmp_path / "timed", SETTINGS), tmp_path / "answer")
    longest = time.monotonic() - started
    counts = {"killed": 0, "done before": 0}
    for number in some(range(200)):
        place = tmp_path / f"random-{number}"
        moment = dice.uniform(0, longest)

        def killed(place=place, moment=moment):
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, moment)
            return run(tiny_model, place, SETTINGS)

        code, _ = in_child(killed, tmp_path / "answer")
        counts["killed" if code else "done before"] += 1
        if code == 0:
            continue
        place.mkdir(exist_ok=True)
        assert gone_on_with(tiny_model, place, SETTINGS, tmp_path / "answer") == (0, whole), number
    with capsys.disabled():
        print(f"\nat random moments: {counts}, all equal to the bit")  # noqa: T201


def test_one_run_killed_a_hundred_times(tiny_model, tmp_path, capsys):
    kills = int(os.environ.get("KILLS", "100"))
    changes = SETTINGS | {"max_steps": kills + 1, "save_steps": 1, "eval_steps": 10}
    run(tiny_model, tmp_path / "first", changes)
    code, ending = in_child(lambda: run(tiny_model, tmp_path / "whole", changes), tmp_path / "answer")
    assert code == 0
    place, killed = tmp_path / "killed", 0
    for step in range(2, kills + 2):

        def until(step=step):
            killed_in_save(step, 3)
            return run(tiny_model, place, changes, resume=step > 2)

        assert in_child(until, tmp_path / "answer")[0] == -signal.SIGKILL, step
        killed += 1
        checkpoints.remove_unfinished(place)
    code, again = in_child(lambda: run(tiny_model, place, changes, resume=True), tmp_path / "answer")
    assert (code, again) == (0, ending)
    with capsys.disabled():
        print(f"\none run killed {killed} times: equal to the bit")  # noqa: T201
