# SPDX-License-Identifier: Apache-2.0
"""Values that go to a party of another node: by the line between the two, as they were, to nobody else."""

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pure.far_kit import Relay

from fedray.errors import FedRayError, PartyLost, ProtocolError
from fedray.party.keys.line_keys import LineKeys
from fedray.party.parcel import Parcel
from fedray.protocol.crypto.keys import generate_identity, public_bytes
from fedray.runtime.far import moves, redial
from fedray.runtime.far.calling import FarParty
from fedray.runtime.far.moves import BRING, FETCH, KEY
from fedray.runtime.gather import opened
from fedray.runtime.lined import LinedCalls, Whereabouts
from fedray.types import Failure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lines need Linux")

NAMES = ("alice", "bob", "charlie")


class Sites:
    """Three parties, each with a node of its own, whose lines pass relays; and what else travels between them."""

    def __init__(self) -> None:
        identities = {name: generate_identity() for name in NAMES}
        roster = {name: public_bytes(key) for name, key in identities.items()}
        self.by_ray: list[Any] = []
        self.calls = {name: LinedCalls(name, self, lambda *_: None) for name in NAMES}
        for name, calls in self.calls.items():
            calls._near = None
            calls.open_far(LineKeys(name, identities[name], roster), lambda: "127.0.0.1")
        places = {name: calls.whereabouts(name) for name, calls in self.calls.items()}
        self.relays = {name: Relay(place.far) for name, place in places.items()}
        self.places = {name: Whereabouts(name, "", relay.address) for name, relay in self.relays.items()}
        self.connect()

    def connect(self, **closed: str) -> None:
        """Lets all know where all are called; at whose node nobody is let in, by name."""
        for name, calls in self.calls.items():
            seen = dict(self.places)
            for party in closed.values():
                if party != name:
                    seen[party] = replace(seen[party], far=replace(seen[party].far, port=1))
            calls.connect(seen)

    # As the transport's own calls.
    def call(self, party: str, method: str, *args: Any) -> Any:
        self.by_ray.append(args)
        call, key, sender, body = args
        return self.calls[party].delivered(call, key, sender, body)

    def get(self, refs: Any, timeout: float | None) -> list[Any]:
        return [opened(ref) for ref in refs]

    def move(self, value: Any, owner: str = "alice", to: str = "bob") -> Any:
        """Returns a value of one party as it arrives at another."""
        return self.calls[to].get([self.calls[owner].handed("5:to bob", to, value)], None)[0]

    def close(self) -> None:
        for calls in self.calls.values():
            calls._far.close()
        for relay in self.relays.values():
            relay.close()


@pytest.fixture
def sites() -> Iterator[Sites]:
    made = Sites()
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redial, "REFUSED_SECONDS", 0.2)


SHARED = np.arange(3.0)
VALUES = {
    "array": np.arange(12, dtype="f4").reshape(3, 4),
    "columns first": np.arange(12.0).reshape(3, 4).T,
    "dict": {"a": [1, 2.5, None, "ä"], 3: (np.ones(2), True), "none": {}},
    "large": np.random.default_rng(1).random(400_000),
    "texts": np.array(["one", "three"]),
    "a dict of its own order": OrderedDict(b=1, a=2),
    "objects": np.array([{"a": 1}, None]),
    "one array twice": [SHARED, SHARED],
    "a masked array": np.ma.masked_array([1, 2], [True, False]),
    "many arrays": [np.full(2, n) for n in range(2000)],
    "many words": ["word"] * 300_000,
    "complex": 1 + 2j,
}
PLAIN = ("array", "columns first", "dict", "large", "texts")


