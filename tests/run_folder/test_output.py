from __future__ import annotations

import os
from pathlib import Path

import pytest

from dpo_cli.config import DPOTrainingConfig, load_settings
from dpo_cli.errors import OutputError, TrainingError
from dpo_cli.run_folder import MARK, OutputFolder

SETTINGS = DPOTrainingConfig(learning_rate=3e-4)


def earlier_run(folder):
    folder.mkdir()
    (folder / "config.toml").write_text(f"{MARK} train.\n")
    (folder / "old.txt").write_text("old")
    return folder


def fail(target, work):
    """A run that does some work and then fails."""

    def run():
        with OutputFolder(str(target), SETTINGS, overwrite=True) as folder:
            work(folder.staging)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()


def test_a_folder_appears_when_the_run_has_succeeded_and_not_before(tmp_path):
    target = tmp_path / "deep" / "out"
    with OutputFolder(str(target), SETTINGS) as folder:
        (folder.staging / "model").write_text("weights")
        assert not target.exists()
    assert (target / "model").read_text() == "weights"
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_a_failed_run_leaves_nothing(tmp_path):
    fail(tmp_path / "out", lambda staging: (staging / "half").write_text("done"))
    assert list(tmp_path.iterdir()) == []


def checkpoint(staging):
    (staging / "checkpoint-5").mkdir()


def test_a_failed_run_with_checkpoints_keeps_them_beside_and_says_where(tmp_path):
    def run():
        with OutputFolder(str(tmp_path / "out"), SETTINGS) as folder:
            checkpoint(folder.staging)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        run()
    assert [p.name for p in tmp_path.iterdir()] == ["out.failed"]
    assert (tmp_path / "out.failed" / "checkpoint-5").is_dir()
    [note] = stopped.value.__notes__
    assert str(tmp_path / "out.failed") in note


def test_a_failed_run_keeps_the_results_it_was_to_replace(tmp_path):
    target = earlier_run(tmp_path / "out")
    fail(target, lambda staging: None)
    assert (target / "old.txt").read_text() == "old"


def test_failed_runs_with_checkpoints_delete_neither_results_nor_each_other(tmp_path):
    target = earlier_run(tmp_path / "out")
    fail(target, checkpoint)
    fail(target, checkpoint)
    assert (target / "old.txt").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out.failed", "out.failed-2"]


def test_what_a_failed_run_left_is_a_folder_of_ours_that_can_be_replaced(tmp_path):
    fail(tmp_path / "out", checkpoint)
    left = tmp_path / "out.failed"
    assert load_settings(DPOTrainingConfig, {}, str(left / "config.toml")) == SETTINGS
    with OutputFolder(str(left), SETTINGS, overwrite=True):
        pass
    assert sorted(p.name for p in left.iterdir()) == ["config.toml", "manifest.json"]


def test_settings_are_written_before_anything_else(tmp_path):
    with OutputFolder(str(tmp_path / "out"), SETTINGS) as folder:
        assert (folder.staging / "config.toml").read_text().startswith(MARK)


def test_results_that_came_meanwhile_are_not_replaced(tmp_path):
    target = tmp_path / "out"

    def run():
        with OutputFolder(str(target), SETTINGS) as folder:
            (folder.staging / "new.txt").write_text("new")
            earlier_run(target)

    with pytest.raises(OutputError, match=r"earlier run; this run's results are in .*out\.failed"):
        run()
    assert (target / "old.txt").read_text() == "old"
    assert (tmp_path / "out.failed" / "new.txt").read_text() == "new"


def test_a_link_stays_and_its_target_receives_the_results(tmp_path):
    elsewhere = earlier_run(tmp_path / "elsewhere")
    (tmp_path / "out").symlink_to(elsewhere)
    with OutputFolder(str(tmp_path / "out"), SETTINGS, overwrite=True) as folder:
        (folder.staging / "new.txt").write_text("new")
    assert (tmp_path / "out").readlink() == elsewhere
    assert (elsewhere / "new.txt").read_text() == "new"


def test_a_link_that_leads_nowhere_is_refused(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "unmounted" / "results")
    with pytest.raises(OutputError, match=r"is a link to .*unmounted/results, which does not exist"):
        OutputFolder(str(tmp_path / "out"), SETTINGS, overwrite=True)


def test_the_folder_that_dpo_runs_in_is_refused(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError, match="is or contains the working folder"):
        OutputFolder(".", SETTINGS)


def test_where_checkpoints_are_is_printed_with_the_error_and_after_an_interruption(monkeypatch, capfd):
    from dpo_cli.cli import app

    def end_with(error):
        error.add_note("The checkpoints written so far are in out.failed.")

        def run(**_):
            try:  # as Typer passes an interruption on
                raise error
            except KeyboardInterrupt as stop:
                raise SystemExit(130) from stop

        monkeypatch.setattr(app, "app", run)
        with pytest.raises(SystemExit) as stopped:
            app.main()
        return stopped.value.code, capfd.readouterr().err

    for error, expected in ((TrainingError("no memory"), 1), (KeyboardInterrupt(), 130)):
        code, printed = end_with(error)
        assert code == expected
        assert "are in out.failed" in printed


def test_overwrite_replaces_an_earlier_run_whole(tmp_path):
    target = earlier_run(tmp_path / "out")
    with pytest.raises(OutputError, match="earlier run") as error:
        OutputFolder(str(target), SETTINGS)
    assert "--overwrite" in error.value.hint
    with OutputFolder(str(target), SETTINGS, overwrite=True) as folder:
        (folder.staging / "new.txt").write_text("new")
    assert sorted(p.name for p in target.iterdir()) == ["config.toml", "manifest.json", "new.txt"]


def test_overwrite_never_replaces_what_dpo_did_not_write(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(OutputError, match="not a dpo output folder"):
        OutputFolder(str(tmp_path / "mine"), SETTINGS, overwrite=True)


@pytest.mark.parametrize("path", ["model", ".", "model/../model"])
def test_the_models_own_folder_is_refused(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    with pytest.raises(OutputError, match="is or contains the input model"):
        OutputFolder(path, SETTINGS, inputs=[Path("model")])


@pytest.mark.parametrize("path", ["/proc/out", "/dev/null/out", "file/out", "file"])
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(OutputError) as error:
        OutputFolder(path, SETTINGS)
    assert "--output-dir" in error.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        OutputFolder(str(tmp_path / "out"), SETTINGS)


def test_files_are_readable_as_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        with OutputFolder(str(tmp_path / "out"), SETTINGS) as folder:
            secret = folder.staging / "model.safetensors"
            secret.touch(mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_place_where_something_is_mounted_is_refused_before_the_run(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "out")
    with pytest.raises(OutputError, match="is a mount point"):
        OutputFolder(str(tmp_path / "out"), SETTINGS)
