"""The hub path for real: a server on loopback, HF_ENDPOINT set, fresh processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from hub_server import serve

from dpo_cli.data.sources.splits import choose_files
from dpo_cli.errors import DataError


def rows(mark, count=12):
    return "\n".join(
        json.dumps(
            {
                "prompt": [{"role": "user", "content": f"{mark} {index}?"}],
                "chosen": [{"role": "assistant", "content": f"yes {index}"}],
                "rejected": [{"role": "assistant", "content": f"no {index}"}],
            }
        )
        for index in range(count)
    ).encode()


CARD = b"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.jsonl
  - split: test
    path: data/test.jsonl
- config_name: other
  data_files: other/*.jsonl
---
# Pairs
"""


@pytest.fixture(scope="module")
def hub(tiny_model):
    model = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    card = {
        "README.md": CARD,
        "data/train-0.jsonl": rows("main"),
        "data/test.jsonl": rows("test"),
        "other/a.jsonl": rows("other"),
    }
    repositories = {
        ("dataset", "me/pairs"): {"main": card, "v1": {**card, "data/train-0.jsonl": rows("first", 10)}},
        ("dataset", "me/plain"): {"main": {"train.jsonl": rows("plain"), "validation.jsonl": rows("held")}},
        ("dataset", "me/none"): {"main": {"README.md": b"nothing"}},
        ("model", "me/tiny"): {"main": model},
    }
    with serve(repositories) as hub:
        yield hub


SCRIPT = """
import json, sys
from dpo_cli.config import DataConfig
from dpo_cli.data.load import load_pairs
from dpo_cli.errors import DataError
for name, options in json.loads(sys.argv[1]):
    try:
        pairs = load_pairs(DataConfig(dataset=name, **options))
        print(json.dumps((pairs.eval or pairs.train)["prompt"][0][0]["content"]))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def fresh(hub, tmp_path, *command):
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | hub.environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_configurations_splits_revisions_and_missing_ids(hub, tmp_path):
    asked = [
        ("me/pairs", {}, "main 0?"),
        ("me/pairs", {"split": "test"}, "test 0?"),
        ("me/pairs", {"dataset_config": "other"}, "other 0?"),
        ("me/pairs", {"dataset_revision": "v1"}, "first 0?"),
        ("me/plain", {"split": "validation"}, "held 0?"),
        ("me/plain", {"streaming": False, "max_samples": 3}, "plain 0?"),
        ("me/pairs", {"dataset_revision": "v9"}, "no revision 'v9'"),
        (
            "me/pairs",
            {"dataset_config": "third"},
            "has no configuration 'third'; it has: default, other",
        ),
        ("me/pairs", {"split": "extra"}, "has no split 'extra'; it has: test, train"),
        ("me/missing", {}, "no such data set on the hub"),
        ("me/none", {}, "has no data files"),
        # Held-out pairs have a split of their own; configuration and revision are those of one data set.
        ("me/pairs", {"split": "test", "eval_dataset": "me/pairs"}, "main 0?"),
        ("me/pairs", {"eval_dataset": "me/pairs", "eval_split": "test"}, "test 0?"),
        ("me/pairs", {"dataset_revision": "v1", "eval_dataset": "me/pairs"}, "first 0?"),
        ("me/pairs", {"dataset_revision": "v1", "eval_dataset": "me/plain"}, "plain 0?"),
        (
            "me/pairs",
            {"dataset_config": "other", "eval_dataset": "me/plain", "eval_split": "validation"},
            "held 0?",
        ),
    ]
    done = fresh(hub, tmp_path, "-c", SCRIPT, json.dumps([one[:2] for one in asked]))
    assert done.returncode == 0, done.stderr
    for (name, options, expected), line in zip(asked, done.stdout.splitlines(), strict=True):
        assert expected in json.loads(line), (name, options, line)


def test_check_and_train_through_the_hub(hub, tmp_path):
    checked = fresh(hub, tmp_path, "-m", "dpo_cli", "check", "me/pairs", "--model", "me/tiny", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["rows"] == {"read": 12, "kept": 12, "dropped": {}}
    output = tmp_path / "out"
    arguments = [
        "train",
        "--model",
        "me/tiny",
        "--dataset",
        "me/pairs",
        "--dataset-revision",
        "v1",
        "--max-steps",
        "1",
    ]
    trained = fresh(
        hub,
        tmp_path,
        "-m",
        "dpo_cli",
        *arguments,
        "--max-length",
        "128",
        "--output-dir",
        str(output),
        "--json",
    )
    assert trained.returncode == 0, trained.stderr
    assert json.loads((output / "data.json").read_text())["rows"]["kept"] == 10
    again = fresh(hub, tmp_path, "-m", "dpo_cli", "check", "me/pairs", "--model", "me/nothing", "--json")
    assert again.returncode == 2
    assert "no such model on the hub" in again.stderr


UNREACHABLE = """
import time
from dpo_cli.config import DataConfig
from dpo_cli.data.load import load_pairs
from dpo_cli.errors import UserError
from dpo_cli.models.locate import locate_model
for find in (lambda: load_pairs(DataConfig(dataset='me/pairs')), lambda: locate_model('me/pairs')):
    start = time.perf_counter()
    try:
        find()
    except UserError as error:
        print(error)
    print(time.perf_counter() - start)
