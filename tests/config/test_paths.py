"""Names that no path can have, wherever a user may write one: a sentence and exit code 2, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dpo_cli.config import DPOTrainingConfig, load_settings, user_path
from dpo_cli.data.load import load_dpo_dataset
from dpo_cli.errors import ConfigError, DataError, ModelError, OutputError
from dpo_cli.jobs.compare import recorded_run
from dpo_cli.models.locate import locate_model
from dpo_cli.run_folder import OutputFolder

BAD = ["~nobody-of-this-name/x", "x" * 300, "a\0b"]
USES = {
    "a model": (locate_model, ModelError),
    "the run of a model": (recorded_run, ModelError),
    "pairs": (load_dpo_dataset, DataError),
    "an output folder": (lambda name: OutputFolder(name, DPOTrainingConfig()), OutputError),
}


@pytest.mark.parametrize(
    ("use", "name"), [(use, name) for use in USES for name in BAD if (use, name) != ("pairs", "a\0b")]
)
def test_a_name_that_is_no_path_is_said_by_whoever_was_given_it(use, name):
    take, kind = USES[use]
    with pytest.raises(kind) as error:
        take(name)
    assert error.value.exit_code == 2
    assert error.value.message.startswith(name)


def test_a_nul_is_no_part_of_a_setting():
    with pytest.raises(ConfigError, match="dataset: must not have a NUL byte"):
        load_dpo_dataset("a\0b")


def test_a_settings_file_with_such_a_name_is_one_that_cannot_be_read():
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(DPOTrainingConfig, {}, "x" * 300 + ".toml")


def test_a_tilde_is_a_home_folder_and_what_is_not_there_is_a_path_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/new", DataError) == tmp_path / "new"
    assert user_path(tmp_path / "file" / "below", DataError) == tmp_path / "file" / "below"


def refuse(monkeypatch, method, part):
    """Have the system refuse a file as it refuses one of another user: root is refused nothing."""
    ours = getattr(Path, method)

    def refused(self, *arguments, **named):
        if part in str(self):
            raise PermissionError(13, os.strerror(13), str(self))
        return ours(self, *arguments, **named)

    monkeypatch.setattr(Path, method, refused)


def test_a_file_that_must_not_be_read_is_named(tmp_path, monkeypatch):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    refuse(monkeypatch, "open", "pairs.jsonl")
    with pytest.raises(DataError, match=r"pairs.jsonl: cannot be read \(Permission denied\)"):
        load_dpo_dataset(str(file))


@pytest.mark.parametrize(
    ("take", "kind"), [(load_dpo_dataset, DataError), (locate_model, ModelError)], ids=["pairs", "a model"]
)
def test_a_folder_that_must_not_be_entered_is_named(tmp_path, monkeypatch, take, kind):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "config.json").write_text("{}")
    refuse(monkeypatch, "is_file", "closed/")
    with pytest.raises(kind, match=r"closed: cannot be read \(Permission denied\)"):
        take(str(tmp_path / "closed"))
    refuse(monkeypatch, "stat", "closed")
    with pytest.raises(kind, match=r"closed: is not a usable path \(Permission denied\)"):
        take(str(tmp_path / "closed"))
