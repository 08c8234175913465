# SPDX-License-Identifier: Apache-2.0
"""Lines between nodes, over real sockets: who is let in, what can be read on the way, and what outlives a cut."""

import contextlib
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pure.far_kit import Parties, Relay, dialled, everything, greeting, is_hung_up_on

from fedray.errors import EncodingError, PartyLost, PartyTimeout, ProtocolError
from fedray.party.keys.line_keys import LineKeys
from fedray.protocol.crypto.keys import generate_identity, public_bytes
from fedray.runtime.far import calling, redial
from fedray.runtime.far.calling import MAGIC
from fedray.runtime.far.inbox import MOST_OPEN
from fedray.runtime.far.lines import FarLines
from fedray.types import Failure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lines need Linux")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may depend on how busy the machine is."""
    monkeypatch.setattr(redial, "REFUSED_SECONDS", 60.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redial, "REFUSED_SECONDS", 0.3)


@pytest.fixture
def parties() -> Iterator[Callable[..., Parties]]:
    """Returns answers by name -> parties."""
    made: list[Parties] = []

    def make(**answers: Callable[..., Any]) -> Parties:
        made.append(Parties(alice=lambda *_: None, **answers))
        return made[-1]

    yield make
    for each in made:
        each.close()


def echo(sender: str, body: Any) -> Any:
    return sender, body


@pytest.mark.parametrize("size", [0, 1, 60_000, 3 << 20])
def test_a_message_is_answered_whatever_its_size(parties, size):
    found = parties(bob=echo)
    sender, vector = found.ask("alice", "bob", np.arange(size) % 251)
    assert sender == "alice"
    np.testing.assert_array_equal(vector, np.arange(size) % 251)


def test_one_connection_serves_one_message_after_another_and_several_those_that_wait(parties):
    gate = threading.Event()
    found = parties(bob=lambda _, n: gate.wait(20) if n == 0 else n)
    relay = Relay(found.addresses["bob"])
    found.connect(bob=relay.address)
    assert [found.ask("alice", "bob", n) for n in range(1, 20)] == list(range(1, 20))
    assert relay.connections == 1
    waiting = found.send("alice", "bob", 0)
    assert found.ask("alice", "bob", 5) == 5
    gate.set()
    assert FarLines.take(waiting, 20) is True
    assert relay.connections == 2  # whichever of the two has the new one: it may take longer to open
    relay.close()


def test_a_message_outlives_cuts_and_is_handed_on_once(parties):
    handed_on: list[int] = []
    found = parties(bob=lambda _, body: handed_on.append(len(body)) or body)
    # In the TLS handshake, in the begin of the message, in the midst of it, near its end.
    relay = Relay(found.addresses["bob"], [200, 1500, 100_000, 1_000_000])
    found.connect(bob=relay.address)
    vector = np.random.default_rng(1).integers(0, 255, 2_000_000, np.uint8)
    np.testing.assert_array_equal(found.ask("alice", "bob", vector), vector)
    assert handed_on == [2_000_000]
    assert relay.connections == 5
    # What had come was not sent again.
    assert len(relay.seen) < 2_000_000 + 700_000
    relay.close()


def test_an_answer_that_is_made_while_the_link_is_cut_comes_when_it_is_back(parties):
    begun, gate = threading.Event(), threading.Event()
    handed_on: list[Any] = []

    def answer(sender: str, body: Any) -> Any:
        handed_on.append(body)
        begun.set()
        gate.wait(20)
        return body

    found = parties(bob=answer)
    relay = Relay(found.addresses["bob"])
    found.connect(bob=relay.address)
    ref = found.send("alice", "bob", "a round")
    assert begun.wait(20)
    relay.cut()
    with pytest.raises(PartyTimeout):
        FarLines.take(ref, 0.05)
    gate.set()
    assert FarLines.take(ref, 20) == "a round"
    assert handed_on == ["a round"]
    relay.close()


def test_more_messages_than_a_party_takes_at_once_wait_for_their_turn(parties):
    gate = threading.Event()
    found = parties(bob=lambda _, n: gate.wait(20) and n)
    refs = [found.send("alice", "bob", n) for n in range(2 * MOST_OPEN)]
    gate.set()
    assert [FarLines.take(ref, 60) for ref in refs] == list(range(2 * MOST_OPEN))


def test_a_party_that_has_ended_is_lost_soon_and_one_that_never_was_there_too(parties, impatient):
    found = parties(bob=echo)
    assert found.ask("alice", "bob", 1) == ("alice", 1)
    found.lines["bob"].close()
    relay = Relay(found.addresses["bob"])
    relay.close()
    found.connect(bob=relay.address)
    with pytest.raises(PartyLost, match=r"party 'bob' has ended or cannot be reached at 127\.0\.0\.1:\d+ .*refused"):
        found.ask("alice", "bob", 2)


def test_what_is_no_plain_value_goes_another_way_and_an_answer_that_is_none_is_a_failure(parties):
    found = parties(bob=lambda *_: {1})
    assert found.lines["alice"].send("bob", "1:send", "key", "alice", {1}) is None
    assert found.lines["alice"].send("zoe", "1:send", "key", "alice", 1) is None
    assert found.ask("alice", "bob", 1) == Failure(
        "ProtocolError", "party 'bob': a message between parties holds no set", "bob"
    )


