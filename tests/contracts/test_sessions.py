# SPDX-License-Identifier: Apache-2.0
"""What every transport must do over a session's life: begin, lose a party, end, begin again."""

import os
import time

import numpy as np
import pytest

import fedray as sf
from fedray.errors import NotInitialized, PartyLost, PlanError
from fedray.party.door.ledger_file import from_bytes
from fedray.party.parcel import pack
from fedray.runtime.session import current


def lose(party):
    """Ends a party as a crash would."""
    if hasattr(current().transport, "lose"):
        current().transport.lose(party)
    else:
        current().call(party, "run", ("gone",), pack((os._exit, (1,), {})))


def test_a_session_knows_its_parties_and_all_may_wait_in_a_message_while_the_driver_sends_another(
    start, address, gate_class
):
    parties = ("Ärger", "charlie", "alice", "dave", "bob")
    if address != "inline":
        parties = parties[:3]  # each is a process, and a second
    session = start(address, parties, placement="anywhere")
    assert list(session.roster) == sorted(parties, key=str.encode), "in byte order"
    assert len(set(session.roster.values())) == len(parties)
    assert all(len(key) == 32 for key in session.roster.values())

    gate = session.serve("alice", gate_class, 99)
    senders = {party: session.serve(party, gate_class) for party in parties}
    calls = [session.ask(party, key, "send", "alice", gate, np.ones(2)) for party, key in senders.items()]
    assert session.get([session.watch("alice", gate, len(parties))], 30) == [sorted(parties)]
    session.get([session.tell("alice", gate, "open")], 30)
    assert session.get(calls, 30) == [2.0 * len(parties)] * len(parties)

    with pytest.raises(PlanError, match=r"running already; call sf.shutdown\(\) first"):
        sf.init(["alice"], "inline")
    assert current() is session
    assert sf.reveal(sf.PYU("alice")(abs)(-1)) == 1


def test_parties_are_told_what_init_was_given_and_a_lost_one_is_named_wherever_it_is_awaited(
    start, address, gate_class, make, value
):
    class Told(gate_class):
        def config(self):
            from fedray.party.context import Reply

            return Reply("shape", self.context.config)

    session = start(address, ("charlie", "alice"), seed=7, threads=2, log_level="ERROR")
    config = session.get([session.ask("alice", session.serve("alice", Told), "config")], 30)[0]
    assert (config.name, config.parties, config.seed) == ("alice", ("charlie", "alice"), 7)
    assert (config.egress, config.threads, config.log_level) == ("default", 2, "ERROR")

    alice, charlie = sf.PYU("alice"), sf.PYU("charlie")
    held, kept = charlie(abs)(-1), alice(abs)(-2)
    sf.wait([held, kept])
    gate, sender = session.serve("charlie", gate_class, 2), session.serve("alice", gate_class)
    waiting = session.ask("alice", sender, "send", "charlie", gate, np.ones(1))
    session.get([session.watch("charlie", gate, 1)], 30)
    began = time.monotonic()
    lose("charlie")
    for use in (
        lambda: session.get([session.call("charlie", "settle", ["gone"])], 30),
        lambda: session.get([waiting], 30),
        lambda: sf.reveal(held),
        lambda: sf.wait(held),
        lambda: sf.reveal(held.to(alice)),
    ):
        with pytest.raises(PartyLost, match="'charlie'") as caught:
            use()
        assert caught.value.party == "charlie"
    assert time.monotonic() - began < 20, "the gate holds the message as long as that"
    assert value("alice", make("alice", lambda: 1)) == 1
    assert sf.reveal(kept) == 2

    ledger = sf.ledger()
    assert ledger.missing == ("charlie",)
    assert ledger.verify() == ["charlie: missing"]
    assert "charlie: missing" in repr(ledger)

    sf.shutdown()
    start(address, ("charlie",))
    assert sf.reveal(charlie(abs)(-3)) == 3


def test_nothing_works_after_shutdown_and_handles_are_refused_in_the_next_session(start, address, tmp_path):
    session = start(address, ("alice",))
    alice = sf.PYU("alice")
    held, ref = alice(abs)(-1), session.call("alice", "settle", [])
    sf.wait(held)
    sf.shutdown(ledger=tmp_path / "ledger.jsonl")
    sf.shutdown()
    kept = from_bytes((tmp_path / "ledger.jsonl").read_bytes())
    assert (kept.problems(), kept.open(), kept.roster, kept.sid) == ([], [], session.roster, session.sid)
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

    second = start(address, ("alice",))
    for use in (lambda: sf.reveal(held), lambda: alice(abs)(held), lambda: sf.reveal([alice(abs)(-2), held])):
        with pytest.raises(NotInitialized, match="a session that has ended"):
            use()
    assert "session ended" in repr(held)
    assert session.id != second.id
    assert session.roster["alice"] != second.roster["alice"]
    assert session.seed != second.seed


def test_seed_zero_is_a_seed_like_others(start):
    assert start("inline", ("alice",), seed=0).seed == 0
