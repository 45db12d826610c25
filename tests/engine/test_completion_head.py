"""The LM head on completion tokens against log_softmax and autograd."""

import pytest
import torch

from dpo_cli.engine import completion_head, vocabulary_tiles
from dpo_cli.engine.completion_head import score_tokens
from dpo_cli.engine.vocabulary_tiles import HeadSettings

ALL = frozenset({"entropy", "log_sum_sq_probs", "mean_logits", "is_top1"})


def expected(hidden, weight, bias, targets, settings):
    logits = hidden @ weight.t() + (0 if bias is None else bias)
    logits = logits * settings.logit_scale
    if settings.softcap is not None:
        logits = settings.softcap * torch.tanh(logits / settings.softcap)
    log_p = logits.log_softmax(-1)
    return {
        "log_probs": log_p.gather(1, targets[:, None])[:, 0],
        "entropy": -(log_p.exp() * log_p).sum(-1),
        "log_sum_sq_probs": (2 * log_p).logsumexp(-1),
        "mean_logits": logits.mean(-1),
        "is_top1": logits.argmax(-1) == targets,
    }


def make(count=23, width=16, vocabulary=57, *, bias=False, seed=0, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, width, generator=draw) * scale
    weight = torch.randn(vocabulary, width, generator=draw)
    offset = torch.randn(vocabulary, generator=draw) if bias else None
    targets = torch.randint(0, vocabulary, (count,), generator=draw)
    targets[: count // 2] = (hidden @ weight.t())[: count // 2].argmax(
        -1
    )  # half of them are the model's choice
    return hidden, weight, offset, targets


@pytest.fixture(params=["kept", "again"])
def way(request, monkeypatch):
    monkeypatch.setattr(vocabulary_tiles, "TOKENS", 8)
    monkeypatch.setattr(vocabulary_tiles, "COLUMNS", 13)  # several tiles, the last one narrower
    if request.param == "again":
        monkeypatch.setattr(completion_head, "KEEP_BYTES", 0)
    return request.param


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("settings", [HeadSettings(), HeadSettings(0.25), HeadSettings(1.5, 3.0)])
@pytest.mark.parametrize("frozen", [False, True])
def test_scores_and_gradients(way, bias, settings, frozen):
    hidden, weight, offset, targets = make(bias=bias)
    hidden.requires_grad_()
    weight.requires_grad_(not frozen)
    if offset is not None:
        offset.requires_grad_(not frozen)
    ours = score_tokens(hidden, weight, offset, targets, settings=settings, outputs=ALL)
    inputs = [x for x in (hidden, weight, offset) if x is not None and x.requires_grad]
    exact = [
        x if x is None else x.detach().double().requires_grad_(x.requires_grad)
        for x in (hidden, weight, offset)
    ]
    theirs = expected(*exact, targets, settings)
    for name, values in theirs.items():
        found = getattr(ours, name)
        if name == "is_top1":
            assert found.tolist() == values.tolist()
        else:
            torch.testing.assert_close(found.double(), values, rtol=1e-5, atol=2e-5)
    upstream = torch.linspace(-2, 3, len(targets))
    grads = torch.autograd.grad((ours.log_probs * upstream).sum(), inputs)
    true = torch.autograd.grad(
        (theirs["log_probs"] * upstream).sum(), [x for x in exact if x is not None and x.requires_grad]
    )
    for found, wanted in zip(grads, true, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


def test_logits_that_rise_by_hundreds_do_not_overflow(way):
    hidden, weight, _, targets = make()
    weight[30:] *= 60
    hidden.requires_grad_()
    weight.requires_grad_()
    ours = score_tokens(hidden, weight, None, targets, settings=HeadSettings(), outputs=ALL)
    exact = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    theirs = expected(*exact, None, targets, HeadSettings())
    torch.testing.assert_close(ours.log_probs.double(), theirs["log_probs"], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(ours.entropy.double(), theirs["entropy"], rtol=1e-3, atol=1e-3)
    found = torch.autograd.grad(ours.log_probs.sum(), (hidden, weight))
    true = torch.autograd.grad(theirs["log_probs"].sum(), exact)
    for a, b in zip(found, true, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-2)


def test_of_equal_logits_the_first_is_the_top_one(way):
    hidden = torch.ones(4, 1)
    weight = torch.zeros(40, 1)
    weight[[5, 9, 33]] = 1.0
    targets = torch.tensor([5, 9, 33, 0])
    ours = score_tokens(hidden, weight, None, targets, settings=HeadSettings(), outputs=ALL)
    assert ours.is_top1.tolist() == [True, False, False, False]


@pytest.mark.parametrize("frozen", [False, True])
def test_bfloat16_rounds_products_and_nothing_else(way, frozen):
    hidden, weight, _, targets = make(scale=0.3)
    hidden.requires_grad_()
    weight.requires_grad_(not frozen)
    with torch.autocast("cpu", torch.bfloat16):
        ours = score_tokens(hidden, weight, None, targets, settings=HeadSettings(), outputs=ALL)
    assert ours.log_probs.dtype == torch.float32
    theirs = expected(hidden, weight, None, targets, HeadSettings())
    torch.testing.assert_close(ours.log_probs, theirs["log_probs"], rtol=0.02, atol=0.02)
    (found,) = torch.autograd.grad(ours.log_probs.sum(), (hidden,))
    (true,) = torch.autograd.grad(theirs["log_probs"].sum(), (hidden,))
    torch.testing.assert_close(found, true, rtol=0.05, atol=0.05)


def test_no_tokens_give_no_scores_and_a_gradient_of_zero():
    hidden, weight = torch.randn(0, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    ours = score_tokens(
        hidden, weight, None, torch.empty(0, dtype=torch.long), settings=HeadSettings(), outputs=ALL
    )
    assert all(len(x) == 0 for x in ours)
    ours.log_probs.sum().backward()
    assert weight.grad.abs().sum() == 0


def test_nothing_of_vocabulary_size_is_kept_for_a_frozen_head():
    hidden, weight, _, targets = make()
    hidden.requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        score_tokens(hidden, weight, None, targets, settings=HeadSettings(), outputs=ALL)
    assert (len(targets), len(weight)) not in kept
