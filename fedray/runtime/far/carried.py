# SPDX-License-Identifier: Apache-2.0
"""One message and its answer at the caller, over connections that may be cut at any byte. Pure.

Knows no socket, thread or clock. It says what is to be sent next (`next_out`) and where what is received goes
(`next_in`), and is told how many bytes of either there were. It outlives connections, and goes on where the last one
was cut. No connection carries two exchanges at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from fedray.errors import EncodingError
from fedray.runtime.far import stream
from fedray.runtime.wire import WirePart


class Leg(Enum):
    """How far an exchange is, at its caller."""

    CUT = "no connection carries it"
    ASKING = "what has come is asked for"
    SENDING = "its message is sent"
    WAITING = "its answer is awaited"
    TAKING = "its answer comes"
    DONE = "its answer is there"


STEPS: Mapping[Leg, frozenset[Leg]] = {
    Leg.CUT: frozenset({Leg.SENDING, Leg.ASKING}),
    Leg.ASKING: frozenset({Leg.SENDING, Leg.WAITING, Leg.CUT}),
    Leg.SENDING: frozenset({Leg.WAITING, Leg.CUT}),
    Leg.WAITING: frozenset({Leg.TAKING, Leg.CUT}),
    Leg.TAKING: frozenset({Leg.DONE, Leg.CUT}),
    Leg.DONE: frozenset(),
}
"""From which stage an exchange may come to which."""


class Carried:
    """The caller's end of one exchange.

    Args:
        number: Its number, above those of all that the caller began before.
        parts: The message.

    Attributes:
        stage: How far it is.
    """

    def __init__(self, number: int, parts: Sequence[WirePart]) -> None:
        self.number, self.stage = number, Leg.CUT
        self._source, self._sink = stream.StreamOut(parts), stream.StreamIn()
        self._again = False
        self._sent = 0
        self._order, self._word = memoryview(b""), memoryview(b"")

    @property
    def answer(self) -> list[memoryview]:
        """The parts of the answer, once it is there."""
        return self._sink.parts

    @property
    def large(self) -> bool:
        """Whether its answer, which is there, is a long one."""
        return self._sink.taken >= stream.LONG

    def connected(self, floor: int) -> None:
        """Begins, or goes on, over a connection that carries nothing else.

        Args:
            floor: The lowest number of the caller's exchanges under way.
        """
        what, self._sent = (stream.AGAIN if self._again else stream.CALL), 0
        self._step(Leg.ASKING if self._again else Leg.SENDING)
        order = stream.ORDER.pack(what, self.number, floor, self._sink.taken)
        if not self._again:  # in one piece with the begin of the stream, which is most of a short message
            start = self._source.at(0)
            order += start
            self._sent = len(start)
        self._again, self._order = True, memoryview(order)
        self._word = memoryview(bytearray(stream.WORD.size))
        self._wait()

    def cut(self) -> None:
        """Learns that the connection is gone."""
        if self.stage not in (Leg.DONE, Leg.CUT):
            self._step(Leg.CUT)

    def next_out(self) -> memoryview:
        """Returns what is to be sent next; nothing where something is to be received first."""
        if self._order:
            return self._order
        return self._source.at(self._sent) if self.stage is Leg.SENDING else self._order

    def sent(self, count: int) -> None:
        """Learns that so many bytes of it were sent."""
        if self._order:
            self._order = self._order[count:]
        else:
            self._sent += count
        self._wait()

    def next_in(self) -> memoryview:
        """Returns where the next bytes go that are received."""
        return self._sink.space() if self.stage is Leg.TAKING else self._word

    def received(self, count: int) -> None:
        """Learns that so many bytes were received there.

        Raises:
            EncodingError: They are none that the other end may send.
        """
        if self.stage is Leg.TAKING:
            self._sink.filled(count)
            if self._sink.whole:
                self._step(Leg.DONE)
            return
        self._word = self._word[count:]
        if not self._word:
            what, length = stream.WORD.unpack(self._word.obj)
            self._word = memoryview(bytearray(stream.WORD.size))
            self._hear(what, length)

    def done(self, floor: int) -> bytes:
        """Returns what tells the other end that the answer is there."""
        return stream.ORDER.pack(stream.DONE, self.number, floor, 0)

    def _wait(self) -> None:
        if self.stage is Leg.SENDING and not self._order and self._sent == self._source.length:
            self._step(Leg.WAITING)

    def _hear(self, what: bytes, length: int) -> None:
        known = length == self._source.length or (length < self._source.length and self._source.kept)
        if self.stage is Leg.ASKING and what == stream.HAVE and known:
            self._sent = length
            self._step(Leg.WAITING if length == self._source.length else Leg.SENDING)
        elif self.stage is Leg.WAITING and what == stream.GOT and length == self._source.length:
            self._source.let_go()
        elif self.stage is Leg.WAITING and what == stream.ANSWER:
            self._source.let_go()
            self._step(Leg.TAKING)
        else:
            raise EncodingError(f"a line says {what!a} {length}, and {self.stage.value}")

    def _step(self, to: Leg) -> None:
        if to not in STEPS[self.stage]:
            raise EncodingError(f"a line goes on with '{to.value}', and {self.stage.value}")
        self.stage = to
