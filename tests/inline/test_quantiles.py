# SPDX-License-Identifier: Apache-2.0
"""Quantiles and approximate extremes: what they are, what of them leaves, and what strict egress refuses."""

from collections import Counter

import numpy as np
import pytest

import fedray as sf
from fedray.data import extremes
from fedray.data.ndarray import load
from fedray.errors import DataError, EgressDenied, PlanError
from fedray.party.door.egress import Kind
from fedray.security.aggregation import SecureAggregator

RNG = np.random.default_rng(2)
ALICE = RNG.normal(3, 2, (30, 4)).astype(np.float32)
BOB = RNG.normal(-1, 5, (7, 4)).astype(np.float32)
WHOLE = np.concatenate([ALICE, BOB])


class Open:
    """An aggregator without protection, which counts its sums and may leave a party out of some."""

    def __init__(self, without=()):
        self.sums, self.without = 0, without

    def sum(self, data):
        self.sums += 1
        return np.sum([sf.reveal(one) for one in data if (one.device.name, self.sums) not in self.without], axis=0)


@pytest.fixture(params=["default", "strict"])
def egress(request):
    sf.shutdown()
    sf.init(["alice", "bob", "carol", "charlie"], "inline", seed=1, egress=request.param)
    yield request.param
    sf.shutdown()


def spread(alice=ALICE, bob=BOB):
    return load({sf.PYU("alice"): alice, sf.PYU("bob"): bob})


@pytest.mark.parametrize("egress", ["default"], indirect=True)
def test_they_are_numpy_s(egress):
    x = spread()
    for axis in (None, 0, (0, 1)):
        for q in (0, 0.3, 1):
            expected = np.quantile(WHOLE, q, axis=axis, method="inverted_cdf")
            assert np.array_equal(x.quantile(q, axis, aggregator=(opened := Open())), expected)
            assert opened.sums <= 32
        assert np.array_equal(x.min(axis, approx=True, aggregator=Open()), WHOLE.min(axis))
        assert np.array_equal(x.max(axis, approx=True, aggregator=Open()), WHOLE.max(axis))
    whole = spread((ALICE * 100).astype(np.int64), (BOB * 100).astype(np.int64))
    assert whole.max(approx=True, aggregator=Open()) == (WHOLE * 100).astype(np.int64).max()
    assert whole.max(approx=True, aggregator=Open()).dtype == np.int64


@pytest.mark.parametrize("egress", ["default"], indirect=True)
def test_what_is_no_number_and_what_cannot_be_found(egress):
    holed = ALICE.copy()
    holed[3, 1] = np.nan
    found = spread(holed).quantile(0.5, axis=0, aggregator=Open())
    assert np.isnan(found).tolist() == [False, True, False, False]
    for q in (-0.1, 1.1, True, "half"):
        with pytest.raises(PlanError, match="q from 0 to 1"):
            spread().quantile(q)
    with pytest.raises(PlanError, match="axis 0, the rows"):
        spread().quantile(0.5, axis=1)
    with pytest.raises(PlanError, match="approx=True"):
        spread().min(aggregator=Open())
    with pytest.raises(DataError, match="rows at two parties or more"):
        load({sf.PYU("alice"): ALICE}).max(approx=True)


@pytest.mark.parametrize("egress", ["default"], indirect=True)
def test_a_party_that_comes_or_goes_between_two_counts_ends_it(egress):
    x = load({sf.PYU(name): part for name, part in (("alice", ALICE), ("bob", BOB), ("carol", BOB + 1))})
    with pytest.raises(DataError, match="other parties answered than before"):
        x.quantile(0.5, aggregator=Open(without=[("carol", 5)]))
    late = [("carol", number) for number in range(1, 41)]
    assert x.quantile(0.5, aggregator=Open(without=late)) == np.quantile(WHOLE, 0.5, method="inverted_cdf")


def test_under_strict_egress_no_party_s_own_extreme_leaves(egress):
    x = spread(ALICE.astype(np.float16), BOB.astype(np.float16))
    before = Counter(row.entry.kind for row in sf.ledger().rows)
    if egress == "default":
        assert x.min() == WHOLE.astype(np.float16).min()
    else:
        for name in ("min", "max"):
            with pytest.raises(EgressDenied, match=rf"raw values.*x\.{name}\(approx=True\)"):
                getattr(x, name)(axis=0)
    raw = [row.entry for row in sf.ledger().rows if row.entry.kind == "raw"]
    assert [entry.allowed for entry in raw] == [egress == "default"] * len(raw)
    assert len(raw) > before["raw"]
    aggregator = SecureAggregator(sf.PYU("charlie"), [sf.PYU("alice"), sf.PYU("bob")])
    assert x.max(approx=True, aggregator=aggregator) == WHOLE.astype(np.float16).max()
    after = Counter(row.entry.kind for row in sf.ledger().rows)
    assert after["raw"] == len(raw), "none of it by a value of a party's own"
    assert after["masked"] - before["masked"] == 2 * 16, "every count of it is on the ledger"


@pytest.mark.parametrize("egress", ["strict"], indirect=True)
def test_an_array_cannot_be_read_out_through_extremes_of_expressions(egress):
    """Two rows at a time, times a number that hides one of them, would tell each element of alice's array."""
    x = spread()
    with pytest.raises(EgressDenied):
        (x * np.array([1, 0, 0, 0]))[0:2].max(axis=0)


@pytest.mark.parametrize("egress", ["strict"], indirect=True)
def test_extremes_that_pass_for_sums_would_tell_an_array(egress, monkeypatch):
    """The broken variant, as it was: kind `aggregate` passes under strict egress."""
    monkeypatch.setattr(extremes, "Kind", type("Kinds", (), {"RAW": Kind.AGGREGATE}))
    x = spread()
    read = [[float((x[i : i + 2]).max(axis=0)[j]) for j in range(2)] for i in range(3)]
    assert read == [[float(ALICE[i : i + 2, j].max()) for j in range(2)] for i in range(3)]
