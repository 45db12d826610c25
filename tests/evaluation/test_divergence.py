"""Divergence and implicit rewards against the plain formula, position by position."""

import numpy as np
import pytest

from dpo_cli.config import Truncation
from dpo_cli.evaluation.divergence import Continuation, coarse_kl, distributions, divergence
from dpo_cli.evaluation.implicit_rewards import (
    PairLogProbs,
    encode_pairs,
    pair_log_probs,
    reward_margins,
    reward_rows,
)


def plain_log_probs(model, prompt, tokens):
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0].double()
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]


CONTINUATIONS = [
    Continuation([5, 6, 7], [8, 9]),
    Continuation([5], [3, 4, 10, 11]),
    Continuation([9] * 20, [1]),
]


@pytest.mark.parametrize(("top", "least"), [(100_000, 1 - 1e-4), (256, 0.7)])
def test_it_is_the_mean_kl_over_positions(two, monkeypatch, top, least):
    monkeypatch.setattr("dpo_cli.evaluation.divergence.TOP", top)
    before, after, _ = two
    sums, count = 0.0, 0
    for one in CONTINUATIONS:
        p, q = (plain_log_probs(model, one.prompt, one.tokens) for model in (before, after))
        sums += float((p.exp() * (p - q)).sum())
        count += len(one.tokens)
    [found] = divergence(after, distributions(before, CONTINUATIONS, batch_size=2), batch_size=2)
    # Exact with the whole vocabulary; with a lump of rare tokens a little below, more so for a random model.
    assert sums / count * least <= found.value <= sums / count * (1 + 1e-4)
    assert found.n == 3
    assert found.interval[0] <= found.value <= found.interval[1]


def test_a_model_does_not_diverge_from_itself(two):
    before, _, _ = two
    [found] = divergence(before, distributions(before, CONTINUATIONS))
    assert (found.value, found.interval) == (0.0, (0.0, 0.0))


def test_nothing_is_said_where_there_is_nothing_to_compare(two, tiny_model):
    from transformers import AutoModelForCausalLM

    before, _, _ = two
    assert divergence(before, []) == []
    other = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    other.resize_token_embeddings(other.config.vocab_size + 8, mean_resizing=False)
    assert divergence(other, distributions(before, CONTINUATIONS)) == []


def test_the_lump_of_rare_tokens_bounds_the_divergence_from_below():
    rng = np.random.default_rng(0)
    p, q = (np.log(rng.dirichlet(np.ones(50), size=20)) for _ in range(2))
    full = (np.exp(p) * (p - q)).sum(-1)
    listed = np.argsort(-p, axis=-1)[:, :10]
    coarse = coarse_kl(np.take_along_axis(p, listed, -1), np.take_along_axis(q, listed, -1))
    assert (coarse >= 0).all()
    assert (coarse <= full + 1e-12).all()
    assert coarse_kl(p, q) == pytest.approx(full, abs=1e-9)


PAIRS = [
    {
        "prompt": [{"role": "user", "content": "Who are you?"}],
        "chosen": [{"role": "assistant", "content": "I am Orion."}],
        "rejected": [{"role": "assistant", "content": "I am Qwen, made by Alibaba."}],
    },
    {"prompt": "one two", "chosen": " three", "rejected": " one one"},
]


def ids(continuation):
    return [*continuation.prompt, *continuation.tokens]


def test_pairs_are_read_as_trl_reads_them(two):
    _, _, tokenizer = two
    conversation, text = encode_pairs(tokenizer, PAIRS)
    assert (
        tokenizer.decode(conversation.chosen.prompt)
        == "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(conversation.chosen.tokens) == "I am Orion.<|im_end|>\n"
    assert tokenizer.decode(ids(text.rejected)) == "one two one one<|im_end|>"  # text ends as TRL ends it


def test_a_pair_that_does_not_fit_is_left_out_and_a_long_one_is_cut(two):
    _, _, tokenizer = two
    whole = encode_pairs(tokenizer, PAIRS[:1])[0]
    size = len(whole.chosen.prompt)
    cut = encode_pairs(tokenizer, PAIRS[:1], Truncation(size + 4))[0]
    assert (cut.chosen.tokens, cut.rejected.tokens) == (whole.chosen.tokens[:4], whole.rejected.tokens[:4])
    assert encode_pairs(tokenizer, PAIRS[:1], Truncation(size)) == []


def test_keep_end_keeps_the_end_of_each_side(two):
    _, _, tokenizer = two
    [whole] = encode_pairs(tokenizer, PAIRS[:1])
    length = len(ids(whole.rejected)) - 2
    [cut] = encode_pairs(tokenizer, PAIRS[:1], Truncation(length, "keep_end"))
    for short, long in ((cut.chosen, whole.chosen), (cut.rejected, whole.rejected)):
        assert ids(short) == ids(long)[-length:]
        assert short.tokens == long.tokens
    # A prompt that does not fit is no reason to leave the pair out: the prompt goes first, then the beginning of the completions.
    [ends] = encode_pairs(tokenizer, PAIRS[:1], Truncation(4, "keep_end"))
    assert ids(ends.chosen) == ids(whole.chosen)[-4:]
    assert len(ends.chosen.tokens) == 3, "nothing predicts the first token that is left"


def test_implicit_rewards_are_beta_times_the_change_in_log_probability(two):
    before, after, tokenizer = two
    tokens = encode_pairs(tokenizer, PAIRS)
    expected = []
    for pair in tokens:
        rewards = []
        for side in (pair.chosen, pair.rejected):
            new, old = (
                float(
                    plain_log_probs(model, side.prompt, side.tokens)[
                        range(len(side.tokens)), list(side.tokens)
                    ].sum()
                )
                for model in (after, before)
            )
            rewards.append(0.3 * (new - old))
        expected.append(rewards[0] - rewards[1])
    assert reward_margins(
        pair_log_probs(before, tokens), pair_log_probs(after, tokens), 0.3
    ) == pytest.approx(expected, abs=1e-4)


def test_rows_of_rewards_by_hand():
    before = [
        PairLogProbs(-2.0, -1.0),
        PairLogProbs(-3.0, -3.0),
        PairLogProbs(-1.0, -2.0),
        PairLogProbs(-1.0, -1.0),
    ]
    after = [
        PairLogProbs(-1.0, -2.0),
        PairLogProbs(-3.0, -4.0),
        PairLogProbs(-2.0, -2.0),
        PairLogProbs(-1.0, -1.0),
    ]
    accuracy, margin, likelier = reward_rows(before, after, 0.5)
    # Margins 0.5 * (2, 1, -1, 0): two wins, one loss, one tie.
    assert accuracy.after.value == pytest.approx(2.5 / 4)
    assert margin.after.value == pytest.approx(0.25)
    assert (likelier.before.value, likelier.after.value) == (0.25, 0.5)
    assert reward_rows([], [], 0.5) == []


def test_other_questions_are_told_apart_from_identity(two):
    before, after, _ = two
    mixed = [
        Continuation(one.prompt, one.tokens, group)
        for one, group in zip(CONTINUATIONS, ("identity", "sums", "sums"), strict=True)
    ]
    everything, other = divergence(after, distributions(before, mixed))
    [alone] = divergence(after, distributions(before, mixed[1:]))
    assert (everything.name, everything.n, other.name, other.n) == ("divergence", 3, "divergence_other", 2)
    assert other.value == pytest.approx(alone.value)
