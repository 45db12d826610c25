"""A checkpoint is whole or not there: killed at each file operation, damaged in each way; only dpo's are ever deleted."""

from __future__ import annotations

import builtins
import io
import json
import os
import shutil
import signal

import pytest
from killing import kill_before

from dpo_cli.run_folder import checkpoints
from dpo_cli.run_folder.checkpoints import (
    LIST,
    damage,
    new_checkpoint,
    newest_whole,
    remove_checkpoints,
    remove_unfinished,
    rotate,
)

OPERATIONS = ("mkdir", "open", "rename", "replace", "unlink", "rmdir", "fsync", "scandir", "write", "link")
FILES = {
    "model.safetensors": os.urandom(5000),
    "optimizer.pt": os.urandom(9000),
    "deep/state.json": b'{"loss": 1}',
}


def save(parent, step, limit=2):
    with new_checkpoint(parent, step) as folder:
        for name, content in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content + str(step).encode())
    rotate(parent, limit)


def step_of(parent):
    found, skipped = newest_whole(parent)
    return (found.step if found else None), skipped


def killed_at(point, work):
    """Do some work in a forked child, and kill it before the file operation of that number; whether it came to that."""
    child = os.fork()
    if child == 0:
        _, counted = kill_before(point, OPERATIONS)
        io.open = builtins.open = counted(io.open)
        checkpoints.exchange = counted(checkpoints.exchange)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(
    "there",
    [
        pytest.param([3], id="one before", marks=pytest.mark.slow),
        pytest.param([3, 4], id="rotation"),
        pytest.param([3, 5], id="a damaged one of that step", marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_operation_of_a_save_leaves_the_older_or_the_new_one(tmp_path, there):
    seen = set()
    for point in range(1, 400):
        parent = tmp_path / str(point)
        parent.mkdir()
        for step in there:
            save(parent, step)
        if there[-1] == 5:
            (parent / "checkpoint-5" / "optimizer.pt").write_bytes(b"")
        older = step_of(parent)[0]
        killed = killed_at(point, lambda parent=parent: save(parent, 5))
        found, _ = step_of(parent)
        assert found in {older, 5}, (point, found)
        seen.add(found)
        remove_unfinished(parent)
        assert all(path.name.removeprefix("checkpoint-").isdigit() for path in parent.iterdir())
        save(parent, 6)
        assert step_of(parent)[0] == 6
        shutil.rmtree(parent)
        if not killed:
            break
    assert point > 20, "the shim saw no operations"
    assert not killed
    assert seen == {older, 5}


def damages(content):
    """A file's content damaged in each way, by name; flips and cuts at offsets over the whole length."""
    places = sorted({round(i * (len(content) - 1) / 19) for i in range(20)})
    yield "zeroed", bytes(len(content))
    yield "empty", b""
    yield "longer", content + b"\0"
    for place in places:
        yield f"cut at {place}", content[:place]
        yield (
            f"bit {place % 8} of byte {place}",
            content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :],
        )


def test_every_damage_of_every_file_is_found_and_the_older_checkpoint_used(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    newest = tmp_path / "checkpoint-2"
    tried = 0
    for name in [*FILES, LIST]:
        file = newest / name
        content = file.read_bytes()
        for what, damaged in damages(content):
            if name == LIST and damaged.split() == content.split():
                continue  # a newline less, which is no damage
            file.write_bytes(damaged)
            found, skipped = step_of(tmp_path)
            assert found == 1, (name, what)
            assert "checkpoint-2 was skipped: " in skipped[0], (name, what)
            assert name in skipped[0] or name == LIST, skipped
            tried += 1
        file.unlink()
        assert step_of(tmp_path)[0] == 1, name
        file.symlink_to(tmp_path / "checkpoint-1" / name)
        assert step_of(tmp_path)[0] == 1, name
        file.unlink()
        file.write_bytes(content)
        assert step_of(tmp_path)[0] == 2
    assert tried > 150


def test_a_list_that_names_files_elsewhere_is_no_list(tmp_path):
    (tmp_path / "secret").write_text("x")
    save(tmp_path, 1)
    folder = tmp_path / "checkpoint-1"
    checkpoints.write_list(folder, 1)
    document = checkpoints._read(folder / LIST)
    document["files"]["../secret"] = checkpoints._entry(tmp_path / "secret")
    document["sha256"] = checkpoints._digest(document)
    (folder / LIST).write_text(json.dumps(document))
    assert damage(folder) == f"{LIST} is missing or damaged"


def test_a_checkpoint_of_another_format_is_skipped_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_FORMAT", 2)
    save(tmp_path, 1)
    monkeypatch.undo()
    found, [why] = newest_whole(tmp_path)
    assert found is None
    assert "another format (2)" in why


def test_only_checkpoints_of_ours_are_deleted(tmp_path):
    for name in ("checkpoint-1", "checkpoint-best", "checkpoint-2.txt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    for step in range(3, 7):
        save(tmp_path, step)
    assert {p.name for p in tmp_path.iterdir()} == {
        "checkpoint-1", "checkpoint-best", "checkpoint-2.txt", "checkpoint-5", "checkpoint-6",
    }  # fmt: skip
    remove_checkpoints(tmp_path, keep=False)
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint-1", "checkpoint-best", "checkpoint-2.txt"}
    assert len(list(tmp_path.rglob("mine"))) == 3


def test_a_save_that_fails_leaves_what_was_there(tmp_path):
    save(tmp_path, 1)

    def fail():
        with new_checkpoint(tmp_path, 2) as folder:
            (folder / "model.safetensors").write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert step_of(tmp_path) == (1, [])
