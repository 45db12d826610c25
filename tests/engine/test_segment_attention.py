"""Attention over packed rows against a masked softmax written out in fp64."""

import itertools

import pytest
import torch

from dpo_cli.engine import segment_attention
from dpo_cli.engine.packing import IGNORED_LABEL, pack_pairs
from dpo_cli.engine.segment_attention import PackedAttentionError, attend_packed
from dpo_cli.engine.varlen_attention import varlen_index


def layout(shapes, seed=0):
    """Packed layout of pairs given as (shared, chosen rest, rejected rest) token counts."""
    draw = torch.Generator().manual_seed(seed)
    rows = [], []
    for shared, *rests in shapes:
        start = torch.randint(3, 90, (shared,), generator=draw)
        for side, rest in enumerate(rests):
            tail = torch.randint(3, 90, (rest + 1,), generator=draw)
            tail[0] = side + 1  # never the same token: the rests do differ
            rows[side].append(torch.cat((start, tail)))
    every = rows[0] + rows[1]
    length = max(map(len, every))
    ids = torch.zeros(len(every), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(every):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return pack_pairs(ids, mask, torch.full_like(ids, IGNORED_LABEL))


def allowed(packed):
    """`[N, N]`: what may look at what, from the definition."""
    total = len(packed.token_ids)
    see = torch.zeros(total, total, dtype=torch.bool)
    for a in packed.spans:
        front = range(a.start, a.chosen_start)
        for rest in (range(a.chosen_start, a.rejected_start), range(a.rejected_start, a.end)):
            row = [*front, *rest]
            for i, j in itertools.product(range(len(row)), repeat=2):
                see[row[i], row[j]] |= j <= i
    return see


def expected(query, key, value, packed, scale, window=None, softcap=None):
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    see = allowed(packed)
    if window is not None:
        distance = packed.position_ids[:, None] - packed.position_ids
        see = see & (distance < window)
    return (scores.masked_fill(~see, -torch.inf).softmax(-1) @ value).transpose(1, 2)


SHAPES = [(5, 7, 3), (0, 4, 6), (9, 0, 5), (6, 0, 0), (1, 1, 1)]


@pytest.mark.parametrize("path", ["segments", "rows"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize(
    "options", [{}, {"sliding_window": 4}, {"softcap": 2.0}, {"sliding_window": 4, "softcap": 2.0}]
)
def test_outputs_and_gradients_are_those_of_a_masked_softmax(path, heads, kv_heads, options, monkeypatch):
    monkeypatch.setattr(segment_attention, "SHORT_ROW", 0 if path == "segments" else 1000)
    packed = layout(SHAPES)
    draw = torch.Generator().manual_seed(1)
    shapes = [(1, h, len(packed.token_ids), 8) for h in (heads, kv_heads, kv_heads)]
    inputs = [torch.randn(s, generator=draw).requires_grad_() for s in shapes]
    ours = attend_packed(torch.nn.Module(), *inputs, packed, scaling=0.7, **options)
    weights = torch.randn(ours.shape, generator=draw)
    grads = torch.autograd.grad((ours * weights).sum(), inputs)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    theirs = expected(*exact, packed, 0.7, options.get("sliding_window"), options.get("softcap"))
    true_grads = torch.autograd.grad((theirs * weights).sum(), exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    for found, true in zip(grads, true_grads, strict=True):
        torch.testing.assert_close(found.double(), true, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [4, 12])
def test_values_may_be_narrower_or_wider_than_keys(width, monkeypatch):
    monkeypatch.setattr(segment_attention, "SHORT_ROW", 0)
    packed = layout(SHAPES)
    draw = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(1, 2, len(packed.token_ids), d, generator=draw) for d in (8, 8, width))
    ours = attend_packed(torch.nn.Module(), q, k, v, packed, scaling=0.7)
    theirs = expected(q.double(), k.double(), v.double(), packed, 0.7)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


def test_a_window_wider_than_every_row_changes_nothing():
    packed = layout(SHAPES)
    q, k, v = torch.randn(3, 1, 2, len(packed.token_ids), 8).unbind()
    plain = attend_packed(torch.nn.Module(), q, k, v, packed)
    wide = attend_packed(torch.nn.Module(), q, k, v, packed, sliding_window=packed.longest)
    assert torch.equal(plain, wide)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"s_aux": torch.ones(2)}, "s_aux"),
        ({"position_bias": torch.ones(1)}, "position_bias"),
        ({"dropout": 0.1}, "applies attention dropout"),
    ],
)
def test_an_argument_that_would_change_the_numbers_is_refused_by_name(given, word):
    packed = layout([(2, 2, 2)])
    q, k, v = torch.randn(3, 1, 2, len(packed.token_ids), 8).unbind()
    with pytest.raises(PackedAttentionError, match=word):
        attend_packed(torch.nn.Module(), q, k, v, packed, **given)


def test_a_layer_that_keeps_its_window_to_itself_is_refused():
    packed = layout([(2, 2, 2)])
    q, k, v = torch.randn(3, 1, 2, len(packed.token_ids), 8).unbind()
    layer = torch.nn.Module()
    layer.layer_idx, layer.config = 0, type("Config", (), {"layer_types": ["sliding_attention"]})
    with pytest.raises(PackedAttentionError, match="window"):
        attend_packed(layer, q, k, v, packed)


def test_the_index_for_the_cuda_kernel_names_the_right_keys():
    """The kernel aligns causality at the bottom right; done by hand here, on the index it would be given."""
    packed = layout(SHAPES)
    q, k, v = torch.randn(3, 2, len(packed.token_ids), 8).double().unbind()
    index = varlen_index(packed)
    out = torch.empty_like(q)
    for (a, b), (c, d) in zip(
        itertools.pairwise(index.query_ends.tolist()),
        itertools.pairwise(index.key_ends.tolist()),
        strict=True,
    ):
        keys = index.gather[c:d]
        see = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
        scores = (q[:, a:b] @ k[:, keys].transpose(1, 2) * 0.5).masked_fill(~see, -torch.inf)
        out[:, a:b] = scores.softmax(-1) @ v[:, keys]
    torch.testing.assert_close(out.transpose(0, 1)[None], expected(q[None], k[None], v[None], packed, 0.5))
    assert index.longest_key == packed.longest
    assert index.longest_query == max(max(s.shared, s.chosen, s.rejected) for s in packed.spans)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="varlen attention on CUDA: there is no CUDA device here"
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, 4])
def test_varlen_attention_on_cuda(dtype, window):
    packed = layout(SHAPES)
    q, k, v = (torch.randn(1, h, len(packed.token_ids), 64) for h in (4, 2, 2))
    theirs = expected(q.double(), k.double(), v.double(), packed, 0.125, window)
    from dpo_cli.engine.packing import PackedPairs

    moved = {n: x.cuda() if isinstance(x, torch.Tensor) else x for n, x in vars(packed).items()}
    ours = attend_packed(
        torch.nn.Module(),
        *(x.cuda().to(dtype) for x in (q, k, v)),
        PackedPairs(**moved),
        scaling=0.125,
        sliding_window=window,
    )
    torch.testing.assert_close(ours.cpu().double(), theirs, rtol=2e-2, atol=2e-2)
