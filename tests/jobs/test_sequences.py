"""`dpo train` on sequences: no chat template, ten tokens, prompts of one token or none, batches of hundreds."""

import json

import pytest
from transformers import PreTrainedTokenizerFast

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.errors import UserError
from dpo_cli.jobs.train import train


def make_base(folder, **special):
    """A random tiny Llama whose tokenizer names only the special tokens that are given."""
    import language_model

    backend = language_model.make_tokenizer(("<T>",)).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    language_model.make_model(len(tokenizer), 64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(tmp_path, pairs, engine="shared-prefix", **special):
    base = make_base(tmp_path / "base", **special)
    file = tmp_path / "pairs.jsonl"
    rows = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in pairs]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return train(
        DPOTrainingConfig(
            model=str(base), dataset=str(file), output_dir=str(tmp_path / "out"), device="cpu", engine=engine,
            per_device_train_batch_size=512, gradient_accumulation_steps=1, num_train_epochs=2, learning_rate=1e-3, max_length=64,
        )
    )  # fmt: skip


USUAL = {"pad_token": "<pad>", "eos_token": "</s>"}
PAIRS = [("<T>", "ACGT" * (n % 7 + 1), "CAT" + "G" * (n % 3)) for n in range(600)]


@pytest.mark.parametrize("engine", ["shared-prefix", "trl"])
@pytest.mark.parametrize(
    ("pairs", "special"),
    [
        (PAIRS, USUAL),
        ([("<T>", "A", "C"), ("<T>", "G", "T")], USUAL),
        ([("", "ACGT", "CAT"), ("", "GT", "CA")], USUAL),
        ([("<T>", "ACGT", "CAT"), ("<T>", "GT", "CA")], {"eos_token": "</s>"}),
    ],
    ids=["a batch of hundreds", "one letter", "no prompt", "no pad token"],
)
def test_it_trains(tmp_path, pairs, special, engine):
    result = run(tmp_path, pairs, engine, **special)
    assert result.training.engine == engine
    assert result.data.train_pairs == len(pairs)
    history = [one["loss"] for one in result.training.history if "loss" in one]
    assert history[0] == pytest.approx(0.6931, abs=1e-3)


def test_a_tokenizer_without_any_special_token_is_refused_in_words(tmp_path):
    with pytest.raises(UserError, match="pad_token"):
        run(tmp_path, PAIRS[:4])
    assert not (tmp_path / "out").exists()
