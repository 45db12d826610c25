from __future__ import annotations

import os
from pathlib import Path

import pytest

from dpo_cli.errors import OutputError
from dpo_cli.training.output import MARK, OutputFolder


def earlier_run(folder):
    folder.mkdir()
    (folder / "config.toml").write_text(f"{MARK} train.\n")
    (folder / "old.txt").write_text("old")
    return folder


def fail(target, work):
    """A run that does some work and then fails."""

    def run():
        with OutputFolder(str(target), overwrite=True) as folder:
            work(folder.staging)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()


def test_a_folder_appears_when_the_run_has_succeeded_and_not_before(tmp_path):
    target = tmp_path / "deep" / "out"
    with OutputFolder(str(target)) as folder:
        (folder.staging / "model").write_text("weights")
        assert not target.exists()
    assert (target / "model").read_text() == "weights"
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_a_failed_run_leaves_nothing(tmp_path):
    fail(tmp_path / "out", lambda staging: (staging / "half").write_text("done"))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_with_checkpoints_keeps_them(tmp_path):
    fail(tmp_path / "out", lambda staging: (staging / "checkpoint-5").mkdir())
    assert (tmp_path / "out" / "checkpoint-5").is_dir()


def test_a_failed_run_keeps_the_results_it_was_to_replace(tmp_path):
    target = earlier_run(tmp_path / "out")
    fail(target, lambda staging: None)
    assert (target / "old.txt").read_text() == "old"


def test_overwrite_replaces_an_earlier_run_whole(tmp_path):
    target = earlier_run(tmp_path / "out")
    with pytest.raises(OutputError, match="earlier run") as error:
        OutputFolder(str(target))
    assert "--overwrite" in error.value.hint
    with OutputFolder(str(target), overwrite=True) as folder:
        (folder.staging / "new.txt").write_text("new")
    assert [p.name for p in target.iterdir()] == ["new.txt"]


def test_overwrite_never_replaces_what_dpo_did_not_write(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(OutputError, match="not an output folder of dpo"):
        OutputFolder(str(tmp_path / "mine"), overwrite=True)


@pytest.mark.parametrize("path", ["model", ".", "model/../model"])
def test_the_models_own_folder_is_refused(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    with pytest.raises(OutputError, match="is or holds the model"):
        OutputFolder(path, inputs=[Path("model")])


@pytest.mark.parametrize("path", ["/proc/out", "/dev/null/out", "file/out", "file"])
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(OutputError) as error:
        OutputFolder(path)
    assert "--output-dir" in error.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        OutputFolder(str(tmp_path / "out"))


def test_files_are_readable_as_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        with OutputFolder(str(tmp_path / "out")) as folder:
            secret = folder.staging / "model.safetensors"
            secret.touch(mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o777 == 0o644