def test_nobody_is_taken_for_another_party_whatever_the_message_says(parties):
    found = parties(bob=echo, carol=echo)
    answer = FarLines.take(found.send("carol", "bob", "spoilt", sender="alice"), 20)
    assert isinstance(answer, Failure)
    assert "its sender" in answer.message


def test_nothing_can_be_read_on_the_way(parties):
    found = parties(bob=echo)
    relay = Relay(found.addresses["bob"])
    found.connect(bob=relay.address)
    secret = b"the weights of alice" * 50
    assert found.ask("alice", "bob", secret) == ("alice", secret)
    seen = bytes(relay.seen + relay.back)
    assert len(seen) > 2 * len(secret)
    for known in (b"weights of", b"1:send", b"alice", MAGIC):
        assert known not in seen
    relay.close()


# Attacks on the network.


def stranger(found: Parties) -> FarLines:
    """Returns lines of somebody who calls himself bob and has another key."""
    lines = found.made("bob", echo, generate_identity())
    lines.connect({"alice": found.addresses["alice"]})
    return lines


def test_who_answers_with_another_key_is_told_nothing(parties, impatient):
    found = parties(bob=echo)
    with_own = stranger(found)
    heard: list[Any] = []
    with_own._serve = lambda *_: heard.append(1)  # type: ignore[method-assign]
    # The stranger's place, with bob's certificate and mark as the driver has told them.
    found.connect(bob=replace(found.addresses["bob"], port=with_own.address.port))
    with pytest.raises(PartyLost, match="certificate verify failed"):
        found.ask("alice", "bob", "a secret")
    # And a driver that tells the stranger's certificate, too.
    found.connect(bob=with_own.address)
    with pytest.raises(PartyLost, match="certificate for lines to 'bob' is not of its key in the roster"):
        found.ask("alice", "bob", "a secret")
    assert heard == []
    with_own.close()


def test_a_caller_who_does_not_look_at_the_key_would_tell_the_stranger(parties, monkeypatch):
    found = parties(bob=echo)
    with_own = stranger(found)
    found.connect(bob=with_own.address)
    # The broken variant: whatever the driver hands round is believed.
    monkeypatch.setattr(LineKeys, "_confirmed", lambda *_: True)
    monkeypatch.setattr(LineKeys, "proves", lambda *_: True)
    assert found.ask("alice", "bob", "a secret") == ("alice", "a secret")
    with_own.close()


def test_who_stands_between_and_ends_tls_himself_is_found(parties, impatient):
    found = parties(bob=echo)
    middle = generate_identity()
    own = LineKeys("bob", middle, {"bob": public_bytes(middle)})
    own.learn({})
    listener = socket.create_server(("127.0.0.1", 0))
    learnt: list[bytes] = []

    def stand_between() -> None:
        context = own.context(answering=True)
        context.verify_mode = ssl.CERT_NONE
        while True:
            try:
                raw, _ = listener.accept()
                with context.wrap_socket(raw, server_side=True) as line:
                    learnt.append(line.recv(1 << 16))
            except ssl.SSLError:
                continue
            except OSError:
                return

    thread = threading.Thread(target=stand_between, daemon=True)
    thread.start()
    found.connect(bob=replace(found.addresses["bob"], port=listener.getsockname()[1]))
    with pytest.raises(PartyLost, match="certificate verify failed"):
        found.ask("alice", "bob", "a secret")
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(20)
    assert not any(learnt)


def test_who_calls_with_another_key_is_hung_up_on(parties):
    heard: list[Any] = []
    found = parties(bob=lambda _, body: heard.append(body), carol=echo)
    assert is_hung_up_on(dialled(found, identity=generate_identity()), greeting(found))
    # A member of the session under another member's name.
    assert is_hung_up_on(dialled(found, identity=found.identities["carol"]), greeting(found))
    # Another session's process, another version.
    assert is_hung_up_on(dialled(found), greeting(found, mark=bytes(16)))
    assert is_hung_up_on(dialled(found), greeting(found, magic=b"fedray line 0\n"))
    # No certificate at all, and no TLS.
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    raw = socket.create_connection(("127.0.0.1", found.addresses["bob"].port), 10)
    assert is_hung_up_on(bare.wrap_socket(raw), greeting(found))
    assert everything(found, greeting(found)).count(b"alice") == 0
    assert heard == []


def test_an_end_that_does_not_look_at_the_key_lets_a_member_speak_for_another(parties, monkeypatch):
    found = parties(bob=echo, carol=echo)
    monkeypatch.setattr(LineKeys, "proves", lambda *_: True)
    line = dialled(found, identity=found.identities["carol"])
    line.sendall(greeting(found))
    line.settimeout(0.2)
    with pytest.raises(TimeoutError):  # it waits for her message, which would be alice's
        line.recv(1)
    line.close()