@pytest.mark.parametrize("name", VALUES)
def test_a_value_arrives_as_it_was_and_is_pickled_only_where_it_is_no_plain_data(sites, monkeypatch, name):
    opened_pickles: list[int] = []
    unpickled = Parcel.open
    monkeypatch.setattr(Parcel, "open", lambda parcel: opened_pickles.append(1) or unpickled(parcel))
    value = VALUES[name]
    arrived = sites.move(value)
    assert type(arrived) is type(value)
    assert repr(arrived) == repr(value)
    if isinstance(value, np.ndarray):
        assert arrived.dtype == value.dtype
        assert arrived.strides == value.strides
        assert value.dtype.hasobject or arrived.tobytes() == value.tobytes()
        arrived[0] = arrived[1]  # it can be written to
    assert bool(opened_pickles) == (name not in PLAIN)


def test_one_array_that_is_there_twice_is_one_there_too(sites):
    first, second = sites.move([SHARED, SHARED])
    assert first is second


def test_arrays_inside_can_be_written_to_and_the_owner_s_stay_as_they_were(sites):
    inside = {"rows": [np.zeros(3)]}
    kept = sites.calls["alice"].handed("5:to bob", "bob", inside)
    inside["rows"][0][:] = 5  # after the order: another command
    (arrived,) = sites.calls["bob"].get([kept], None)
    arrived["rows"][0] += 1
    assert (arrived["rows"][0].tolist(), inside["rows"][0].tolist()) == ([1, 1, 1], [5, 5, 5])


def test_the_transport_s_own_calls_carry_a_ticket_and_no_value_and_the_link_nothing_in_clear(sites):
    secret = b"a row of alice's" * 100
    assert sites.move((secret, 1)) == (secret, 1)
    assert [(key, body) for _, key, _, body in sites.by_ray] == [(KEY, sites.by_ray[0][3])]
    assert len(sites.by_ray[0][3]) == 16
    seen = b"".join(bytes(relay.seen + relay.back) for relay in sites.relays.values())
    assert len(seen) > len(secret)
    assert b"a row" not in seen


def test_its_owner_dials_and_who_is_called_by_a_party_does_not_call_it(sites):
    sites.move(1, "alice", "charlie")
    assert [sites.relays[name].connections for name in NAMES] == [0, 0, 2], "once to see whether it can, once to do it"
    # The other way round she fetches it, over the line that is there.
    sites.move(2, "charlie", "alice")
    sites.move(3, "charlie", "alice")
    assert [sites.relays[name].connections for name in NAMES] == [0, 0, 2]


def test_where_only_the_owner_s_node_lets_somebody_in_it_is_fetched(sites, impatient):
    sites.connect(closed="bob")
    assert sites.move([1, 2]) == [1, 2]
    assert sites.relays["alice"].connections == 1
    sites.relays["alice"].cut()
    assert sites.move([3]) == [3], "after a cut"


def test_where_neither_is_let_in_both_are_named_and_what_is_to_be_mended(sites, impatient):
    sites.connect(one="alice", other="bob")
    said = (
        r"party 'bob' cannot get the value that 'alice' moves to it\. There: 'alice' does not reach 'bob' at "
        r"127\.0\.0\.1:1: .*refused\. Here: party 'alice' has ended or cannot be reached at 127\.0\.0\.1:1 .*firewall"
    )
    with pytest.raises(ProtocolError, match=said):
        sites.move(1)


def test_an_owner_that_has_ended_is_lost(sites, impatient):
    sites.move(1, "bob", "alice")  # which bob has reached
    kept = sites.calls["alice"].handed("5:to bob", "bob", 2)
    sites.calls["alice"]._far.close()
    sites.relays.pop("alice").close()
    with pytest.raises(PartyLost, match=r"party 'alice' has ended or cannot be reached"):
        sites.calls["bob"].get([kept], None)


def test_what_is_large_outlives_cuts(sites):
    cutting = Relay(sites.places["bob"].far, [None, 100_000, 1_000_000])
    sites.calls["alice"].connect(sites.places | {"bob": replace(sites.places["bob"], far=cutting.address)})
    value = np.random.default_rng(2).random(400_000)
    np.testing.assert_array_equal(sites.move(value), value)
    assert cutting.connections == 4, "once to see whether it can"
    cutting.close()


