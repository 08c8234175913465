# SPDX-License-Identifier: Apache-2.0
"""What a library's links have sent is counted by the kernel, peer by peer, and goes into the ledger."""

import ctypes
import fcntl
import gc
import os
import socket
import termios
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pure.ledger_kit import page_of

from fedray.backends.spu import links
from fedray.backends.spu.links import countable, sent, since
from fedray.backends.spu.program import RuntimeSettings
from fedray.backends.spu.runtime import SpuRuntime
from fedray.errors import EgressDenied
from fedray.party.door.egress import DefaultPolicy, Egress, Kind
from fedray.party.door.journal import Journal

counts = pytest.mark.skipif(not countable(), reason="this system does not count what a connection has sent")


@pytest.fixture
def net():
    """Returns the addresses of alice, bob and carol on this machine, and their servers."""
    servers = {name: socket.create_server(("127.0.0.1", 0)) for name in ("alice", "bob", "carol")}
    addresses = [(name, f"127.0.0.1:{server.getsockname()[1]}") for name, server in servers.items()]
    yield addresses, servers
    for server in servers.values():
        server.close()


def send(connection, count):
    connection.sendall(b"x" * count)
    settle(connection.fileno())


def settle(descriptor):
    """Waits until the other end's kernel has what was sent."""
    left = bytearray(4)
    for _ in range(1000):
        if fcntl.ioctl(descriptor, termios.TIOCOUTQ, left) == 0 and not any(left):
            return
        time.sleep(0.01)
    raise AssertionError("it was never sent")


@counts
def test_bytes_are_counted_by_peer(net):
    addresses, servers = net
    assert sent(addresses, 0) == {}
    to_bob = socket.create_connection(servers["bob"].getsockname())
    to_carol = socket.create_connection(servers["carol"].getsockname())
    before = sent(addresses, 0)
    send(to_bob, 5000)
    send(to_carol, 70)
    found = since(before, sent(addresses, 0))
    # In this one process bob's ends are alice's, too: what counts is who is at the other one.
    assert (found["bob"], found["carol"]) == (5000, 70)
    send(to_bob, 1)
    assert since(before, sent(addresses, 0))["bob"] == 5001
    elsewhere = socket.create_server(("127.0.0.1", 0))
    other = socket.create_connection(elsewhere.getsockname())
    send(other, 900)
    assert since(before, sent(addresses, 0)) == {"bob": 5001, "carol": 70}
    for connection in (to_bob, to_carol, other, elsewhere):
        connection.close()


@counts
def test_answers_over_a_peer_s_connection_are_counted_too(net):
    addresses, servers = net
    called = socket.create_connection(servers["alice"].getsockname())
    answering, _ = servers["alice"].accept()
    send(answering, 300)
    found = sent(addresses, 0)
    assert found == {"bob or carol": 300}, "on one host nobody can tell which of them"
    assert sent(addresses[:2], 0) == {"bob": 300}
    called.close()
    answering.close()


def test_a_connection_that_was_made_anew_counts_from_its_beginning():
    assert since({"bob": 900}, {"bob": 1000, "carol": 5}) == {"bob": 100, "carol": 5}
    assert since({"bob": 900}, {"bob": 30}) == {"bob": 30}


@counts
def test_no_descriptor_stays_open(net):
    addresses, _ = net
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        sent(addresses, 0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_whoever_deals_triples_is_a_peer_too():
    layout = SimpleNamespace(protocol="SEMI2K")
    settings = RuntimeSettings((("alice", "a.test:1"), ("bob", "b.test:2")), {})
    assert SpuRuntime(layout, 0, settings).peers == ["bob"]
    dealt = {"ttp_beaver_config": {"server_host": "no such host"}}
    runtime = SpuRuntime(layout, 1, replace(settings, options=dealt))
    assert runtime.peers == ["alice", "dealer no such host"]
    assert runtime._sent() == {}


class Refusing:
    def check(self, leaving):
        raise EgressDenied("no")


def passed(policy, found, monkeypatch=None):
    """Returns the entries of a program that has sent something, and whether it was run."""
    key, ran = Ed25519PrivateKey.generate(), []
    journal = Journal("alice", key)
    door = Egress("alice", policy, journal)
    try:
        with door.passing(["bob", "carol"], kind=Kind.SHARE, call="program f", sent=lambda: found):
            ran.append(len(journal._lines))
            raise ZeroDivisionError
    except (ZeroDivisionError, EgressDenied):
        pass
    return [(e.to, e.dtype, e.nbytes, e.allowed) for e in page_of(journal, {}).entries], ran


def test_a_program_is_on_record_before_it_sends_and_with_its_bytes_afterwards():
    """Also where it fails in the midst."""
    entries, ran = passed(DefaultPolicy(), {"bob": 31_000_000, "carol": 5})
    assert ran == [2]
    assert entries == [
        ("bob", "link that opens", 0, True),
        ("carol", "link that opens", 0, True),
        ("bob", "link", 31_000_000, True),
        ("carol", "link", 5, True),
    ]
    assert passed(DefaultPolicy(), None)[0][2:] == [
        ("bob", "link of unknown size", 0, True),
        ("carol", "link of unknown size", 0, True),
    ]


def test_a_program_that_the_policy_refuses_does_not_run():
    assert passed(Refusing(), {}) == ([("bob", "link that opens", 0, False)], [])


@counts
def test_a_count_of_what_the_python_code_sends_misses_a_library_s_links(net, monkeypatch):
    """The broken variant: who counts by Python's own objects sees no socket that another language has opened."""
    addresses, servers = net
    libc = ctypes.CDLL(None)
    descriptor = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    host, port = servers["bob"].getsockname()
    raw = socket.AF_INET.to_bytes(2, "little") + port.to_bytes(2, "big") + socket.inet_aton(host) + bytes(8)
    assert libc.connect(descriptor, raw, len(raw)) == 0
    assert libc.send(descriptor, b"x" * 400, 400, 0) == 400
    settle(descriptor)
    assert sent(addresses, 0) == {"bob": 400}

    def known():
        ours = [one for one in gc.get_objects() if type(one) is socket.socket and one.fileno() >= 0]
        return iter([one.dup() for one in ours if one.family == socket.AF_INET])

    monkeypatch.setattr(links, "_connections", known)
    assert sent(addresses, 0) == {}
    os.close(descriptor)
