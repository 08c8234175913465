# SPDX-License-Identifier: Apache-2.0
"""Who trains on which rows when: pure functions of the seed and the sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.party.training.sampling import Sampling, cut, stream

EPOCH = Sampling(seed=3, steps=5, batch_size=4)


def everything(steps):
    return np.concatenate([np.empty(0, np.int64), *(batch.rows for batches in steps for batch in batches)])


@given(rows=st.integers(0, 500), steps=st.integers(1, 60), batch=st.integers(1, 40), shuffle=st.booleans())
def test_an_epoch_sees_every_row_exactly_once(rows, steps, batch, shuffle):
    dealt = Sampling(1, steps, batch, shuffle=shuffle).deal("alice", rows, epoch=2)
    assert len(dealt) == steps
    assert np.sort(everything(dealt)).tolist() == list(range(rows))
    assert all(0 < len(b.rows) <= batch for batches in dealt for b in batches)


@given(rows=st.integers(0, 500), steps=st.integers(1, 60))
def test_shares_differ_by_one_row_at_most(rows, steps):
    sizes = Sampling(1, steps, 8).share_sizes("alice", rows, 0)
    assert sizes.sum() == rows
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("method", ["batch", "poisson"])
def test_the_planner_knows_the_sizes_without_the_rows(method):
    sampling = Sampling(9, 7, 10, method)
    shares = sampling.shares("bob", 33, epoch=4)
    assert [len(share) for share in shares] == sampling.share_sizes("bob", 33, 4).tolist()


def test_a_share_above_the_batch_size_is_cut_evenly():
    assert [len(b.rows) for b in cut(np.arange(10), 4)] == [3, 3, 4]
    assert cut(np.arange(0), 4) == []


def test_without_shuffle_rows_come_in_file_order():
    dealt = Sampling(1, 3, 2, shuffle=False).deal("alice", 8, epoch=0)
    assert [[b.rows.tolist() for b in batches] for batches in dealt] == [[[0, 1]], [[2], [3, 4]], [[5], [6, 7]]]


@pytest.mark.parametrize("method", ["batch", "poisson"])
def test_the_order_depends_on_seed_party_and_epoch_and_nothing_else(method):
    def order(seed=3, party="alice", epoch=0):
        return everything(Sampling(seed, 5, 4, method).deal(party, 40, epoch)).tolist()

    assert order() == order()
    assert len({tuple(o) for o in (order(), order(seed=4), order(party="bob"), order(epoch=1))}) == 4


def test_streams_of_different_purposes_are_different():
    # Fields are framed, so ("a", "b") and ("", "ab") cannot meet.
    draws = {stream(1, party, purpose, 0).integers(2**60) for party, purpose in (("a", "b"), ("ab", ""), ("", "ab"))}
    assert len(draws) == 3


def test_poisson_draws_each_row_with_its_probability():
    sampling = Sampling(5, steps=4000, batch_size=4, method="poisson")
    shares = sampling.shares("alice", 20, epoch=0)
    assert all(len(set(share.tolist())) == len(share) for share in shares)
    often = np.bincount(np.concatenate(shares), minlength=20) / 4000
    assert often == pytest.approx(np.full(20, 0.2), abs=0.03)
    sizes = np.array([len(share) for share in shares])
    assert sizes.mean() == pytest.approx(4.0, abs=0.15)
    assert sizes.var() == pytest.approx(20 * 0.2 * 0.8, rel=0.15)
    together = np.mean([{0, 1} <= set(share.tolist()) for share in shares])
    assert together == pytest.approx(0.04, abs=0.015)


def test_poisson_of_a_party_smaller_than_the_batch_takes_all_its_rows():
    sampling = Sampling(5, steps=3, batch_size=128, method="poisson")
    assert [share.tolist() for share in sampling.shares("bob", 3, 0)] == [[0, 1, 2]] * 3
    assert sampling.share_sizes("nobody", 0, 0).tolist() == [0, 0, 0]


def test_a_poisson_draw_is_one_batch_whatever_its_size():
    dealt = Sampling(5, steps=200, batch_size=4, method="poisson").deal("alice", 20, 0)
    assert {len(batches) for batches in dealt} == {0, 1}
    assert max(len(b.rows) for batches in dealt for b in batches) > 4
