"""A run killed before each file operation in turn: nothing is lost, nothing hides, and the next run says what it found."""

from __future__ import annotations

import io
import os
import signal
import traceback

import pytest
from killing import kill_before

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.run_folder import OutputFolder, disk, folder, manifest

SETTINGS = DPOTrainingConfig()
OPERATIONS = (
    "mkdir",
    "open",
    "rename",
    "replace",
    "unlink",
    "rmdir",
    "fsync",
    "chmod",
    "pwrite",
    "ftruncate",
)
VISIBLE = {"out", "out.partial", "out.kept", "out.failed"}


def run(place, content, notice=lambda _: None):
    with OutputFolder(str(place), SETTINGS, overwrite=True, notice=notice) as made:
        (made.staging / "deep").mkdir()
        (made.staging / "model.safetensors").write_text(content)
        (made.staging / "deep" / "more.txt").write_text(content)
        made.mark_trained()


def in_child(work):
    """Do some work in a forked child; its signal, or 0 when it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - nothing of the child may reach pytest
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) <= 0
    return -os.waitstatus_to_exitcode(status)


def killed_at(point, place, *, swap):
    """Run until the file operation of that number is about to happen, and kill the process there."""

    def work():
        _, counted = kill_before(point, OPERATIONS)
        io.open = counted(io.open)
        folder.exchange = counted(disk.exchange) if swap else lambda *_: False
        run(place, "new")

    return in_child(work)


def whole(place):
    """Whose results a folder holds, whole; None if it does not."""
    try:
        contents = {(place / name).read_text() for name in ("model.safetensors", "deep/more.txt")}
        return contents.pop() if len(contents) == 1 and (place / "config.toml").is_file() else None
    except OSError:
        return None


def everywhere(parent, name):
    return [path for path in parent.rglob(name) if path.is_file()]


@pytest.mark.parametrize("swap", [True, False], ids=["one exchange", "two renames"])
@pytest.mark.parametrize(
    "every", [pytest.param(1, id="each", marks=pytest.mark.slow), pytest.param(3, id="every third")]
)
def test_a_kill_at_any_point_loses_nothing(tmp_path, swap, every):
    points = 0
    for point in range(1, 200, every):
        parent = tmp_path / str(point)
        parent.mkdir()
        place = parent / "out"
        run(place, "old")
        (place / "notes.md").write_text("mine")
        if killed_at(point, place, swap=swap) == 0:
            break
        points += 1
        names = {path.name for path in parent.iterdir()}
        assert names <= VISIBLE, names
        assert [file.read_text() for file in everywhere(parent, "notes.md")] == ["mine"]
        if swap:
            assert whole(place) in {"old", "new"}
        else:  # where a system has no exchange, a kill between two renames leaves both beside
            assert whole(place) or (
                whole(parent / "out.kept") == "old" and whole(parent / "out.partial") == "new"
            )
        told = []
        run(place, "next", told.append)
        assert whole(place) == "next"
        assert [file.read_text() for file in everywhere(parent, "notes.md")] == ["mine"]
        left = {path.name for path in parent.iterdir()} - {"out", "out.kept", "out.kept-2"}
        assert left <= {"out.failed"}
        assert not left or any("out.failed" in line for line in told)
        if any("The trained model is in" in line for line in told):
            assert whole(parent / "out.failed") == "new"
    assert points > 50 // every, points
    assert points < 199


def test_what_a_killed_run_has_left_is_told_and_kept_when_it_had_trained(tmp_path):
    def trained():
        with OutputFolder(str(tmp_path / "out"), SETTINGS) as made:
            (made.staging / "model.safetensors").write_text("weights")
            made.mark_trained()
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(trained) == signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    told = []
    run(tmp_path / "out", "next", told.append)
    assert (tmp_path / "out.failed" / "model.safetensors").read_text() == "weights"
    [line] = told
    assert "out.partial was left by a run that was killed (process " in line
    assert f"The trained model is in {tmp_path / 'out.failed'} now." in line


def test_what_a_killed_run_has_left_goes_when_there_is_nothing_in_it(tmp_path):
    def begun():
        with OutputFolder(str(tmp_path / "out"), SETTINGS):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(begun) == signal.SIGKILL
    told = []
    run(tmp_path / "out", "next", told.append)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "before it had anything to keep" in told[0]


def test_a_killed_removal_is_finished_by_the_next_run(tmp_path, monkeypatch):
    run(tmp_path / "out", "old")

    def work():
        manifest.remove_own = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        run(tmp_path / "out", "new")

    assert in_child(work) == signal.SIGKILL
    assert whole(tmp_path / "out") == "new"
    assert whole(tmp_path / "out.partial") == "old"
    run(tmp_path / "out", "next")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
