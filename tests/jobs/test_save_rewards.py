"""`--save-rewards`, held against log-probabilities summed token by token, on pairs of plain text."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.errors import ConfigError, OutputError
from dpo_cli.jobs.train import train

PAIRS = [
    {"prompt": "<BRN>", "chosen": "CAGGTACGT", "rejected": "CAGGTAGGG"},
    {"prompt": "<LIV>", "chosen": "AAGGTAAGT", "rejected": "TTCGTCCCC"},
    {"prompt": "<BRN>", "chosen": "CTGGTGAGT", "rejected": "CAGGTATTTAC"},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from language_model import pretrain

    folder = tmp_path_factory.mktemp("base")
    texts = [(pair["prompt"], pair[side]) for pair in PAIRS for side in ("chosen", "rejected")]
    pretrain(folder, texts, ("<CON>", "<BRN>", "<LIV>"), seed=0)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")
    return file


def log_prob(folder, prompt, completion):
    """One token at a time, the end included."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(prompt + completion + "</s>")["input_ids"]
    with torch.no_grad():
        rows = [
            model(torch.tensor([ids[:at]])).logits[0, -1].log_softmax(-1)[ids[at]]
            for at in range(1, len(ids))
        ]
    return float(sum(rows))


def config(base, pairs, tmp_path, **more):
    return DPOTrainingConfig(
        model=str(base), dataset=str(pairs), output_dir=str(tmp_path / "out"), beta=0.3, learning_rate=1e-3,
        per_device_train_batch_size=64, gradient_accumulation_steps=1, num_train_epochs=3, device="cpu", **more,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["shared-prefix", "trl"])
def test_rewards_are_beta_times_the_change_of_log_probabilities(base, pairs, tmp_path, engine):
    file = tmp_path / "rewards.jsonl"
    result = train(
        config(base, pairs, tmp_path, eval_dataset=str(pairs), save_rewards=str(file), engine=engine)
    )
    assert result.training.engine == engine
    saved = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["row"] for one in saved] == [1, 2, 3]
    for one, pair in zip(saved, PAIRS, strict=True):
        for side in ("chosen", "rejected"):
            text = (pair["prompt"], pair[side])
            expected = 0.3 * (log_prob(tmp_path / "out", *text) - log_prob(base, *text))
            assert one[side] == pytest.approx(expected, abs=1e-4)
        assert one["margin"] == pytest.approx(one["chosen"] - one["rejected"])
    assert max(abs(one["margin"]) for one in saved) > 0.01


@pytest.mark.parametrize("engine", ["shared-prefix", "trl"])
@pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode:FutureWarning")  # so says TRL
@pytest.mark.parametrize(("mode", "max_length"), [("keep_end", 8), ("keep_end", 11), ("keep_start", 6)])
def test_the_rewards_of_cut_pairs_are_those_of_the_tokens_trained_on(
    base, pairs, tmp_path, mode, max_length, engine
):
    result = train(
        config(
            base, pairs, tmp_path, eval_dataset=str(pairs), truncation_mode=mode, max_length=max_length,
            engine=engine, eval_steps=3, allow_drops=True, dtype="float32",
        )
    )  # fmt: skip
    assert result.training.engine == engine
    theirs = [one for one in result.training.history if "eval_rewards/margins" in one][-1]
    assert theirs["step"] == result.training.steps == 3
    ours = result.comparison.margins.rewards
    assert len(ours) == result.data.eval_pairs
    assert sum(ours) / len(ours) == pytest.approx(theirs["eval_rewards/margins"], abs=1e-5)
    assert abs(sum(ours)) > 0.005


def test_without_held_out_pairs_it_stops_before_training(base, pairs, tmp_path):
    with pytest.raises(ConfigError, match="--save-rewards: there are no held-out pairs"):
        train(config(base, pairs, tmp_path, save_rewards=str(tmp_path / "r.jsonl")))
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_written_stops_it_before_training(base, pairs, tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        train(
            config(
                base, pairs, tmp_path, eval_dataset=str(pairs), save_rewards=str(tmp_path / "no" / "r.jsonl")
            )
        )
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_output_folder_would_go_with_the_earlier_run(base, pairs, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="is in the output folder"):
        train(
            config(
                base, pairs, tmp_path, eval_dataset=str(pairs), save_rewards=str(tmp_path / "out" / "r.jsonl")
            )
        )


@pytest.mark.parametrize(
    "kind", ["the data itself", "a note", "weights", "a folder", "a device", "a link to the data"]
)
def test_a_file_that_it_did_not_write_is_never_replaced(base, pairs, tmp_path, kind):
    own = tmp_path / "own"
    place = {"the data itself": pairs, "a folder": tmp_path, "a device": Path("/dev/null")}.get(kind, own)
    if kind in {"a note", "weights"}:
        own.write_bytes(b"mine" if kind == "a note" else (base / "model.safetensors").read_bytes())
    elif kind == "a link to the data":
        own.symlink_to(pairs)
    before = None if place.is_dir() else place.read_bytes()
    with pytest.raises(
        OutputError, match=r"--save-rewards .*: (exists and was not written by dpo|is a folder|is not a file)"
    ):
        train(config(base, pairs, tmp_path, eval_dataset=str(pairs), save_rewards=str(place)))
    assert before is None or place.read_bytes() == before
    assert Path("/dev/null").is_char_device()
    assert not (tmp_path / "out").exists()


def test_rewards_of_an_earlier_run_are_replaced(base, pairs, tmp_path):
    file = tmp_path / "r.jsonl"
    file.write_text('{"row": 1, "chosen": 0.0, "rejected": 0.0, "margin": 0.0}\n')
    train(config(base, pairs, tmp_path, eval_dataset=str(pairs), save_rewards=str(file)))
    assert len(file.read_text().splitlines()) == 3
