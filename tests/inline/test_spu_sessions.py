# SPDX-License-Identifier: Apache-2.0
"""Values in shares when sessions are strict, when parties end, and when sessions do."""

import time
from contextlib import suppress

import numpy as np
import pytest

import fedray as sf
from fedray.device.spu.handle import make_handle
from fedray.errors import EgressDenied, EncodingError, NotInitialized, PartyLost, ProtocolError
from fedray.party.door.egress import Kind
from fedray.party.records import DealtShares, SharesFailure
from fedray.party.spu import vault
from fedray.protocol.spu.dealer import MOST_NUMBERS
from fedray.protocol.spu.form import Form
from fedray.types import Failure
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
    opened = sf.PYU("dave")(time.sleep)(60).to(spu).to(sf.PYU("charlie"))  # alice waits for dave until then
    session.transport.lose("bob")
    begun = time.monotonic()
    with pytest.raises(PartyLost, match="bob"):
        sf.wait(opened)
    assert time.monotonic() - begun < 50


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


def opened_beside_a_liar(start, monkeypatch):
    """Returns what is opened of a sum in which bob, who computes nothing, deals zeros under the others' names too."""
    parties = ("alice", "bob", "carol", "p", "q")
    start("inline", parties)
    spu, deal, names = sf.SPU(cluster_def(["p", "q"])), vault.Vault.deal, []

    def lying(self, source, out):
        for name in names if self._context.name == "bob" else ():
            form, messages = self._deals().deal(name, np.zeros(1), self._bound)
            for party, shares in messages.items():
                message = DealtShares(name, form.encode(), shares)
                sent = self._context.send("shares", party, self._vaults[party], message, Kind.SHARE)
                with suppress(ProtocolError):
                    self._context.get(sent, None)
        deal(self, source, out)  # last: the driver goes on when these shares are there

    monkeypatch.setattr(vault.Vault, "deal", lying)
    alice, carol = (held(sf.PYU(name), [value]).to(spu) for name, value in (("alice", 11.5), ("carol", 777.125)))
    sf.wait([alice, carol])
    names.append(alice.key)
    bob = held(sf.PYU("bob"), [1.0]).to(spu)
    sf.wait(bob)
    return float(sf.reveal(alice + bob + carol)[0])


def test_nobody_puts_values_in_the_place_of_another_s(start, monkeypatch):
    assert opened_beside_a_liar(start, monkeypatch) == 11.5 + 1 + 777.125


def test_a_compute_party_that_takes_any_name_would_show_carol_s_value(start, monkeypatch):
    """The broken variant."""
    monkeypatch.setattr(vault.Vault, "_check_own", lambda *_: None)
    assert opened_beside_a_liar(start, monkeypatch) == 1 + 777.125


def test_what_others_say_of_an_object_is_not_believed(start):
    session = start("inline", ("alice", "bob", "p", "q"))
    spu, alice = sf.SPU(cluster_def(["p", "q"])), sf.PYU("alice")
    own, shared = held(alice, [1.0]), held(alice, [2.0]).to(spu)
    sf.wait([own, shared])
    failure = Failure("DataError", "bob says so", "bob")
    vaults = spu.vaults(session)
    for party, name in (("alice", own.key), ("p", shared.key), ("alice", vaults.keys["alice"]), ("p", "x/bob/")):
        with pytest.raises(ProtocolError, match="which is no name of its values"):
            session.get([session.call(party, "deliver", vaults.keys[party], "bob", SharesFailure(name, failure))])
    assert (sf.reveal(own)[0], sf.reveal(shared)[0]) == (1, 2)


def test_a_seed_stands_for_no_more_numbers_than_a_value_may_have(start):
    """32 bytes of it would be a share of any length, and take the compute party's memory."""
    session = start("inline", ("alice", "bob", "p", "q"))
    spu = sf.SPU(cluster_def(["p", "q"]))
    shared = held(sf.PYU("bob"), [1.0, 2.0, 3.0]).to(spu)
    sf.wait(shared)
    far = Form((1 << 40,), "float64", 20)
    keys, seeds = spu.vaults(session).keys, [np.zeros(200, np.uint8)]
    for party in ("p", "q"):
        message = DealtShares("x/bob", far.encode(), seeds)
        session.get([session.call(party, "deliver", keys[party], "bob", message)])
    x = make_handle(spu, session, owner="bob")
    x.key = "x/bob"
    with pytest.raises(EncodingError, match="bob: a value that is shared has at most 67108864 numbers, found 1099511"):
        sf.wait(x)
    large = sf.PYU("alice")(lambda: np.broadcast_to(np.float32(1), (MOST_NUMBERS + 1,)))().to(spu)
    with pytest.raises(EncodingError, match="a value that is shared has at most 67108864 numbers, found 67108865"):
        sf.wait(large)
