"""Micro-batches that go through the model together are trained on as TRL trains on them one by one."""

import pytest
import torch
from engine.parity import pairs, twice, worst_difference

from dpo_cli.engine import accumulation
from dpo_cli.training.trl_config import lora_config

TOLERANCE = 1e-5


@pytest.fixture
def together(monkeypatch):
    """Micro-batches in each packed row that has several."""
    sizes, join = [], accumulation._joined

    def counted(group, device):
        sizes.append(len(group))
        return join(group, device)

    monkeypatch.setattr(accumulation, "_joined", counted)
    return sizes


def same(run):
    ours, theirs, gap = run
    worst, where = worst_difference(ours, theirs)
    assert worst < TOLERANCE, where
    assert gap < TOLERANCE


ONE_BY_ONE = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 4}


@pytest.mark.parametrize(
    ("tokens", "most"), [(10**6, 4), (150, 2), (1, 0)], ids=["a whole step", "some groups", "each alone"]
)
def test_a_step_of_single_pairs(tokens, most, tmp_path, monkeypatch, together):
    monkeypatch.setattr(accumulation, "TOKENS", tokens)
    # 11 pairs: the last step of an epoch has fewer micro-batches.
    same(
        twice(
            "llama", pairs(11), tmp_path, **ONE_BY_ONE, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5]
        )
    )
    assert max(together, default=0) == most


def test_adapters_clipping_and_a_reference_in_the_loop(tmp_path, together):
    same(twice("qwen3", pairs(11), tmp_path, **ONE_BY_ONE, peft_config=lora_config(4), max_grad_norm=0.1))
    assert max(together) == 4


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma2", "gpt2", "minicpm3", "qwen3_moe"])
@pytest.mark.parametrize("loss", ["sigmoid", "aot", "ipo"])
def test_families_and_losses(family, loss, tmp_path):
    settings = {**ONE_BY_ONE, "per_device_train_batch_size": 2, "use_weighting": True}
    same(
        twice(
            family,
            pairs(24),
            tmp_path,
            **settings,
            loss_type=[loss],
            precompute_ref_log_probs=True,
            reference=False,
        )
    )


def test_a_router_s_loss_is_about_one_micro_batch(tmp_path, together):
    same(twice("qwen3_moe", pairs(11), tmp_path, changes={"output_router_logits": True}, **ONE_BY_ONE))
    assert not together


def test_a_step_that_was_broken_off_leaves_nothing():
    left = accumulation.Accumulation()
    batch = {name: make_batch() for name in ("input_ids", "attention_mask", "completion_mask")}
    left.plan([batch, batch])
    assert left.scores(make_batch(), lambda _: None) is None
    left.trained()
    left.plan([batch])
    assert left.scores(make_batch(), lambda _: pytest.fail("it is alone")) is None
    left.trained()
    left.trained()


def make_batch():
    return torch.ones(2, 3, dtype=torch.long)
