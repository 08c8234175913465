# SPDX-License-Identifier: Apache-2.0
"""What every transport must do over a session's life: begin, lose a party, end, begin again."""

import os
import time

import numpy as np
import pytest

import fedray as sf
from fedray.errors import NotInitialized, PartyLost, PlanError
from fedray.party.parcel import pack
from fedray.runtime.session import current


def lose(party):
    """Ends a party as a crash would."""
    if hasattr(current().transport, "lose"):
        current().transport.lose(party)
    else:
        current().call(party, "run", ("gone",), pack((os._exit, (1,), {})))


def test_every_party_may_wait_in_a_message_while_the_driver_sends_another(start, address, gate_class):
    parties = ("alice", "bob", "charlie", "dave", "erin")
    session = start(address, parties)
    gate = session.serve("alice", gate_class, 99)
    senders = {party: session.serve(party, gate_class) for party in parties}
    calls = [session.ask(party, key, "send", "alice", gate, np.ones(2)) for party, key in senders.items()]
    assert session.get([session.watch("alice", gate, 5)], 30) == [sorted(parties)]
    session.get([session.tell("alice", gate, "open")], 30)
    assert session.get(calls, 30) == [10.0] * 5


def test_every_party_has_an_identity_and_the_roster_is_in_byte_order(start, address):
    session = start(address, ("Ärger", "bob", "alice"))
    assert list(session.roster) == ["alice", "bob", "Ärger"]
    assert len(set(session.roster.values())) == 3
    assert all(len(key) == 32 for key in session.roster.values())


def test_a_lost_party_is_named_to_the_driver_and_to_the_parties_that_wait(start, address, gate_class, make, value):
    session = start(address, ("alice", "charlie"))
    gate, sender = session.serve("charlie", gate_class, 2), session.serve("alice", gate_class)
    waiting = session.ask("alice", sender, "send", "charlie", gate, np.ones(1))
    session.get([session.watch("charlie", gate, 1)], 30)
    began = time.monotonic()
    lose("charlie")
    with pytest.raises(PartyLost, match="'charlie'") as caught:
        session.get([session.call("charlie", "settle", ["gone"])], 30)
    assert caught.value.party == "charlie"
    with pytest.raises(PartyLost, match="'charlie'") as caught:
        session.get([waiting], 30)
    assert caught.value.party == "charlie"
    assert time.monotonic() - began < 10
    assert value("alice", make("alice", lambda: 1)) == 1


def test_a_lost_party_is_a_lost_party_to_its_handles(start, address):
    start(address)
    alice, bob = sf.PYU("alice"), sf.PYU("bob")
    held, kept = bob(abs)(-1), alice(abs)(-2)
    sf.wait([held, kept])
    lose("bob")
    for use in (lambda: sf.reveal(held), lambda: sf.wait(held), lambda: sf.reveal(held.to(alice))):
        with pytest.raises(PartyLost, match="'bob'") as caught:
            use()
        assert caught.value.party == "bob"
    assert sf.reveal(kept) == 2
    sf.shutdown()
    start(address)
    assert sf.reveal(bob(abs)(-3)) == 3


def test_the_ledger_of_the_others_survives_a_lost_party(start, address):
    start(address)
    lose("bob")
    ledger = sf.ledger()
    assert ledger.missing == ("bob",)
    assert ledger.verify() == ["bob: missing"]
    assert "bob: missing" in repr(ledger)


def test_nothing_works_after_shutdown(start, address):
    session = start(address)
    alice = sf.PYU("alice")
    held, ref = alice(abs)(-1), session.call("alice", "settle", [])
    sf.wait(held)
    sf.shutdown()
    sf.shutdown()
    for use in (
        lambda: session.call("alice", "settle", []),
        lambda: session.get([ref]),
        lambda: session.wait([ref]),
        lambda: sf.reveal(held),
        lambda: sf.wait(held),
        lambda: held.to(alice),
        lambda: alice(abs)(held),
    ):
        with pytest.raises(NotInitialized, match="ended"):
            use()
    for use in (lambda: alice(abs)(-1), sf.ledger):
        with pytest.raises(NotInitialized, match=r"sf\.init"):
            use()


def test_a_handle_of_an_earlier_session_is_refused_in_the_next(start, address):
    start(address)
    alice = sf.PYU("alice")
    held = alice(abs)(-1)
    sf.shutdown()
    start(address)
    for use in (lambda: sf.reveal(held), lambda: alice(abs)(held), lambda: sf.reveal([alice(abs)(-2), held])):
        with pytest.raises(NotInitialized, match="a session that has ended"):
            use()
    assert "session ended" in repr(held)


def test_a_second_init_is_refused_and_the_first_goes_on(start, address):
    session = start(address)
    with pytest.raises(PlanError, match=r"running already; call sf.shutdown\(\) first"):
        sf.init(["alice"], "inline")
    assert current() is session
    assert sf.reveal(sf.PYU("alice")(abs)(-1)) == 1


def test_sessions_may_follow_each_other(start, address):
    seen = set()
    for _ in range(3):
        session = start(address, ("alice",))
        seen.add((session.id, session.roster["alice"], session.seed))
        assert sf.reveal(sf.PYU("alice")(abs)(-1)) == 1
        sf.shutdown()
    assert len({s for s, _, _ in seen}) == len({k for _, k, _ in seen}) == len({n for _, _, n in seen}) == 3
    assert start(address, ("alice",), seed=0).seed == 0


def test_parties_are_told_what_init_was_given(start, address, gate_class):
    class Told(gate_class):
        def config(self):
            from fedray.party.context import Reply

            return Reply("shape", self.context.config)

    session = start(address, ("alice", "bob"), seed=7, threads=2, log_level="ERROR")
    config = session.get([session.ask("bob", session.serve("bob", Told), "config")], 30)[0]
    assert (config.name, config.parties, config.seed) == ("bob", ("alice", "bob"), 7)
    assert (config.egress, config.threads, config.log_level) == ("default", 2, "ERROR")
