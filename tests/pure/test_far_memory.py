# SPDX-License-Identifier: Apache-2.0
"""What a party of the session can make another one's lines between nodes take: no more than it has sent itself."""

import mmap
import socket
import struct
import threading

import numpy as np
import pytest
from pure.far_kit import Parties
from pure.test_far_exchange import feed

from fedray.errors import EncodingError
from fedray.runtime.far import lines, strangers, stream
from fedray.runtime.far.inbox import MOST_OPEN, Inbox, Serving
from fedray.runtime.wire import MOST_TEXT, read, write
from fedray.types import Failure


def put(sink: stream.StreamIn, content: bytes | memoryview, step: int = 1 << 30) -> None:
    """Receives bytes, at most some at a time."""
    content = memoryview(content)
    while content:
        space = sink.space()
        count = min(len(space), len(content), step)
        space[:count] = content[:count]
        del space
        sink.filled(count)
        content = content[count:]


def held(sink: stream.StreamIn) -> int:
    return sum(map(len, sink.parts)) + sink._space._held


def test_a_part_takes_memory_as_it_comes():
    sink, size = stream.StreamIn(), 100 << 20
    put(sink, struct.pack(">I1000Q", 1000, *[8 << 20] * 1000))
    assert held(sink) == 0, "nothing for what is merely claimed"
    sink = stream.StreamIn()
    put(sink, struct.pack(">IQ", 1, size))
    for come in range(0, size, 3 << 20):
        assert held(sink) <= max(stream.PIECE, 2 * come)
        put(sink, bytes(min(3 << 20, size - come)))
    assert (sink.whole, held(sink) >= size) == (True, True)


@pytest.mark.parametrize("step", [1 << 16, (1 << 20) - 1, 1 << 30])
def test_what_has_come_is_what_was_sent_however_its_memory_grew(step):
    value = np.random.default_rng(0).bytes((5 << 20) + 3), b"", bytes(1 << 20), np.arange(7)
    sink, sent = stream.StreamIn(), stream.StreamOut(write(value))
    looked_at, start = [], 0
    while piece := sent.at(start):
        put(sink, piece, step)
        looked_at.append(sink.space() if not sink.whole else None)  # somebody still looks at it while it grows
        start += len(piece)
    assert sink.whole
    found = read(sink.parts)
    assert found[:3] == value[:3]
    assert found[3].tolist() == list(range(7))


def test_where_there_is_no_memory_it_is_said(monkeypatch):
    class Full(mmap.mmap):
        def __new__(cls, *_, **__):
            raise OSError(12, "Cannot allocate memory")

    sink = stream.StreamIn()
    put(sink, struct.pack(">IQ", 1, 2 << 20))
    monkeypatch.setattr(stream.mmap, "mmap", Full)
    with pytest.raises(EncodingError, match="a message of 2097152 bytes is longer than there is memory"):
        sink.space()


def test_answers_to_what_was_never_asked_are_not_remembered():
    inbox = Inbox()
    end = Serving(inbox, "carol")
    for number in range(1000):
        feed(end, stream.ORDER.pack(stream.DONE, number, 0, 0))
    assert not inbox._over.get("carol")


def test_a_connection_waits_for_all_those_that_still_write_to_its_message():
    inbox = Inbox()
    first, second, third = (Serving(inbox, "alice") for _ in range(3))
    feed(first, stream.ORDER.pack(stream.CALL, 1, 1, 0))
    first.reads = True  # its thread is at it, and will find out later that the connection is gone
    for end in (second, third):
        feed(end, stream.ORDER.pack(stream.AGAIN, 1, 1, 0))
        assert end.held_up
    first.reads = False
    assert not third.held_up


def test_a_text_that_is_long_is_neither_read_nor_written():
    with pytest.raises(EncodingError, match=f"says at most {MOST_TEXT} bytes"):
        write(["x" * MOST_TEXT])
    with pytest.raises(EncodingError, match=f"says more than {MOST_TEXT} bytes"):
        read([b"[" + b"0," * MOST_TEXT + b"0]"])


@pytest.fixture
def parties():
    found = Parties(alice=lambda _, body: body, bob=lambda _, body: body)
    yield found
    found.close()


def test_a_party_that_has_no_thread_to_spare_takes_calls_again_when_it_has(parties, monkeypatch):
    begin, refused = threading.Thread.start, []

    def start(self):
        if self.name == "fedray-far-line" and len(refused) < 3:
            refused.append(self)
            raise RuntimeError("can't start new thread")
        begin(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert parties.ask("alice", "bob", 7) == 7
    assert len(refused) == 3


def test_a_fault_at_the_end_that_is_called_reaches_whoever_waits(parties, monkeypatch):
    def broken(*_):
        raise RuntimeError("not for others")

    monkeypatch.setattr(parties.lines["bob"], "_answer", broken)
    assert parties.ask("alice", "bob", 7) == Failure("ProtocolError", "party 'bob': RuntimeError", "bob")


def test_a_caller_has_so_many_lines_and_no_more(parties, monkeypatch):
    monkeypatch.setattr(lines, "_MOST_LINES", 0)
    ref = parties.send("alice", "bob", 7)
    assert not ref.ended.wait(0.3), "it is hung up on"
    monkeypatch.setattr(lines, "_MOST_LINES", 1)
    assert lines.FarLines.take(ref, 20) == 7


def test_who_says_nothing_at_the_door_keeps_nobody_out(parties, monkeypatch):
    monkeypatch.setattr(strangers, "MOST_STRANGERS", 4)
    monkeypatch.setattr(lines, "OPENING_SECONDS", 600.0)
    address = parties.addresses["bob"]
    silent = [socket.create_connection((address.host, address.port), 10) for _ in range(9)]
    assert parties.ask("alice", "bob", 7) == 7
    for line in silent:
        line.close()


def test_what_is_worked_on_counts_though_its_caller_waits_no_longer():
    inbox = Inbox()
    for number in range(1, MOST_OPEN + 1):
        end = Serving(inbox, "carol")
        feed(end, stream.ORDER.pack(stream.CALL, number, number, 0) + message())
        assert end.works
    with pytest.raises(EncodingError, match="messages under way"):
        feed(Serving(inbox, "carol"), stream.ORDER.pack(stream.CALL, number + 1, number + 1, 0))
    inbox.answer(inbox._entries["carol"][1], write(7))
    feed(Serving(inbox, "carol"), stream.ORDER.pack(stream.CALL, number + 1, number + 1, 0))


def message() -> bytes:
    return b"".join(map(bytes, stream.StreamOut(write(7))._pieces))
