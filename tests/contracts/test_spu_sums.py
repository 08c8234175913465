# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG005 (functions take the number of a party)
"""`SPUAggregator`: sums of the parties' own values in shares, with and without compute parties of their own."""

import numpy as np
import pytest

import fedray as sf
from fedray.errors import DataError, EncodingError, NotFinite, PlanError
from fedray.security.aggregation import SecureAggregator, SPUAggregator
from fedray.utils.testing import cluster_def

NAMES = ("alice", "bob", "charlie")


@pytest.fixture
def parties(shared):
    return [sf.PYU(name) for name in NAMES]


@pytest.fixture(params=[("alice", "bob"), ("bob", "charlie"), NAMES], ids="-".join)
def aggregator(request, shared):
    return SPUAggregator(sf.SPU(cluster_def(request.param)))


def values(parties, function):
    return [party(function)(k) for k, party in enumerate(parties)]


def test_sums_and_averages_equal_those_under_masks(aggregator, parties):
    masked = SecureAggregator(parties[0], parties)
    data = values(parties, lambda k: {"w": [np.full((2, 3), k + 0.1), np.float32(k)], "n": np.arange(3) * k})
    for found, expected in (
        (aggregator.sum(data), masked.sum(data)),
        (aggregator.average(data, weights=[1, 2, 5]), masked.average(data, weights=[1, 2, 5])),
        (aggregator.average(data), masked.average(data)),
    ):
        assert found["n"].dtype == expected["n"].dtype
        assert found["w"][1].dtype == expected["w"][1].dtype
        for a, b in ((found["n"], expected["n"]), *zip(found["w"], expected["w"], strict=True)):
            assert np.array_equal(a, b)  # the same words, so the same bits


def test_weights_that_parties_hold(aggregator, parties):
    data, weights = values(parties, lambda k: np.array([float(k)])), values(parties, lambda k: k + 1)
    assert aggregator.average(data, weights, largest_weight=3)[0] == pytest.approx((0 + 2 + 6) / 6, abs=1e-8)


def test_two_owners_with_compute_parties_of_their_own(parties):
    aggregator = SPUAggregator(sf.SPU(cluster_def(["bob", "charlie"])))
    data = values(parties[:2], lambda k: np.array([k + 1.0]))
    assert aggregator.sum(data) == [3.0]
    assert aggregator.sum(data) == [3.0]  # a second time, in the same session


def test_shares_written_out_give_the_same_sum(parties):
    aggregator = SPUAggregator(sf.SPU(cluster_def(NAMES)), compress=False)
    assert aggregator.sum(values(parties, lambda k: np.arange(4) + k)).tolist() == [3, 6, 9, 12]


def test_only_shares_leave_an_owner(parties):
    aggregator = SPUAggregator(sf.SPU(cluster_def(["alice", "bob"])))
    data = values(parties, lambda k: np.full(1000, float(k)))
    aggregator.sum(data)
    before = {name: len(page.entries) for name, page in sf.ledger().pages.items()}
    aggregator.sum(data)
    left = {name: page.entries[before[name] :] for name, page in sf.ledger().pages.items()}
    kinds = {(name, e.to, e.kind) for name, entries in left.items() for e in entries if e.kind != "ledger"}
    assert {(to, kind) for name, to, kind in kinds if name == "charlie"} == {
        ("alice", "share"),
        ("bob", "share"),
        ("driver", "shape"),
        ("driver", "aggregate"),
    }
    assert not [entry for entry in kinds if entry[2] in ("raw", "masked")]
    long = [e for e in left["alice"] if e.kind == "share" and e.to == "bob"]
    assert max(e.nbytes for e in long) < 1000  # seeds and signatures; its own long share stays with it


@pytest.mark.parametrize(
    ("function", "error", "match"),
    [
        (lambda k: np.array([np.nan if k == 1 else 0.0]), EncodingError, "NaN"),
        (lambda k: np.array([1e50 if k == 2 else 0.0]), EncodingError, "'charlie': .*beyond"),
        (lambda k: np.zeros(3 if k == 2 else 2), DataError, "charlie"),
        (lambda k: "text", DataError, "floats or integers"),
    ],
    ids=["nan", "large", "shape", "text"],
)
def test_values_that_cannot_be_summed(aggregator, parties, function, error, match):
    with pytest.raises(error, match=match):
        aggregator.sum(values(parties, function))
    assert aggregator.sum(values(parties, lambda k: np.array([1.0]))) == [3.0]  # the next sum works


def test_arguments_that_cannot_work(aggregator, parties, shared):
    spu = sf.SPU(cluster_def(["alice", "bob"]))
    one = values(parties[:1], lambda k: np.zeros(1))
    for use in (
        lambda: SPUAggregator("spu"),
        lambda: SPUAggregator(spu, compress="yes"),
        lambda: SPUAggregator(spu, round_timeout=0).sum(values(parties, lambda k: np.zeros(1))),
        lambda: aggregator.sum([1, 2]),
        lambda: aggregator.sum(one[0]),
        lambda: aggregator.sum(one),
        lambda: aggregator.sum(one + one),
        lambda: aggregator.average(values(parties, lambda k: np.zeros(1)), weights=[1]),
    ):
        with pytest.raises(PlanError):
            use()
    assert repr(SPUAggregator(spu)) == "SPUAggregator(SPU(alice, bob))"
    assert issubclass(NotFinite, EncodingError)
