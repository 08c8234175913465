# SPDX-License-Identifier: Apache-2.0
"""Where a party is called by those of other nodes and by whose key, and which way its messages take."""

import sys
from typing import Any

import pytest
from pure.far_kit import PLACE

from fedray.errors import PlanError, ProtocolError
from fedray.party.keys import line_keys
from fedray.party.keys.line_keys import LineKeys, certificate, key_of
from fedray.protocol.crypto.keys import generate_identity, public_bytes
from fedray.runtime.far.calling import Address
from fedray.runtime.far.lines import FarLines
from fedray.runtime.lined import LinedCalls

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lines need Linux")


def test_a_certificate_is_its_key_s_and_has_no_date_that_matters():
    identity = generate_identity()
    assert key_of(certificate(identity)) == public_bytes(identity)
    assert key_of(b"none") == b""
    assert line_keys._ENDS.year - line_keys._BEGINS.year > 7000


def test_nobody_is_called_before_the_roster_is_accepted():
    identity = generate_identity()
    keys = LineKeys("alice", identity, {})
    with pytest.raises(ProtocolError, match="knows nobody's key yet"):
        keys.context(answering=False)
    with pytest.raises(TypeError, match="never pickled"):
        keys.__reduce_ex__(2)


@pytest.mark.parametrize(("place", "said"), [("nonsense", "expected 'ADDRESS"), ("127.0.0.1 1-0", "has no port")])
def test_where_nothing_can_listen_it_is_said(place, said):
    keys = LineKeys("alice", generate_identity(), {})
    with pytest.raises(PlanError, match=said):
        FarLines("alice", keys, lambda *_: [], place)


def test_a_port_that_is_taken_is_passed_over():
    keys = LineKeys("alice", generate_identity(), {})
    first = FarLines("alice", keys, lambda *_: [], PLACE)
    port = first.address.port
    second = FarLines("alice", keys, lambda *_: [], f"127.0.0.1 {port}-{min(port + 20, 65535)}")
    assert second.address.port > port
    for lines in (first, second):
        lines.close()


def test_there_are_none_where_the_system_has_none(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    keys = LineKeys("alice", generate_identity(), {})
    assert FarLines.opened("alice", keys, lambda *_: [], PLACE) is None


def test_an_address_is_shown_without_its_mark():
    assert str(Address("10.0.0.1", 20010, b"x", b"y")) == "10.0.0.1:20010"


def test_messages_take_the_line_of_their_node_and_to_another_node_this_one():
    identities = {name: generate_identity() for name in ("alice", "bob", "charlie")}
    roster = {name: public_bytes(key) for name, key in identities.items()}
    by_ray: list[str] = []

    class Ray:
        def call(self, party: str, method: str, *args: Any) -> str:
            by_ray.append(f"{method} at {party}")
            return party

        def get(self, refs: Any, timeout: float | None) -> list[Any]:
            return list(refs)

    def answer(call: str, key: str, sender: str, body: Any) -> Any:
        return sender, body

    calls = {name: LinedCalls(name, Ray(), answer) for name in identities}
    for name, lined in calls.items():
        lined.open_far(LineKeys(name, identities[name], roster), lambda: "127.0.0.1")
    nodes = {"alice": "1", "bob": "2", "charlie": "1"}
    places = {name: lined.whereabouts(nodes[name]) for name, lined in calls.items()}
    for lined in calls.values():
        lined.connect(places)
    alice = calls["alice"]
    near, far = (alice.call(party, "deliver", "1:x", "key", "alice", 7) for party in ("charlie", "bob"))
    assert (type(near).__name__, type(far).__name__) == ("LineRef", "FarRef")
    assert alice.get([near, far], 20) == [("alice", 7), ("alice", 7)]
    other = alice.call("bob", "deliver", "1:x", "key", "alice", {2})
    command = alice.call("bob", "export", "1:x", "key", "alice")
    assert alice.get([other, command], 20) == ["bob", "bob"]
    assert by_ray == ["deliver at bob", "export at bob"]