"""


@pytest.mark.parametrize("how", ["refused", "silent", "no name", "no address"])
def test_without_a_network_there_is_an_answer_in_five_seconds(tmp_path, how):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if how == "silent":
            silent.listen(1)  # takes the connection and never answers
        endpoint = {"no name": "http://no-such-host.invalid", "no address": "nonsense"}.get(
            how, f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        script = UNREACHABLE
        environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    data, what_then, seconds, model, embedded, for_the_model = done.stdout.splitlines()
    assert "no such file or folder here, and the hub cannot be reached" in data
    assert "hf download me/pairs" in what_then
    assert "no such folder here, and the hub cannot be reached" in model
    assert "'embedded'" in embedded
    assert float(seconds) < 5
    assert float(for_the_model) < 5


def test_a_secret_in_the_name_of_a_data_set_is_refused_however_it_came():
    from dpo_cli.config import DataConfig
    from dpo_cli.data.sources.locate import locate

    data = DataConfig().model_copy(update={"dataset": "https://me:geheim@example.org/pairs.jsonl"})
    with pytest.raises(DataError, match="the name of a data set contains a password in a URL") as error:
        locate(data)
    assert "geheim" not in str(error.value)


def test_offline_mode_names_the_local_way(tmp_path, monkeypatch):
    from dpo_cli.config import DataConfig
    from dpo_cli.data.load import load_pairs

    with pytest.raises(DataError, match="cannot be reached"):
        load_pairs(DataConfig(dataset="me/pairs"))


CONFIGS = [
    {"config_name": "a", "data_files": [{"split": "train", "path": ["x/*.json", "y/**.json"]}]},
    {"config_name": "b", "data_files": "z.csv", "default": True},
    {"config_name": "c", "data_dir": "z"},
]


@pytest.mark.parametrize(
    ("files", "configs", "split", "config", "chosen"),
    [
        (["x/1.json", "x/n/2.json", "y/n/3.json", "z.csv"], CONFIGS, "train", "a", ["x/1.json", "y/n/3.json"]),
        (["x/1.json", "z.csv"], CONFIGS, "train", None, ["z.csv"]),
        (["z/train.csv", "z/test.csv", "train.csv"], CONFIGS, "test", "c", ["z/test.csv"]),
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-0.parquet"], [], "train", None,
         ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]),
        (["pairs.jsonl", "README.md", ".gitattributes"], [], "train", None, ["pairs.jsonl"]),
        (["train_prefs.parquet", "test_prefs.parquet"], [], "test", None, ["test_prefs.parquet"]),
        (["dev.jsonl", "train.jsonl", "dataset_infos.json"], [], "validation", None, ["dev.jsonl"]),
    ],
)  # fmt: skip
def test_the_files_of_a_split(files, configs, split, config, chosen):
    assert choose_files("me/x", files, configs, split=split, config=config) == chosen
