"""`dpo check` and `dpo train` read the same rows the same way, and each data file once."""

import json
import random
import shutil
import sys
from types import SimpleNamespace

import pytest
from tiny_models import make_tokenizer

from dpo_cli.config import CheckConfig, DataConfig, DPOTrainingConfig, Truncation
from dpo_cli.data.load import load_pairs
from dpo_cli.events import Noted
from dpo_cli.jobs.check import check
from dpo_cli.jobs.train import train
from dpo_cli.report.check import show_check

_COUNTING: list[list[str]] = []


def _count(event, arguments):
    if _COUNTING and event == "open" and isinstance(arguments[0], str):
        _COUNTING[-1].append(arguments[0])


sys.addaudithook(_count)


@pytest.fixture
def opened():
    """Paths opened while the test runs, in order."""
    paths = []
    _COUNTING.append(paths)
    yield paths
    _COUNTING.pop()


def pairs_file(path, words=(3, 5, 30)):
    pair = {"chosen": " Yes, it is.", "rejected": " No."}
    rows = [{"prompt": f"{number} " + "one two " * size, **pair} for number in range(4) for size in words]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def table_file(path, *more):
    drawn = random.Random(0)  # noqa: S311 - rows of a made-up table
    rows = [f"{''.join(drawn.choices('ACGT', k=8))},{drawn.random():.3f},p" for _ in range(6)]
    path.write_text("\n".join(["sequence,value,group", *rows, *more]) + "\n")
    return str(path)


def quick(model, tmp_path, **changes):
    return DPOTrainingConfig(
        model=str(model),
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        dtype="float32",
        device="cpu",
        **changes,
    )


def test_check_keeps_the_pairs_that_train_keeps_where_the_model_has_a_preset(tiny_model, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "preset.toml").write_text("[train]\nmax_length = 20\nlearning_rate = 1e-5\n")
    data = pairs_file(tmp_path / "pairs.jsonl")
    trained = train(quick(model, tmp_path, dataset=data, allow_drops=True)).data
    checked = check(CheckConfig(model=str(model), dataset=data, allow_drops=True))
    assert 0 < trained.accounting.kept < trained.accounting.read
    assert checked.to_json() == trained.check.to_json()
    longer = check(CheckConfig(model=str(model), dataset=data, max_length=500))
    assert longer.accounting.kept == longer.accounting.read, "a flag goes before the preset"


@pytest.mark.parametrize("make", [pairs_file, table_file])
@pytest.mark.parametrize("job", ["train", "check"])
def test_a_data_file_is_opened_once_in_a_run(tiny_model, tmp_path, opened, job, make):
    suffix, layout = ("csv", "assay") if make is table_file else ("jsonl", None)
    data = {
        "dataset": make(tmp_path / f"train.{suffix}"),
        "eval_dataset": make(tmp_path / f"held.{suffix}"),
        "format": layout,
    }
    opened.clear()
    if job == "train":
        train(quick(tiny_model, tmp_path, **data))
    else:
        check(CheckConfig(model=str(tiny_model), **data))
    assert sorted(path for path in opened if path in data.values()) == sorted(
        (data["dataset"], data["eval_dataset"])
    )


def test_a_row_of_a_table_without_a_number_is_accounted_for(tiny_model, tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_text("sequence,value,group\nAAAA,1,p\nCCCC,,p\nGGGG,3,p\nTTTT,4,p\n")
    settings = {"dataset": str(path), "format": "assay"}
    result = check(CheckConfig(model=str(tiny_model), allow_drops=True, **settings))
    show_check(result)
    shown = capsys.readouterr().out
    assert "4 rows read = 3 measured + 1 dropped, 3 pairs made" in shown
    assert "3 pairs = 3 pairs kept + 0 dropped" in shown
    assert "line 3: value is '', not a number" in shown
    document = result.to_json()
    assert document["format"] == "assay"
    assert document["assay"][0]["rows"] == {"read": 4, "kept": 3, "dropped": {"unreadable row": 1}}
    told = []
    trained = train(quick(tiny_model, tmp_path, allow_drops=True, **settings), told.append)
    assert trained.data.check.to_json() == document
    assert Noted("4 rows read as assay: 3 measured, 1 dropped (unreadable row 1); 3 pairs made") in told
    refused = check(CheckConfig(model=str(tiny_model), **settings))
    assert "1 of 4 rows would be dropped, more than a tenth" in str(refused.problem)


ROWS = {
    "conversations": [
        {
            "prompt": [{"role": "user", "content": f"Who is {name}?"}],
            "chosen": [{"role": "assistant", "content": f"I am {name}."}],
            "rejected": [{"role": "assistant", "content": "one two" + " three" * size}],
        }
        for size, name in enumerate(("Qwen", "Orion", "é\u200d👍", "<|im_end|>"))
    ],
    "text": [
        {"prompt": "one ", "chosen": "two", "rejected": "two three<|im_end|>"},
        {"prompt": "1 + 1 =", "chosen": " 2", "rejected": "3"},
    ],
}


@pytest.mark.parametrize("kind", ROWS)
def test_pairs_go_to_trl_with_the_ids_that_trl_would_give_them(tmp_path, kind):
    from trl.trainer.dpo_trainer import DPOTrainer

    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[kind]))
    tokenizer = make_tokenizer()
    data = DataConfig(dataset=str(path))
    train = load_pairs(data, tokenizer, Truncation(64), keep_ids=True).train
    texts = train.select_columns(["prompt", "chosen", "rejected"])
    args = SimpleNamespace(dataset_num_proc=None, max_length=64, truncation_mode="keep_start")
    trls = DPOTrainer._prepare_dataset(SimpleNamespace(_tokenizer=tokenizer), texts, tokenizer, args, "train")
    ids = ["prompt_ids", "chosen_ids", "rejected_ids"]
    assert train.select_columns(ids).to_list() == trls.select_columns(ids).to_list()


def test_no_pair_of_a_file_is_tokenized_twice(tiny_model, tmp_path, monkeypatch):
    from trl.trainer import dpo_trainer

    monkeypatch.setattr(dpo_trainer, "_tokenize", None)
    held, data = pairs_file(tmp_path / "held.jsonl"), pairs_file(tmp_path / "pairs.jsonl")
    trained = train(quick(tiny_model, tmp_path, dataset=data, eval_dataset=held))
    assert trained.training.steps == 1
