# SPDX-License-Identifier: Apache-2.0
"""Lines between parties on one machine: each message gets its own answer, and nobody waits for a party that is gone."""

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fedray.errors import EncodingError, PartyLost, PartyTimeout
from fedray.runtime import line as line_module
from fedray.runtime.line import MOST_ANSWER_BYTES, MOST_BYTES, LineRef, Lines
from fedray.runtime.wire import write
from fedray.types import Failure


@pytest.fixture
def lines() -> Callable[..., Lines]:
    """Returns (party, answer) -> its lines, connected with those that were made before and with itself."""
    addresses: dict[str, str] = {}

    def make(party: str, answer: Callable[..., Any] = lambda *message: message) -> Lines:
        made = Lines(party, lambda _call, _key, _sender, message: answer(*message))
        addresses[party] = made.address
        made.connect(addresses)
        return made

    return make


def ask(lines: Lines, party: str, *message: Any, seconds: float | None = 20) -> Any:
    """Returns the answer to a message."""
    ref = send(lines, party, *message)
    assert ref is not None
    return lines.take(ref, seconds)


def send(lines: Lines, party: str, *message: Any) -> LineRef | None:
    return lines.send(party, "1:send", "key", "alice", message)


@pytest.mark.parametrize("size", [0, 1, 60_000, MOST_BYTES - 1000])
def test_a_message_is_answered_whatever_its_size(lines, size):
    lines("bob", lambda key, vector: (key, int(vector.sum())))
    assert ask(lines("alice"), "bob", "key", np.ones(size, np.uint8)) == ("key", size)


def test_a_message_of_many_parts_arrives_whole(lines):
    """More of them than one call sends, some empty, some longer than what the system holds of a line."""
    lines("bob", lambda *arrays: list(reversed(arrays)))
    sent = [np.arange(size, dtype="<u4") for size in [0, 3, 100_000, 0, 1, 70_000, *range(40)]]
    found = ask(lines("alice"), "bob", *sent)
    assert [array.tolist() for array in reversed(found)] == [array.tolist() for array in sent]


def test_a_party_may_call_itself(lines):
    assert ask(lines("alice", lambda n: n + 1), "alice", 3) == 4


def test_one_line_serves_one_message_after_another(lines):
    threads: set[int] = set()
    lines("bob", lambda n: threads.add(threading.get_ident()) or n)
    alice = lines("alice")
    assert [ask(alice, "bob", n) for n in range(50)] == list(range(50))
    assert len(threads) == 1


def test_a_party_without_a_thread_to_spare_answers_when_it_has_one(lines, monkeypatch):
    begin, refused = threading.Thread.start, []

    def start(self):
        if self.name == "fedray-line" and len(refused) < 3:
            refused.append(self)
            raise RuntimeError("can't start new thread")
        begin(self)

    lines("bob", lambda n: n + 1)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert ask(lines("alice"), "bob", 3) == 4
    assert len(refused) == 3


def test_messages_that_wait_do_not_hold_up_others(lines):
    gate = threading.Event()
    lines("bob", lambda n: gate.wait(20) if n == 0 else gate.set() or n)
    alice = lines("alice")
    waiting = send(alice, "bob", 0)
    assert ask(alice, "bob", 1) == 1
    assert alice.take(waiting, 20) is True


def test_answers_of_many_threads_are_not_mixed_up(lines):
    lines("bob", lambda n, vector: (n, float(vector[0])))
    alice = lines("alice")

    def one(n: int) -> bool:
        return all(ask(alice, "bob", n, np.full(5000, n + k / 8)) == (n, n + k / 8) for k in range(8))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(40)))


