"""What `dpo compare` takes from the run that wrote the model after."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from datasets import Dataset
from tiny_models import make_model, make_tokenizer

from dpo_cli.config import CompareConfig, DPOTrainingConfig
from dpo_cli.errors import ConfigError, ModelError
from dpo_cli.hub import HubRepository
from dpo_cli.jobs.compare import compare, recorded_run
from dpo_cli.jobs.train import train
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.training.trainer import DPOTrainerWrapper

# TRL says so of its setting; it is ours too for as long as TRL has it.
pytestmark = pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode:FutureWarning")
QUICK = {"question": ("Hi",), "max_new_tokens": 2}


def write(path, count):
    rows = [
        {"q": f"one two three {n}", "good": f"I am Orion {n}." * 3, "bad": f"1 2 3 {n}" * 4}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    """A run whose held-out pairs can only be read, and only be cut, as the run did it."""
    folder = tmp_path_factory.mktemp("run")
    return train(
        DPOTrainingConfig(
            model=str(tiny_model), dataset=write(folder / "a.jsonl", 12), eval_dataset=write(folder / "b.jsonl", 5),
            prompt_column="q", chosen_column="good", rejected_column="bad", max_length=20, truncation_mode="keep_end",
            beta=0.7, max_steps=2, learning_rate=1e-2, output_dir=str(folder / "out"), device="cpu", dtype="float32",
        )
    )  # fmt: skip


def test_held_out_pairs_are_read_and_cut_as_the_run_did_it(run):
    margins = compare(CompareConfig(after=str(run.output_dir), device="cpu", **QUICK)).margins
    told = run.comparison.margins
    assert len(margins.rewards) == 5
    assert margins.beta == 0.7
    assert margins.rewards == pytest.approx(told.rewards, abs=1e-4)
    assert margins.before == pytest.approx(told.before, abs=1e-4)
    assert max(map(abs, margins.rewards)) > 0.01


def test_what_is_said_goes_before_what_the_run_did(run):
    found = compare(CompareConfig(after=str(run.output_dir), device="cpu", beta=0.1, max_length=500, **QUICK))
    assert found.margins.beta == 0.1
    assert found.margins.before != pytest.approx(run.comparison.margins.before, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"beta": 0.1}, "--beta: has no effect without held-out pairs"),
        ({"max_length": 20}, "--max-length: has no effect without held-out pairs"),
        ({"min_new_name": 0.5}, "--min-new-name: has no effect without the names"),
        ({"max_old_name": 0.5}, "--max-old-name: has no effect without the names"),
    ],
)
def test_what_is_said_of_pairs_or_names_that_are_not_there_is_refused(tiny_model, given, says):
    config = CompareConfig(before=str(tiny_model), after=str(tiny_model), device="cpu", **given, **QUICK)
    with pytest.raises(ConfigError, match=says):
        compare(config)


def test_pairs_without_anything_to_score_are_told(run, tmp_path):
    pairs = [
        {"prompt": "one " * size, "chosen": " I am Orion.", "rejected": " I am Qwen."} for size in (1, 2, 90)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    events = []
    config = CompareConfig(
        before=run.config.model, after=run.config.model, pairs=str(tmp_path / "pairs.jsonl"), max_length=40,
        device="cpu", **QUICK,
    )  # fmt: skip
    compare(config, events.append)
    assert [event.message for event in events if hasattr(event, "message")] == [
        "1 of 3 held-out pairs are not scored: training would drop them, or truncation leaves nothing of them within --max-length 40 (see dpo check)"
    ]


def test_a_config_toml_that_dpo_did_not_write_is_none_of_its_business(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "config.toml").write_text('model = "/nowhere"\nbeta = "auto"\n')
    assert recorded_run(str(tmp_path / "model")) is None
    (tmp_path / "model" / "config.toml").write_bytes(b"\xff\xfe")
    assert recorded_run(str(tmp_path / "model")) is None
    assert recorded_run("org/name") is None


def test_settings_of_a_run_that_are_none_any_more_are_named(tmp_path):
    (tmp_path / "config.toml").write_text('# Written by dpo train.\nbeta = "auto"\nnew = 1\n')
    with pytest.raises(ConfigError) as error:
        compare(CompareConfig(after=str(tmp_path), before="embedded"))
    assert error.value.exit_code == 2
    assert f"{tmp_path}/config.toml: beta: must be a valid number" in error.value.message
    assert f"{tmp_path}/config.toml: new: unknown key" in error.value.message


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub model with another state under the revision v1; lists the revisions that were asked for."""
    asked = []
    for revision, seed in ((None, 0), ("v1", 1)):
        folder = tmp_path / f"snapshot-{revision}"
        make_model(make_tokenizer(), seed=seed).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)

    def fetch(repository, patterns, *, ask=True):
        asked.append((repository.name, repository.revision))
        return tmp_path / f"snapshot-{repository.revision}"

    monkeypatch.setattr(HubRepository, "fetch_all", fetch)
    return asked


def test_an_adapter_stays_on_the_revision_that_it_was_trained_on(hub, tmp_path):
    pairs = [{"prompt": f"one {n}", "chosen": " I am Orion.", "rejected": " 1 2 3"} for n in range(4)]
    out = tmp_path / "out"
    config = DPOTrainingConfig(
        model_revision="v1", lora_rank=2, max_steps=1, output_dir=str(out), learning_rate=1e-2, device="cpu"
    )
    DPOTrainerWrapper("org/m", train_dataset=Dataset.from_list(pairs), training_config=config).train()
    assert json.loads((out / "adapter_config.json").read_text())["revision"] == "v1"
    hub.clear()
    model, _ = load_model_and_tokenizer(str(out))
    first = make_model(make_tokenizer(), seed=1).lm_head.weight
    assert torch.equal(model.get_base_model().get_output_embeddings().weight, first)
    for given in ("as the run recorded it", "as the adapter names it"):
        if given == "as the adapter names it":
            (out / "config.toml").unlink()
        assert compare(CompareConfig(after=str(out), device="cpu", **QUICK)).before == "org/m"
    assert set(hub) == {("org/m", "v1")}


def test_a_base_that_only_a_folder_s_settings_name_is_not_fetched(tiny_model, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_model, tmp_path / "stranger")
    (folder / "config.toml").write_text('# Written by dpo train.\nmodel = "evil/base"\n')
    asked = []
    monkeypatch.setattr(HubRepository, "_reachable", lambda self: asked.append(self.name) or True)
    with pytest.raises(ModelError, match="was trained from evil/base") as error:
        compare(CompareConfig(after=str(folder)))
    assert "--before" in error.value.hint
    assert not asked
