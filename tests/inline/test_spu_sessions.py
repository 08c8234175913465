# SPDX-License-Identifier: Apache-2.0
"""Values in shares when sessions are strict, when parties end, and when sessions do."""

import time

import numpy as np
import pytest

import fedray as sf
from fedray.errors import EgressDenied, NotInitialized, PartyLost
from fedray.party.spu import vault
from fedray.utils.testing import cluster_def


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Whoever waits for an SPU's value looks more often whether its parties are there."""
    monkeypatch.setattr(vault, "PING_SECONDS", 0.1)


def held(party, value):
    """A value that a party has."""
    return party(np.array)(value)


def test_strict_parties_share_and_do_not_open(start):
    start("inline", egress="strict")
    alice, spu = sf.PYU("alice"), sf.SPU(cluster_def(["alice", "bob"]))
    x = held(alice, np.arange(3.0)).to(spu)
    sf.wait(x + 1)
    for use in (lambda: sf.reveal(x), lambda: sf.wait(x.to(alice))):
        with pytest.raises(EgressDenied, match="does not let raw values leave"):
            use()


def test_an_owner_that_ends_before_it_shared(start):
    session = start("inline", ("alice", "bob", "charlie"))
    spu = sf.SPU(cluster_def(["alice", "bob"]))
    sf.wait(held(sf.PYU("charlie"), [1.0]).to(spu))
    x = sf.PYU("charlie")(time.sleep)(30).to(spu)
    y = x + 1
    session.transport.lose("charlie")
    for use in (lambda: sf.reveal(y), lambda: sf.wait(x)):
        with pytest.raises(PartyLost, match="charlie"):
            use()


def test_a_compute_party_that_ends(start):
    session = start("inline", ("alice", "bob", "charlie"))
    spu = sf.SPU(cluster_def(["alice", "bob"]))
    x = held(sf.PYU("charlie"), [1.0]).to(spu)
    sf.wait(x)
    session.transport.lose("bob")
    for use in (lambda: sf.reveal(x), lambda: sf.wait(x), lambda: sf.wait(x.to(sf.PYU("charlie")))):
        with pytest.raises(PartyLost, match="bob"):
            use()


def test_a_compute_party_that_ends_while_another_is_busy(start):
    """Whoever opens a value hears of the one that ended, though the first one it waits for is alive."""
    session = start("inline", ("alice", "bob", "charlie", "dave"))
    spu = sf.SPU(cluster_def(["alice", "bob"]))
    sf.wait(held(sf.PYU("dave"), [1.0]).to(spu))
    opened = sf.PYU("dave")(time.sleep)(30).to(spu).to(sf.PYU("charlie"))  # alice waits for dave until then
    session.transport.lose("bob")
    begun = time.monotonic()
    with pytest.raises(PartyLost, match="bob"):
        sf.wait(opened)
    assert time.monotonic() - begun < 20


def test_handles_of_an_ended_session(start):
    start("inline")
    spu = sf.SPU(cluster_def(["alice", "bob"]))
    x = held(sf.PYU("alice"), [1.0]).to(spu)
    sf.wait(x)
    sf.shutdown()
    assert "session ended" in repr(x)
    for use in (lambda: sf.reveal(x), lambda: x + 1, lambda: sf.wait(x)):
        with pytest.raises(NotInitialized, match="has ended"):
            use()
    start("inline")
    assert sf.reveal(held(sf.PYU("alice"), [2.0]).to(spu)) == [2.0]  # the SPU itself is a description only