@pytest.mark.filterwarnings("ignore:.*TLSv1")
def test_tls_1_2_is_not_spoken(parties):
    found = parties(bob=echo)
    with pytest.raises(ssl.SSLError, match=r"(?i)version"):
        dialled(found, version=ssl.TLSVersion.TLSv1_2)
    assert dialled(found).version() == "TLSv1.3"


def test_bytes_that_were_recorded_open_nothing_when_they_are_sent_again(parties):
    handed_on: list[Any] = []
    found = parties(bob=lambda _, body: handed_on.append(body))
    relay = Relay(found.addresses["bob"])
    found.connect(bob=relay.address)
    found.ask("alice", "bob", "pay")
    everything(found, bytes(relay.seen))
    assert handed_on == ["pay"]
    relay.close()


class Swallowing(Relay):
    """Takes whatever a caller sends by its first connection beyond TLS's handshake, and passes none of it on."""

    def _pass(self, source: Any, target: Any, seen: bytearray, limit: int | None) -> None:
        if self.connections == 1 and seen is self.seen:
            with contextlib.suppress(OSError):
                target.sendall(source.recv(1 << 16))  # its hello
                target.sendall(source.recv(1 << 16))  # who it is
                while source.recv(1 << 16):
                    pass
        super()._pass(source, target, seen, limit)


@pytest.mark.parametrize("quiet", [0.2, 60.0])
def test_a_connection_on_which_nothing_moves_is_given_up_though_somebody_takes_all(parties, monkeypatch, quiet):
    monkeypatch.setattr(calling, "QUIET_SECONDS", quiet)
    handed_on: list[Any] = []
    found = parties(bob=lambda _, body: handed_on.append(body) or True)
    relay = Swallowing(found.addresses["bob"])
    found.connect(bob=relay.address)
    ref = found.send("alice", "bob", b"x" * 100_000)
    if quiet < 1:
        assert FarLines.take(ref, 20) is True
        assert len(handed_on) == 1
        assert relay.connections > 1
    else:  # the broken variant, which believes that somebody will answer
        with pytest.raises(PartyTimeout):
            FarLines.take(ref, 0.6)
    relay.close()


def test_a_connection_is_given_up_while_its_answer_is_made_and_the_answer_comes_all_the_same(parties, monkeypatch):
    monkeypatch.setattr(calling, "QUIET_SECONDS", 0.1)
    handed_on: list[Any] = []
    found = parties(bob=lambda _, body: handed_on.append(body) or time.sleep(0.5) or True)
    relay = Relay(found.addresses["bob"])
    found.connect(bob=relay.address)
    assert found.ask("alice", "bob", "a long round") is True
    assert handed_on == ["a long round"]
    assert relay.connections > 1
    relay.close()


def test_another_process_of_a_party_is_hung_up_on(parties, impatient):
    found = parties(bob=echo)
    assert found.ask("alice", "bob", 1) == ("alice", 1)
    second = found.made("alice", echo)
    second.connect({"bob": found.addresses["bob"]})
    with pytest.raises(PartyLost, match="'bob'"):
        FarLines.take(second.send("bob", "1:send", "key", "alice", 2), 20)
    second.close()
    assert found.ask("alice", "bob", 3) == ("alice", 3)


def test_one_bit_that_is_altered_on_the_way_costs_the_connection_and_nothing_else(parties):
    handed_on: list[Any] = []
    found = parties(bob=lambda _, body: handed_on.append(bytes(body)) or True)

    class Altering(Relay):
        def _pass(self, source: Any, target: Any, seen: bytearray, limit: int | None) -> None:
            if self.connections == 1 and seen is self.seen:
                content = bytearray()
                while len(content) < 5000:
                    content = bytearray(source.recv(1 << 16))
                    if len(content) >= 5000:
                        content[4000] ^= 1
                    target.sendall(content)
            super()._pass(source, target, seen, limit)

    relay = Altering(found.addresses["bob"])
    found.connect(bob=relay.address)
    assert found.ask("alice", "bob", b"x" * 100_000) is True
    assert handed_on == [b"x" * 100_000]
    assert relay.connections > 1
    relay.close()


def test_what_is_claimed_takes_no_memory(parties):
    import resource

    found = parties(bob=echo)
    line = dialled(found)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    order = struct.pack(">cQQQ", b"C", 1, 1, 0)
    line.sendall(greeting(found) + order + struct.pack(">IQQ", 2, 10, (1 << 32)))
    line.sendall(b"x" * 1000)
    time.sleep(0.05)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    line.close()


# Keys and ports.


def test_a_fault_of_our_own_reaches_whoever_waits(parties, monkeypatch):
    found = parties(bob=echo)

    def broken(*_: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(calling.FarParty, "_carry", broken)
    with pytest.raises(ProtocolError, match="line to party 'bob': RuntimeError: broken"):
        found.ask("alice", "bob", 1)


def test_an_answer_that_cannot_be_read_is_an_error(parties, monkeypatch):
    found = parties(bob=echo)
    monkeypatch.setattr(calling, "read", lambda _: (_ for _ in ()).throw(EncodingError("nonsense")))
    with pytest.raises(EncodingError, match="party 'bob' gave no answer that can be read: nonsense"):
        found.ask("alice", "bob", 1)
