"""The packed layout against rows spelled out by hand and at random."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_cli.engine.packing import IGNORED_LABEL, is_right_padded, pack_pairs

PAD = 0


def batch(pairs):
    """TRL's batch of (prompt, chosen, rejected) token lists."""
    rows = [(p, c) for p, c, _ in pairs] + [(p, r) for p, _, r in pairs]
    length = max(len(p) + len(c) for p, c in rows)
    ids = torch.full((len(rows), length), PAD)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED_LABEL)
    for i, (prompt, completion) in enumerate(rows):
        row = torch.tensor(prompt + completion)
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
        labels[i, len(prompt) : len(row)] = row[len(prompt) :]
    return ids, mask, labels


tokens = st.lists(st.integers(1, 3), min_size=1, max_size=7)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(tokens, tokens, tokens), min_size=1, max_size=4), st.booleans())
def test_every_row_and_every_prediction_can_be_read_back(pairs, keep_last):
    ids, mask, labels = batch(pairs)
    packed = pack_pairs(ids, mask, labels, keep_last=keep_last)
    fed = mask.sum(1) if keep_last else (mask.sum(1) - 1).clamp(min=1)
    for r in range(len(ids)):
        index = packed.row_index[r, : fed[r]]
        assert packed.token_ids[index].tolist() == ids[r, : fed[r]].tolist()
        assert packed.position_ids[index].tolist() == list(range(fed[r]))
    read_back = packed.row_index.flatten()[packed.owner]
    assert read_back.tolist() == list(range(len(packed.token_ids)))
    # Scatter the targets themselves: what arrives must be TRL's shifted labels.
    targets = packed.to_rows(packed.scored_targets)
    wanted = labels[:, 1:]
    assert targets.tolist() == wanted.masked_fill(wanted == IGNORED_LABEL, 0).tolist()
    places = packed.to_rows(packed.scored_positions)
    for r in range(len(ids)):
        for t in range(ids.shape[1] - 1):
            if wanted[r, t] != IGNORED_LABEL:
                assert places[r, t] == packed.row_index[r, t]


def test_what_both_rows_begin_with_is_kept_once_and_scored_once():
    ids, mask, labels = batch([([5, 6], [7, 8, 9], [7, 8, 1, 2])])
    packed = pack_pairs(ids, mask, labels)
    assert packed.spans == ((0, 4, 0, 1),)
    assert packed.token_ids.tolist() == [5, 6, 7, 8, 1]
    assert packed.position_ids.tolist() == [0, 1, 2, 3, 4]
    assert packed.scored_targets.tolist() == [7, 8, 9, 1, 2]  # 7 and 8 once, though both rows count them
    assert packed.scored_positions.tolist() == [1, 2, 3, 3, 4]


def test_two_equal_completions_need_one_row():
    packed = pack_pairs(*batch([([1], [2, 3], [2, 3])]))
    assert packed.token_ids.tolist() == [1, 2]
    assert packed.scored_targets.tolist() == [2, 3]


def test_pairs_without_a_common_token_share_nothing():
    ids, mask, labels = batch([([1], [2, 3], [4])])
    ids[1, 0] = 3  # the rejected row has a prompt of its own
    packed = pack_pairs(ids, mask, labels)
    assert packed.spans == ((0, 0, 2, 1),)
    assert packed.token_ids.tolist() == [1, 2, 3]
    assert packed.position_ids.tolist() == [0, 1, 0]
    assert packed.scored_positions.tolist() == [0, 1, 2]
    assert packed.scored_targets.tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("mask", "right"), [([[1, 1, 0]], True), ([[0, 1, 1]], False), ([[1, 0, 1]], False), ([[0, 0, 0]], False)]
)
def test_only_right_padding_is_packed(mask, right):
    assert is_right_padded(torch.tensor(mask)) is right
