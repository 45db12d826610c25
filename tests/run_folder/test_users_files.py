"""What a user has put among results, and who else is writing there."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.errors import OutputError
from dpo_cli.run_folder import OutputFolder

SETTINGS = DPOTrainingConfig()


def run(place, *, told=None, **files):
    with OutputFolder(
        str(place), SETTINGS, overwrite=True, notice=(told if told is not None else []).append
    ) as made:
        for name, text in ({"model": "weights"} | files).items():
            (made.staging / name).write_text(text)


def test_files_of_the_user_are_moved_aside_and_named(tmp_path):
    place, told = tmp_path / "out", []
    run(place)
    (place / "notes.md").write_text("mine")
    (place / "checkpoint-best").mkdir()
    (place / "checkpoint-best" / "weights").write_text("mine too")
    (place / "link").symlink_to(tmp_path)
    run(place, told=told)
    kept = tmp_path / "out.kept"
    assert (kept / "notes.md").read_text() == "mine"
    assert (kept / "checkpoint-best" / "weights").read_text() == "mine too"
    assert (kept / "link").is_symlink()
    assert sorted(path.name for path in kept.iterdir()) == ["checkpoint-best", "link", "notes.md"]
    [line] = told
    assert f"kept in {kept}: checkpoint-best/weights, link, notes.md" in line


def test_a_file_of_ours_that_the_user_has_changed_is_the_users(tmp_path):
    place = tmp_path / "out"
    run(place, card="ours")
    (place / "card").write_text("mine")
    run(place)
    assert (tmp_path / "out.kept" / "card").read_text() == "mine"
    assert [path.name for path in (tmp_path / "out.kept").iterdir()] == ["card"]


def test_results_that_were_copied_are_still_known_as_ours(tmp_path):
    run(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "out", copy_function=shutil.copyfile)  # other times
    run(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "out"]


def test_results_without_a_list_of_files_are_kept_whole(tmp_path):
    """As version 0.1 wrote them: which of the files are the user's is not known."""
    place, told = tmp_path / "out", []
    run(place)
    (place / "manifest.json").unlink()
    run(place, told=told)
    assert (tmp_path / "out.kept" / "model").read_text() == "weights"
    assert "out.kept" in told[0]


@pytest.mark.parametrize(
    "listed", ["[]", '{"files": []}', '{"files": {"../../mine": {}}}', "[" * 10_000, "\0"]
)
def test_a_list_of_files_that_is_no_list_deletes_nothing(tmp_path, listed):
    place = tmp_path / "out"
    run(place)
    (tmp_path / "mine").write_text("mine")
    (place / "manifest.json").write_text(listed)
    run(place)
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "out.kept" / "model").read_text() == "weights"


@pytest.mark.parametrize("stranger", ["file", "folder", "link"])
def test_a_name_that_the_run_needs_and_somebody_has_is_refused(tmp_path, stranger):
    partial = tmp_path / "out.partial"
    if stranger == "file":
        partial.write_text("mine")
    elif stranger == "folder":
        partial.mkdir()
        (partial / "notes.md").write_text("mine")
    else:
        partial.symlink_to(tmp_path / "nowhere")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=r"out\.partial: dpo writes the run there"):
        run(tmp_path / "out")
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_the_data_that_is_read_is_not_replaced(tmp_path):
    run(tmp_path / "out", pairs="{}")
    with pytest.raises(OutputError, match="is or contains the input data"):
        OutputFolder(str(tmp_path / "out"), SETTINGS, overwrite=True, data=[tmp_path / "out" / "pairs"])


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(OutputError, match="its name is 3 bytes too long"):
        OutputFolder(str(tmp_path / ("n" * 250)), SETTINGS)


HOLDS = """
import sys, time
from dpo_cli.config import DPOTrainingConfig
from dpo_cli.run_folder import OutputFolder
with OutputFolder(sys.argv[1], DPOTrainingConfig(), overwrite=True):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_while_the_first_lives_and_not_a_moment_longer(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another run is writing to it") as error:
            run(tmp_path / "out")
        assert f"process {first.pid} on {socket.gethostname()}, since {time.strftime('%Y-')}" in str(
            error.value
        )
        assert not (tmp_path / "out").exists()
        first.send_signal(signal.SIGKILL)
        first.wait()
        run(tmp_path / "out")
        assert (tmp_path / "out" / "model").read_text() == "weights"
    finally:
        first.kill()
        first.wait()
        first.stdout.close()


def test_who_holds_a_folder_need_not_be_readable(tmp_path):
    with OutputFolder(str(tmp_path / "out"), SETTINGS) as made:
        (made.staging / "running.json").write_text('{"pid": "\x1b[31m", "host": 3}')
        with pytest.raises(OutputError, match="unknown process"):
            run(tmp_path / "out")


def test_the_list_of_files_says_what_is_there(tmp_path):
    run(tmp_path / "out")
    files = json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    assert files.keys() == {"config.toml", "model"}
    assert files["model"]["size"] == 7
    assert files["model"]["mtime_ns"] == (tmp_path / "out" / "model").stat().st_mtime_ns