# Others than the one whom it is for.


def test_nobody_else_gets_a_value_nor_brings_one_that_was_not_asked_for(sites):
    kept = sites.calls["alice"].handed("5:to bob", "bob", "for bob")
    charlie = sites.calls["charlie"]._moves
    for body in ((FETCH, kept.ticket), (BRING, kept.ticket, (1,)), "nonsense", (FETCH, bytes(16))):
        with pytest.raises(FedRayError, match="'alice'"):
            charlie._said("5:to bob", "alice", body)
    with pytest.raises(ProtocolError, match="has not asked 'charlie' for this value"):
        charlie._said("5:to bob", "bob", (BRING, kept.ticket, ("forged",)))
    # By the transport's own calls, on which anybody may take bob's name, nobody gets a value.
    for sender, body in (("charlie", kept.ticket), ("bob", (FETCH, kept.ticket)), ("bob", "nonsense")):
        assert type(sites.call("alice", "deliver", "5:to bob", KEY, sender, body)) in (str, Failure)
    assert sites.calls["bob"].get([kept], None) == ["for bob"]
    with pytest.raises(ProtocolError, match="keeps no such value"):
        sites.calls["bob"].get([kept], None)


def test_an_owner_that_does_not_look_for_whom_it_is_would_give_it_away(sites, monkeypatch):
    kept = sites.calls["alice"].handed("5:to bob", "bob", "for bob")
    monkeypatch.setattr(moves.Moves, "_let_go", lambda self, _party, ticket: self._kept.pop(ticket)[2])
    assert sites.calls["charlie"].get([kept], None) == ["for bob"]


def test_what_nobody_fetches_is_kept_for_an_hour(sites, monkeypatch):
    alice = sites.calls["alice"]
    alice.handed("5:to bob", "bob", 1)
    alice.handed("5:to bob", "bob", 2)
    assert len(alice._moves._kept) == 2
    now = moves.time.monotonic
    monkeypatch.setattr(moves.time, "monotonic", lambda: now() + moves.KEPT_SECONDS)
    alice.handed("5:to bob", "bob", 3)
    assert len(alice._moves._kept) == 1


def test_and_not_for_longer_if_nothing_is_moved_any_more(sites, monkeypatch):
    alice, gone = sites.calls["alice"], threading.Event()
    forget = moves.Moves._forget_anew

    def forgetting(self):
        forget(self)
        if not self._kept:
            gone.set()

    monkeypatch.setattr(moves, "KEPT_SECONDS", 0.05)
    monkeypatch.setattr(moves.Moves, "_forget_anew", forgetting)
    alice.handed("5:to bob", "bob", 1)
    assert gone.wait(60)


SIZES = [  # of a pickle's parts: below zero, more than there is, far more parts than bytes
    (b"x", np.array([-1, 3]), np.ones(2, np.uint8)),
    (b"x", np.array([3]), np.ones(2, np.uint8)),
    (b"x", np.zeros((1 << 20) + 1, np.int64), np.ones(0, np.uint8)),
]


@pytest.mark.parametrize("content", [(), 5, (b"head", 1, 2), (b"x", np.ones(2), np.ones(2)), *SIZES])
def test_what_is_no_value_is_refused(content):
    with pytest.raises(ProtocolError, match="no value that was moved"):
        moves.value_of(content)


def test_a_party_is_asked_only_until_one_of_the_two_was_reached(sites, monkeypatch):
    knocks: list[str] = []
    knock = FarParty.knock
    monkeypatch.setattr(FarParty, "knock", lambda party: knocks.append(party._party) or knock(party))
    for _ in range(3):
        assert sites.move(7) == 7
    assert knocks == ["bob"] * 3
    assert sites.relays["bob"].connections == 2
