# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG005 (aggregators are made of a world, whether they look at it or not)
"""Training with an `SPUAggregator`: the same model as without protection, and what happens when a party ends."""

import time

import numpy as np
import pytest
from inline.federated import as_bytes, by_hand, regression, weights_of, world

import fedray as sf
from fedray.errors import NotFinite, PartyLost, PlanError, ProtocolError
from fedray.ml.nn import FLModel
from fedray.party.rounds.share_owner import ShareOwner
from fedray.runtime.session import current
from fedray.security.aggregation import PlainAggregator, SecureAggregator, SPUAggregator
from fedray.utils.testing import cluster_def


def shares(*names, **settings):
    """An aggregator whose compute parties have these names."""
    return SPUAggregator(sf.SPU(cluster_def(names)), **settings)


def trained(start, make, rows=(24, 20, 16), strategy="fed_avg_w", backend="numpy"):
    fed = world(start, rows, backend=backend)
    model = fed.model(aggregator=make(fed), strategy=strategy)
    history = model.fit(fed.x, fed.y, epochs=2, batch_size=8, verbose=0, validation_data=(fed.x, fed.y))
    weights = as_bytes(model)
    sf.shutdown()
    return weights, history.global_history


@pytest.fixture(scope="module")
def plain():
    """Returns what the same training without protection comes to; each case is trained once for all tests."""
    known = {}

    def look_up(start, rows=(24, 20, 16), strategy="fed_avg_w", backend="numpy"):
        case = rows, strategy, backend
        if case not in known:
            known[case] = trained(start, unprotected, *case)
        return known[case]

    return look_up


def unprotected(fed):
    return PlainAggregator(fed.server, fed.devices)


@pytest.mark.parametrize(
    ("rows", "compute", "backend"),
    [
        ((24, 20), ("alice", "bob"), "numpy"),
        ((24, 20), ("alice", "server"), "numpy"),
        ((24, 20, 16), ("server", "bob"), "numpy"),
        pytest.param((24, 20, 16), ("server", "bob"), "tensorflow", marks=pytest.mark.slow),
        ((24, 20, 16), ("alice", "bob", "carol"), "numpy"),
    ],
)
def test_weights_equal_those_of_the_plain_average_bit_by_bit(start, plain, rows, compute, backend):
    found = trained(start, lambda fed: shares(*compute), rows, backend=backend)
    assert found == plain(start, rows, backend=backend)


@pytest.mark.parametrize("strategy", ["fed_avg_g", "fed_avg_u", "fed_prox"])
def test_every_strategy(start, plain, strategy):
    assert trained(start, lambda fed: shares("alice", "carol"), strategy=strategy) == plain(start, strategy=strategy)


def test_masks_and_shares_written_out_make_the_same_weights(start, plain):
    assert trained(start, lambda fed: SecureAggregator(fed.server, fed.devices)) == plain(start)
    assert trained(start, lambda fed: shares("alice", "server", compress=False)) == plain(start)


def test_training_as_by_hand(start):
    fed = world(start, (24, 20, 16), backend="numpy")
    model = fed.model(aggregator=shares("bob", "server"))
    first = weights_of(model)
    model.fit(fed.x, fed.y, epochs=2, batch_size=4, verbose=0)
    for found, expected in zip(weights_of(model), by_hand(first, fed.parts, epochs=2, batch_size=4), strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-6)
    again = model.fit(fed.x, fed.y, epochs=1, batch_size=4, verbose=0)  # a second run, in the same sessions
    assert again.global_history["loss"][0] > 0


def test_nothing_but_shares_leaves_with_strict_egress(start):
    fed = world(start, (24, 20), backend="numpy", egress="strict")
    model = fed.model(aggregator=shares("alice", "bob"))
    model.fit(fed.x, fed.y, epochs=1, batch_size=4, verbose=0)
    kinds = {(party, e.to, e.kind) for party, page in sf.ledger().pages.items() for e in page.entries}
    assert ("alice", "bob", "share") in kinds
    assert not [entry for entry in kinds if entry[2] in ("masked", "raw")]
    assert not [entry for entry in kinds if entry[1] == "server" and entry[2] not in ("share", "initial", "shape")]


def test_the_server_is_the_first_compute_party_where_none_is_named(start):
    fed = world(start, (24, 20), backend="numpy")
    model = FLModel(device_list=fed.devices, model=regression(), backend="numpy", aggregator=shares("bob", "alice"))
    assert model.fit(fed.x, fed.y, epochs=1, batch_size=8, verbose=0).global_history["loss"]


def test_arguments_that_cannot_work(start):
    fed = world(start, (24,), backend="numpy")
    with pytest.raises(PlanError, match="hide nothing"):
        fed.model(aggregator=shares("alice", "server"))
    with pytest.raises(PlanError, match="unknown party"):
        shares("alice", "nobody")


