"""Splits and configurations of a folder are those that `datasets` sees there."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from dpo_cli.config import DataConfig
from dpo_cli.data.load import load_pairs
from dpo_cli.data.sources.folder import folder_source
from dpo_cli.errors import DataError

ULTRAFEEDBACK = [
    f"data/{split}-00000-of-00001.jsonl"
    for split in ("train_prefs", "train_sft", "train_gen", "test_prefs", "test_sft", "test_gen")
]
CONFIGS = """---
configs:
- config_name: first
  data_files:
  - split: train
    path: one/a-*.jsonl
  - split: extra
    path: [one/b.jsonl, two/c.jsonl]
- config_name: second
  data_dir: two
  default: true
---
"""
FOLDERS = {
    "ultrafeedback": (ULTRAFEEDBACK, ""),
    "shards": ([f"data/train-0000{n}-of-00002.jsonl" for n in (0, 1)] + ["data/notes.jsonl"], ""),
    "in file names": (["train.jsonl", "my_test.jsonl", "dev-1.jsonl", "other.jsonl"], ""),
    "in folders": (["train/a.jsonl", "test/b.jsonl", "c.jsonl"], ""),
    "folders before names": (["train/test.jsonl", "train/b.jsonl"], ""),
    "words within words": (["training.jsonl", "latest.jsonl", "strain.jsonl"], ""),
    "without names": (["a.jsonl", "b/c.jsonl", ".hidden.jsonl", "__pycache__/d.jsonl"], ""),
    "several kinds": (["train.jsonl", "train.csv", "train-2.jsonl", "test.jsonl"], ""),
    "a draw": (["train.jsonl", "train.csv"], ""),
    "a card": (["one/a-1.jsonl", "one/a-2.jsonl", "one/b.jsonl", "two/c.jsonl", "two/test.jsonl"], CONFIGS),
    "a card with a string": (["x.jsonl", "y.jsonl"], "---\nconfigs:\n- config_name: default\n  data_files: y.jsonl\n---\n"),
}  # fmt: skip


def row(text):
    return {"prompt": text, "chosen": "b", "rejected": "c"}


def make(folder: Path, files, card=""):
    for name in files:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        columns = row(name)
        file.write_text(
            json.dumps(columns) + "\n"
            if file.suffix == ".jsonl"
            else f"{','.join(columns)}\n{','.join(columns.values())}\n"
        )
    if card:
        (folder / "README.md").write_text(card + "# A data set\n")
    return folder


def seen_by_datasets(folder, config=None):
    """Split to files, as `datasets.load_dataset` would read them."""
    from datasets import load_dataset_builder

    builder = load_dataset_builder(str(folder), config, cache_dir=str(folder.parent / "cache"))
    return {
        str(split): sorted(str(Path(file).relative_to(folder.resolve())) for file in files)
        for split, files in builder.config.data_files.items()
    }


def seen_by_us(folder, split, config=None):
    data = DataConfig(dataset=str(folder), split=split, dataset_config=config)
    return sorted(str(path.relative_to(folder)) for path in folder_source(folder, data).paths)


@pytest.mark.parametrize("name", FOLDERS)
def test_each_split_of_a_folder_has_the_files_that_datasets_reads(tmp_path, name):
    logging.disable()
    folder = make(tmp_path / "folder", *FOLDERS[name])
    for config in ("first", "second", None) if name == "a card" else (None,):
        expected = seen_by_datasets(folder, config)
        assert {split: seen_by_us(folder, split, config) for split in expected} == expected
        with pytest.raises(DataError) as missing:
            seen_by_us(folder, "nonsense", config)
        assert str(missing.value).endswith(f"it has: {', '.join(sorted(expected))}.")


def test_a_split_of_the_users_own_name_is_read_alone(tmp_path):
    folder = make(tmp_path / "folder", ULTRAFEEDBACK)
    for split in ("train_prefs", "test_gen"):
        loaded = load_pairs(DataConfig(dataset=str(folder), split=split))
        assert loaded.train["prompt"][:] == [f"data/{split}-00000-of-00001.jsonl"]
    with pytest.raises(DataError, match="no files for the split 'train'; it has: test_gen, test_prefs"):
        load_pairs(DataConfig(dataset=str(folder)))


def test_a_configuration_or_revision_that_cannot_be_followed_is_refused(tmp_path):
    from datasets import Dataset

    folder = make(tmp_path / "folder", *FOLDERS["a card"])
    Dataset.from_list([row("a")]).save_to_disk(str(tmp_path / "saved"))
    places = {name: str(tmp_path / name) for name in ("folder", "saved", "folder/two/c.jsonl")}
    for place in places.values():
        with pytest.raises(DataError, match="has no revisions"):
            load_pairs(DataConfig(dataset=place, dataset_revision="v1"))
    for name in ("saved", "folder/two/c.jsonl"):
        with pytest.raises(DataError, match="has no configurations"):
            load_pairs(DataConfig(dataset=places[name], dataset_config="first"))
    with pytest.raises(DataError, match="no configuration 'third'; it has: first, second"):
        load_pairs(DataConfig(dataset=str(folder), dataset_config="third"))
    (folder / "README.md").unlink()
    with pytest.raises(DataError, match="no configuration 'first'"):
        load_pairs(DataConfig(dataset=str(folder), dataset_config="first"))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("---\nconfigs: [\n---\n", "README.md cannot be read"),
        ("---\n- a list\n---\n", "README.md cannot be read"),
        (
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - path: 3\n---\n",
            "contain 3, which is not a path",
        ),
        ("---\nconfigs:\n- config_name: default\n  data_files: '[z-a]*'\n---\n", "has no data files"),
    ],
)
def test_a_card_that_cannot_be_followed_is_named(tmp_path, card, said):
    folder = make(tmp_path / "folder", ["train.jsonl"], card)
    with pytest.raises(DataError, match=said.replace("[", r"\[")):
        load_pairs(DataConfig(dataset=str(folder)))