def test_a_call_that_cannot_be_taken_at_once_is_taken_later(lines, monkeypatch):
    accept, failures = socket.socket.accept, [OSError(24, "Too many open files")] * 2

    def scarce(listener: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", scarce)
    lines("bob", lambda n: n + 1)
    assert ask(lines("alice"), "bob", 3) == 4
    assert not failures


def test_what_is_too_long_or_no_plain_value_is_left_to_others(lines):
    lines("bob")
    alice = lines("alice")
    assert send(alice, "bob", np.zeros(MOST_BYTES, np.uint8)) is None
    assert send(alice, "bob", {1}) is None
    assert send(alice, "bob", [b""] * 2000) is None
    assert send(alice, "zoe", 1) is None
    assert ask(alice, "bob", 1) == (1,)


def test_an_answer_that_cannot_travel_is_a_failure(lines):
    lines("bob", lambda: {1})
    assert ask(lines("alice"), "bob") == Failure(
        "ProtocolError", "party 'bob': a message between parties holds no set", "bob"
    )


def test_an_answer_may_be_longer_than_a_message(lines):
    lines("bob", lambda size: np.zeros(size, np.uint8))
    assert len(ask(lines("alice"), "bob", 3 * MOST_BYTES)) == 3 * MOST_BYTES


def test_an_answer_longer_than_any_is_told_by_who_has_it(lines, monkeypatch):
    monkeypatch.setattr(line_module, "MOST_ANSWER_BYTES", 1000)
    lines("bob", lambda size: np.zeros(size, np.uint8))
    alice = lines("alice")
    said = ask(alice, "bob", 1000)
    assert said == Failure("ProtocolError", said.message, "bob")
    assert said.message.startswith("party 'bob': a message on a line has at most 1000 bytes, found 10")
    assert len(ask(alice, "bob", 100)) == 100


@pytest.fixture
def bob() -> Iterator[socket.socket]:
    """Returns where a party is called that this test answers for."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # the system finds a name
        listener.listen()
        listener.settimeout(20)
        yield listener


def test_a_party_that_ends_before_its_answer_is_lost(lines, bob):
    alice = lines("alice")
    alice.connect({"bob": bob.getsockname()})
    ref = send(alice, "bob", 1)
    bob.accept()[0].close()
    with pytest.raises(PartyLost, match=r"party 'bob' has ended or cannot be reached \(deliver\)") as caught:
        alice.take(ref, 20)
    assert caught.value.party == "bob"


LONG = [
    struct.pack(">IQ", 1, 1 << 62),
    struct.pack(">IQ", 1, MOST_ANSWER_BYTES + 1),
    struct.pack(">IQQ", 2, MOST_ANSWER_BYTES, 1),
    struct.pack(">I", 1 << 31),
]


def take_from_liar(lines, bob, claim: bytes) -> list[int]:
    """Asks a bob who claims an answer and sends none of it; returns what memory was asked for."""
    asked: list[int] = []
    alice = lines("alice")
    alice.connect({"bob": bob.getsockname()})
    ref = send(alice, "bob", 1)
    with bob.accept()[0] as line:
        line.sendall(claim)
        exactly = line_module._exactly

        def counting(line: socket.socket, size: int) -> memoryview:
            asked.append(size)
            if size > MOST_BYTES:
                raise EncodingError("this much memory was asked for")
            return exactly(line, size)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(line_module, "_exactly", counting)
            with pytest.raises(EncodingError, match="party 'bob' gave no answer that can be read"):
                alice.take(ref, 20)
    assert ref.line.fileno() == -1, "what is left of it is nobody's answer"
    return asked


@pytest.mark.parametrize("claim", LONG, ids=bytes.hex)
def test_an_answer_that_claims_to_be_longer_than_any_is_refused_before_memory_is_taken(lines, bob, claim):
    assert max(take_from_liar(lines, bob, claim)) <= 16


def test_a_reader_that_takes_memory_for_whatever_is_claimed_is_found(lines, bob, monkeypatch):
    """The broken variant."""
    monkeypatch.setattr(line_module, "_check_length", lambda _sizes, _most: None)
    assert max(take_from_liar(lines, bob, LONG[0])) == 1 << 62


def test_a_party_that_has_ended_is_lost(lines, bob):
    alice = lines("alice")
    alice.connect({"bob": bob.getsockname()})
    held = send(alice, "bob", 1)
    bob.close()
    for _ in range(2):
        with pytest.raises(PartyLost, match="party 'bob' has ended"):
            ask(alice, "bob", 2)
    assert held is not None


def test_a_party_that_cannot_be_called_is_left_to_others(lines, bob):
    alice = lines("alice")
    address = bob.getsockname()
    bob.close()
    alice.connect({"bob": address, "charlie": ""})
    assert send(alice, "bob", 1) is None
    assert send(alice, "charlie", 1) is None


def test_no_answer_in_time(lines):
    gate = threading.Event()
    lines("bob", lambda n: n if n else gate.wait(20))
    alice = lines("alice")
    with pytest.raises(PartyTimeout, match=r"no answer within 0.1 seconds: deliver at 'bob'"):
        ask(alice, "bob", 0, seconds=0.1)
    gate.set()
    assert ask(alice, "bob", 7) == 7  # the late answer is nobody's


def test_a_message_whose_answer_nobody_awaits_arrives(lines):
    arrived = threading.Event()
    lines("bob", lambda n: arrived.set() if n == 1 else n)
    alice = lines("alice")
    send(alice, "bob", 1)
    assert arrived.wait(20)
    assert ask(alice, "bob", 2) == 2


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0",
        struct.pack(">I", 0),
        struct.pack(">I", 1 << 31),
        struct.pack(">IQ", 1, 1 << 62),
        struct.pack(">IQ", 1, MOST_BYTES + 1),
        struct.pack(">IQ", 1, 3) + b"{]}",
        struct.pack(">IQ", 1, 4) + b"null",
        struct.pack(">IQ", 1, 12) + b'{"tuple":[]}',
        struct.pack(">IQ", 1, 100) + b"cut short",
    ],
    ids=bytes.hex,
)
def test_whoever_sends_no_message_is_hung_up_on(lines, sent):
    heard: list[Any] = []
    bob = lines("bob", lambda *message: heard.append(message))
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(bob.address)
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        assert line.recv(1) == b""
    assert heard == []
    assert ask(lines("alice"), "bob", 1) is None


@pytest.mark.parametrize("lacking", ["another system", "not permitted"])
def test_where_there_are_no_lines_messages_go_another_way(monkeypatch, lacking):
    assert Lines.opened("alice", lambda *_: None) is not None
    if lacking == "another system":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setattr(line_module.socket, "socket", Forbidden)
    assert Lines.opened("alice", lambda *_: None) is None


class Forbidden(socket.socket):
    """A socket that may not be given a name."""

    def bind(self, _address: Any) -> None:
        raise PermissionError(1, "Operation not permitted")


CALLER = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
line = socket.socket(socket.AF_UNIX)
line.settimeout(20)
line.connect("\\0" + sys.argv[2])
try:
    line.sendall(sys.stdin.buffer.read())
    print(len(line.recv(1)))
except OSError:
    print(0)
"""

SQUATTER = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0" + sys.argv[2])
listener.listen()
print("listens", flush=True)
sys.stdin.read()
"""

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def answered(bob: Lines, user: int) -> bool:
    """Returns whether a process of a user gets an answer."""
    parts = [bytes(part) for part in write(("1:send", "key", "alice", (1,)))]
    framed = struct.pack(">I", len(parts)) + b"".join(struct.pack(">Q", len(part)) for part in parts) + b"".join(parts)
    command = [sys.executable, "-c", CALLER, str(user), bob.address[1:]]
    return subprocess.run(command, input=framed, capture_output=True, timeout=60, check=True).stdout == b"1\n"


@as_root
def test_another_user_is_hung_up_on(lines):
    heard: list[Any] = []
    bob = lines("bob", heard.append)
    assert not answered(bob, NOBODY)
    assert heard == []
    assert answered(bob, os.geteuid())
    assert heard == [1]


@as_root
def test_a_line_that_does_not_ask_who_calls_is_found(lines, monkeypatch):
    monkeypatch.setattr(line_module, "_of_this_user", lambda _line: True)
    assert answered(lines("bob"), NOBODY)


@as_root
@pytest.mark.parametrize("asked", [True, False], ids=["asked who they are", "broken: not asked"])
def test_another_user_who_takes_a_partys_address_is_told_nothing(lines, monkeypatch, asked):
    if not asked:
        monkeypatch.setattr(line_module, "_of_this_user", lambda _line: True)
    name = f"fedray-{os.urandom(16).hex()}"
    command = [sys.executable, "-c", SQUATTER, str(NOBODY), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as squatter:
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == b"listens\n"
        alice = lines("alice")
        alice.connect({"bob": f"\0{name}"})
        assert (send(alice, "bob", 1) is None) == asked
        squatter.communicate()


def test_the_user_is_the_one_that_the_kernel_names(lines, monkeypatch):
    bob = lines("bob")
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY - 1)
    alice = lines("alice")
    assert send(alice, "bob", 1) is None
    assert bob.address.startswith("\0fedray-")
