# SPDX-License-Identifier: Apache-2.0
"""Training over lines between nodes: bit by bit what it is inside one process, however often the link is cut."""

import random
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from inline.far_parties import talk_over_tls
from inline.federated import weights_of, world
from pure.far_kit import Relay

import fedray as sf
from fedray.party.context import Reply
from fedray.party.door.egress import Kind
from fedray.runtime.far import redial
from fedray.runtime.far.calling import Address
from fedray.runtime.session import current
from fedray.security.aggregation import SecureAggregator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lines need Linux")


def trained(start, **settings) -> list[np.ndarray]:
    """Returns the weights after some rounds of three parties."""
    found = world(start, rows=(12, 12, 12), backend="numpy")
    aggregator = SecureAggregator(found.server, found.devices, **settings)
    model = found.model(aggregator=aggregator)
    history = model.fit(found.x, found.y, epochs=2, batch_size=4, verbose=0)
    assert history.dropouts == []
    weights = weights_of(model)
    sf.shutdown()
    return weights


@pytest.mark.parametrize("settings", [{}, pytest.param({"on_dropout": "recover"}, marks=pytest.mark.slow)])
def test_a_run_whose_link_is_cut_again_and_again_ends_with_the_same_weights(start, monkeypatch, settings):
    monkeypatch.setattr(redial, "REFUSED_SECONDS", 60.0)  # however busy the machine is
    expected = trained(start, **settings)
    relays: list[Relay] = []

    def cuts() -> Iterator[int | None]:
        # Past the handshake most of the time, which takes 1.2 kB.
        draw = random.Random(1)
        for _ in range(12):
            yield draw.randrange(900, 4000)

    def by_way_of(party: str, address: Address) -> Address:
        if party != "server":
            return address
        relays.append(Relay(address, cuts()))
        return relays[-1].address

    talk_over_tls(monkeypatch, by_way_of)
    found = trained(start, **settings)
    assert relays[0].connections > 6
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for relay in relays:
        relay.close()


# What `.to()` moves.


def moved(start) -> tuple[list, list]:
    """Returns what arrives of some values, and what the ledger says of their moves."""
    start("inline", ("alice", "bob"))
    alice, bob = sf.PYU("alice"), sf.PYU("bob")
    value = alice(lambda: {"rows": np.arange(60_000.0).reshape(3, -1), "names": ["a", "b"], "odd": {1, 2}})()
    rows = alice(lambda: np.arange(50_000, dtype="f4"))()
    there = [held.to(bob) for held in (value, rows)]
    del rows, value
    back = bob(lambda value, rows: (rows + value["rows"].sum(), value["odd"]))(*there).to(alice)
    failing = alice(lambda: 1 / 0)().to(bob)
    with pytest.raises(sf.errors.PartyError, match="party 'alice': ZeroDivisionError"):
        sf.reveal(failing)
    arrived = sf.reveal([*there, back])
    pages = sf.ledger().pages
    entries = [
        (name, entry.to, entry.kind, entry.nbytes, entry.shape, entry.dtype, entry.call.partition(":")[2])
        for name in ("alice", "bob")
        for entry in pages[name].entries
        if entry.kind == "raw" and entry.to != "driver"
    ]
    sf.shutdown()
    return arrived, entries


def test_what_is_moved_by_the_lines_is_what_is_moved_within_a_process_and_so_is_the_ledger(start, monkeypatch):
    expected, entries = moved(start)
    relays: list[Relay] = []

    def by_way_of(_: str, address: Address) -> Address:
        relays.append(Relay(address))
        return relays[-1].address

    talk_over_tls(monkeypatch, by_way_of)
    found, theirs = moved(start)
    assert repr(found) == repr(expected)
    np.testing.assert_array_equal(found[0]["rows"], expected[0]["rows"])
    assert theirs == entries
    assert [(name, to) for name, to, *_ in entries] == [("alice", "bob")] * 2 + [("bob", "alice")]
    sent = sum(nbytes for _, _, _, nbytes, *_ in entries)
    carried = sum(len(relay.seen) + len(relay.back) for relay in relays)
    assert sent < carried < 1.05 * sent, "nothing of it takes another way"
    for relay in relays:
        relay.close()


def test_strict_egress_keeps_what_would_be_moved_by_the_lines(start, monkeypatch):
    talk_over_tls(monkeypatch)
    start("inline", ("alice", "bob"), egress="strict")
    alice, bob = sf.PYU("alice"), sf.PYU("bob")
    with pytest.raises(sf.errors.EgressDenied, match=r"party 'alice' does not let raw values leave.*'bob'"):
        sf.wait(alice(np.ones)(3).to(bob))


class Odd:
    """Answers with what no line can carry."""

    def __init__(self, context):
        self.context = context

    def deliver(self, sender, message):
        return Reply(Kind.METRICS, {1, 2})

    def send(self, to, key):
        return Reply(Kind.METRICS, self.context.get(self.context.send("7:odd", to, key, 1, Kind.MASKED), 20))


def test_what_a_line_itself_has_to_say_passes_the_door(start, monkeypatch):
    talk_over_tls(monkeypatch)
    start("inline", ("alice", "bob"))
    session = current()
    odd, sender = session.serve("bob", Odd), session.serve("alice", Odd)
    with pytest.raises(sf.errors.ProtocolError, match="party 'bob': a message between parties holds no set"):
        session.get([session.ask("alice", sender, "send", "bob", odd)], 30)
    entries = [(entry.call, entry.to, entry.kind) for entry in sf.ledger().pages["bob"].entries]
    assert ("7:odd", "alice", "error") in entries