@pytest.mark.filterwarnings("ignore:overflow encountered in multiply:RuntimeWarning")  # how they come to be none
def test_a_party_whose_weights_are_no_numbers(start):
    fed = world(start, (24, 20), backend="numpy")
    model = fed.model(regression(rate=1e30), aggregator=shares("alice", "bob"))
    with pytest.raises(NotFinite, match=r"alice|bob"):
        model.fit(fed.x * 1e20, fed.y, epochs=1, batch_size=4, verbose=0)


# Parties that end.


def lose(monkeypatch, party, number, *, at=None, before=True):
    """Ends a party when round `number` begins at party `at`: before its shares leave, or when all of them have left.

    Returns the number of that round, when it has begun, and then that they have.
    """
    exchange, confirm, transport, done = ShareOwner.exchange, ShareOwner._confirm, current().transport, []

    def begins(self, call, context, contribution):
        if self._context.name == (at or party) and context.number >= number and not done:
            done.append(context.number)
            if before:
                transport.lose(party)
        return exchange(self, call, context, contribution)

    def have_left(self, refs):
        confirm(self, refs)
        if not before and self._context.name == party and len(done) == 1:
            done.append("all have left")
            transport.lose(party)

    monkeypatch.setattr(ShareOwner, "exchange", begins)
    monkeypatch.setattr(ShareOwner, "_confirm", have_left)
    return done


def with_zoe(start):
    """A session with one party more, which has neither data nor the server."""
    return lambda address, parties, **settings: start(address, (*parties, "zoe"), **settings)


@pytest.mark.parametrize("compute", [("alice", "zoe"), ("zoe", "bob")])
def test_a_compute_party_without_data_that_ends(start, monkeypatch, compute):
    fed = world(with_zoe(start), (24, 20), backend="numpy")
    model = fed.model(aggregator=shares(*compute, round_timeout=240.0))
    lose(monkeypatch, "zoe", 2, at="alice")
    begun = time.monotonic()
    with pytest.raises(PartyLost, match="zoe"):
        model.fit(fed.x, fed.y, epochs=1, batch_size=4, verbose=0)
    assert time.monotonic() - begun < 120


def test_a_compute_party_with_data_that_ends(start, monkeypatch):
    fed = world(start, (24, 20, 16, 16), backend="numpy")
    model = fed.model(aggregator=shares("alice", "bob", round_timeout=240.0))
    lose(monkeypatch, "bob", 2)
    begun = time.monotonic()
    with pytest.raises((PartyLost, ProtocolError), match="bob"):
        model.fit(fed.x, fed.y, epochs=1, batch_size=4, verbose=0)
    assert time.monotonic() - begun < 120


def test_an_owner_that_ends_before_its_round(start, monkeypatch):
    fed = world(start, (24, 20, 16, 16), backend="numpy")
    model = fed.model(aggregator=shares("alice", "server", round_timeout=240.0))
    lose(monkeypatch, "dave", 2)
    history = model.fit(fed.x, fed.y, epochs=2, batch_size=4, verbose=0)
    assert len(history.global_history["loss"]) == 2
    assert all(np.isfinite(w).all() for w in weights_of(model))


def test_an_owner_that_ends_after_its_one_message(start, monkeypatch):
    fed = world(start, (24, 20, 16, 16), backend="numpy")
    model = fed.model(aggregator=shares("alice", "server", round_timeout=240.0))
    done = lose(monkeypatch, "dave", 2, before=False)
    history = model.fit(fed.x, fed.y, epochs=2, batch_size=4, verbose=0)
    assert done == [2, "all have left"]
    assert len(history.global_history["loss"]) == 2


def test_an_owner_that_is_late_is_left_out(start, monkeypatch):
    fed = world(start, (24, 20, 16, 16), backend="numpy")
    model = fed.model(aggregator=shares("alice", "server", round_timeout=2.0))
    model.fit(fed.x, fed.y, epochs=1, batch_size=8, verbose=0)
    exchange, late, over = ShareOwner.exchange, [], set()

    def slow(self, call, context, contribution):
        """Dave comes to his first round when it is over for somebody."""
        if self._context.name == "dave" and not late:
            late.append(context.number)
            while context.number not in over:
                time.sleep(0.01)
        try:
            return exchange(self, call, context, contribution)
        finally:
            over.add(context.number)

    monkeypatch.setattr(ShareOwner, "exchange", slow)
    history = model.fit(fed.x, fed.y, epochs=1, batch_size=8, verbose=0)
    assert np.isfinite(history.global_history["loss"]).all()


def test_two_owners_of_whom_one_ends(start, monkeypatch):
    fed = world(start, (24, 20), backend="numpy")
    model = fed.model(aggregator=shares("alice", "server", round_timeout=240.0))
    lose(monkeypatch, "bob", 2)
    begun = time.monotonic()
    with pytest.raises(PartyLost, match="bob"):
        model.fit(fed.x, fed.y, epochs=1, batch_size=4, verbose=0)
    assert time.monotonic() - begun < 120
