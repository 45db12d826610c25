"""The engine gives TRL's numbers: every logged metric of ten steps, and the weights after them."""

import pytest
import torch
from engine.parity import FAMILIES, make_model, pairs, train, twice, worst_difference
from peft import LoraConfig

from dpo_cli.engine import completion_head, segment_attention
from dpo_cli.training.trl_config import lora_config

TOLERANCE = 1e-5

pytestmark = [
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*use_reentrant parameter"),
]

QUICK_FAMILIES = ["llama", "gemma2", "qwen3_moe", "minicpm3"]
LOSSES = [
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
SMOOTHED = {"exo_pair": 1e-3, "robust": 0.1}
OPTIONS = {
    "ld_alpha": {"ld_alpha": 0.3},
    "wpo": {"use_weighting": True},
    "forward_kl": {"f_divergence_type": "forward_kl"},
    "js_divergence": {"f_divergence_type": "js_divergence"},
    "alpha_divergence": {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
    "accumulation": {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2},
    "checkpointing": {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
    },
    "checkpointing, reentrant": {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"use_reentrant": True},
    },
    "several losses": {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    "label smoothing": {"label_smoothing": 0.2},
    "truncation": {"max_length": 20},
    "truncation, keep_end": {"max_length": 20, "truncation_mode": "keep_end"},
    "padding to 16": {"pad_to_multiple_of": 16},
    "one pair a step": {"per_device_train_batch_size": 1},
    "moving reference": {"sync_ref_model": True, "ref_model_sync_steps": 3},
    "precomputed": {"precompute_ref_log_probs": True, "reference": False},
}


def same(run, **kwargs):
    ours, theirs, gap = run
    worst, where = worst_difference(ours, theirs, **kwargs)
    assert worst < TOLERANCE, where
    assert gap < TOLERANCE


def usable(rows, settings):
    longest = settings.get("max_length")
    keep = settings.get("truncation_mode", "keep_start") == "keep_start" and longest
    return [r for r in rows if not keep or len(r["prompt_ids"]) < longest]


@pytest.mark.parametrize(
    "family", [f if f in QUICK_FAMILIES else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)
@pytest.mark.parametrize("path", ["rows", "segments"])
def test_full_training(family, path, tmp_path, monkeypatch):
    monkeypatch.setattr(segment_attention, "SHORT_ROW", 0 if path == "segments" else 1000)
    same(twice(family, pairs(), tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("family", list(FAMILIES))
def test_recomputed_head(family, tmp_path, monkeypatch):
    monkeypatch.setattr(completion_head, "KEEP_BYTES", 0)
    same(twice(family, pairs(seed=1), tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("family", list(FAMILIES))
def test_lora_in_every_family(family, tmp_path):
    own = {"gpt2": ["c_attn"], "phi3": ["qkv_proj"], "minicpm3": ["q_b_proj", "kv_b_proj"]}
    targets = own.get(family, ["q_proj", "v_proj"])
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        target_modules=targets,
        init_lora_weights=False,
        fan_in_fan_out=family == "gpt2",
    )
    same(twice(family, pairs(), tmp_path, peft_config=lora))


@pytest.mark.parametrize("precompute", [False, True])
def test_lora(precompute, tmp_path):
    """As `dpo train` builds it: peft's class for causal LMs passes names on that have nothing behind them."""
    same(twice("llama", pairs(), tmp_path, peft_config=lora_config(4), precompute_ref_log_probs=precompute))


@pytest.mark.parametrize(
    "name",
    [
        n
        if n in ("ld_alpha", "wpo", "accumulation", "checkpointing", "truncation")
        else pytest.param(n, marks=pytest.mark.slow)
        for n in OPTIONS
    ],
)
def test_options(name, tmp_path):
    settings = dict(OPTIONS[name])
    reference = settings.pop("reference", True)
    same(twice("llama", usable(pairs(), settings), tmp_path, reference=reference, **settings))


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss, tmp_path):
    same(twice("llama", pairs(), tmp_path, loss_type=[loss], label_smoothing=SMOOTHED.get(loss, 0.0)))


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_heads(tied, tmp_path):
    same(twice("llama", pairs(), tmp_path, changes={"tie_word_embeddings": tied}))


SHAPES = {
    "nothing in common": lambda r: {
        **r,
        "prompt_ids": [],
        "chosen_ids": [5, *r["chosen_ids"]],
        "rejected_ids": [6, *r["rejected_ids"]],
    },
    "a long common start": lambda r: {**r, "rejected_ids": [*r["chosen_ids"][:-1], 7, 8, 2]},
    "one a prefix of the other": lambda r: {**r, "rejected_ids": [*r["chosen_ids"], 9, 2]},
    "a prompt of one token": lambda r: {**r, "prompt_ids": [4]},
    "completions of one token": lambda r: {**r, "chosen_ids": [5], "rejected_ids": [6]},
}


@pytest.mark.parametrize(
    "name", [n if "prefix" in n else pytest.param(n, marks=pytest.mark.slow) for n in SHAPES]
)
@pytest.mark.parametrize("path", ["rows", "segments"])
def test_shapes_of_pairs(name, path, tmp_path, monkeypatch):
    monkeypatch.setattr(segment_attention, "SHORT_ROW", 0 if path == "segments" else 1000)
    same(twice("llama", [SHAPES[name](r) for r in pairs()], tmp_path, max_steps=5))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_bfloat16_stays_as_close_as_bfloat16_can(family, tmp_path):
    ours, theirs, _ = twice(family, pairs(), tmp_path, bf16=True)
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.02, abs=0.02)
        assert a["logps/chosen"] == pytest.approx(b["logps/chosen"], rel=5e-3)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=0.1)


def test_evaluation_and_generation_run_on_an_installed_model(tmp_path):
    """Outside of training the model must behave as if nothing had been installed."""
    from datasets import Dataset

    model = make_model("llama")
    ids = torch.tensor([[3, 4, 5, 6]])
    before = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    logits = model(ids).logits
    trainer, _, reason = train(
        model, pairs(), tmp_path, engine=True, ref_model=make_model("llama"), max_steps=1, learning_rate=0.0
    )
    assert reason is None
    assert model.config._attn_implementation.startswith(segment_attention.PREFIX)
    assert torch.equal(model(ids).logits, logits)
    assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0), before)
    metrics = trainer.evaluate(Dataset.from_list(pairs(seed=9)))
    assert metrics["eval_loss"] == pytest.approx(0.6931, abs=1e-3)
    model.save_pretrained(tmp_path / "saved")
    assert "shared_prefix" not in (tmp_path / "saved" / "config.json").read_text()
