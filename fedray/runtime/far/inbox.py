# SPDX-License-Identifier: Apache-2.0
"""Messages at the end that is called: what is kept of each until its caller has the answer. Pure.

Knows no socket, thread or clock. A message is handed on once, however often it is sent: what was begun goes on, and
what is over is refused. `Serving` is one connection; which of a caller's connections carries an exchange is the one on
which it was heard of last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from fedray.errors import EncodingError
from fedray.runtime.far import stream
from fedray.runtime.wire import WirePart
from fedray.types import PartyName

MOST_OPEN = 64
"""Most exchanges of one caller that are under way. Each of its threads has one; whoever has more fills memory."""


class Handled(Enum):
    """How far an exchange is, at the other end."""

    COMING = "its message comes"
    WORKED_ON = "somebody works on its answer"
    ANSWERED = "its answer is there"


@dataclass(slots=True, eq=False)
class Held:
    """One exchange, until its caller has the answer.

    Attributes:
        caller: Whose it is.
        number: Its number there.
        owner: The connection that carries it now; any other is out of date.
        formers: Those before, which may still be writing to where the message goes.
        handled: How far it is.
        sink: Its message.
        answer: Its answer.
    """

    caller: PartyName
    number: int
    owner: Serving
    formers: list[Serving] = field(default_factory=list)
    handled: Handled = Handled.COMING
    sink: stream.StreamIn = field(default_factory=stream.StreamIn)
    answer: stream.StreamOut | None = None

    def take(self) -> list[memoryview]:
        """Returns the message for whoever answers it, and keeps it no longer."""
        parts, self.sink.parts = self.sink.parts, []
        return parts

    def answered(self, parts: Sequence[WirePart]) -> None:
        """Keeps the answer until its caller has it."""
        self.answer, self.handled = stream.StreamOut(parts), Handled.ANSWERED


class Inbox:
    """The exchanges of all callers that are under way."""

    def __init__(self) -> None:
        self._entries: dict[PartyName, dict[int, Held]] = {}
        self._over: dict[PartyName, set[int]] = {}
        self._floors: dict[PartyName, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def enter(self, caller: PartyName, number: int, owner: Serving, *, again: bool) -> Held:
        """Returns an exchange that a connection begins, or goes on with.

        Args:
            caller: Who calls.
            number: Its number.
            owner: The connection, which alone carries it from here on.
            again: Whether the caller has tried before.

        Raises:
            EncodingError: It is over, or was begun before and is begun once more, or there are too many.
        """
        entries = self._entries.setdefault(caller, {})
        if number < self._floors.get(caller, 0) or number in self._over.get(caller, ()):
            raise EncodingError(f"{caller} has had the answer to message {number}")
        held = entries.get(number)
        if held is None:
            if len(entries) >= MOST_OPEN:
                raise EncodingError(f"{caller} has {MOST_OPEN} messages under way")
            held = entries[number] = Held(caller, number, owner)
        elif not again:
            raise EncodingError(f"{caller} has sent message {number} before")
        if held.owner is not owner:
            former, held.owner = held.owner, owner
            held.formers = [one for one in held.formers if one.reads] + [former]
            former.hang_up()
        return held

    def over(self, caller: PartyName, number: int, floor: int) -> None:
        """Forgets an exchange whose answer its caller has, and all below the floor.

        Args:
            caller: Who.
            number: Which.
            floor: The lowest number that is under way there.
        """
        # Of what was never begun nothing need be remembered.
        if self._entries.get(caller, {}).pop(number, None) is not None:
            self._over.setdefault(caller, set()).add(number)
        self.raised(caller, floor)

    def raised(self, caller: PartyName, floor: int) -> None:
        """Forgets what is below a caller's floor; it never sinks."""
        if floor <= self._floors.get(caller, 0):
            return  # as mostly: what follows looks at all that is kept of a caller
        self._floors[caller] = floor
        self._over[caller] = {number for number in self._over.get(caller, ()) if number >= floor}
        # What is worked on still counts: whoever raised the floor each time could have any number of threads work.
        entries = self._entries.get(caller, {})
        self._entries[caller] = {
            number: held for number, held in entries.items() if number >= floor or held.handled is Handled.WORKED_ON
        }

    def answer(self, held: Held, parts: Sequence[WirePart]) -> None:
        """Keeps the answer to a message until its caller has it, or not at all where that waits no longer.

        Args:
            held: The exchange.
            parts: The answer.
        """
        held.answered(parts)
        if held.number < self._floors.get(held.caller, 0):
            self._entries.get(held.caller, {}).pop(held.number, None)


class Serving:
    """One connection at the other end.

    Args:
        inbox: What is kept of exchanges.
        caller: Who calls, as was proved.
        hang_up: Ends the connection, from another thread; called when a new one takes its exchange over.

    Attributes:
        held: The exchange that it carries, if any.
        works: Whether whoever runs this connection is to answer `held`.
        reads: Whether bytes are being received where `next_in` said; kept by whoever runs it.
    """

    def __init__(self, inbox: Inbox, caller: PartyName, hang_up: Callable[[], None] = lambda: None) -> None:
        self._inbox, self.caller, self.hang_up = inbox, caller, hang_up
        self.held: Held | None = None
        self.works = self.reads = False
        self._order = memoryview(bytearray(stream.ORDER.size))
        self._out = memoryview(b"")
        self._begun, self._sent = False, 0

    @property
    def stale(self) -> bool:
        """Whether another connection carries its exchange by now."""
        return self.held is not None and self.held.owner is not self

    @property
    def held_up(self) -> bool:
        """Whether the connection before still writes to where the message goes: what is read must not change later."""
        return self.held is not None and any(former.reads for former in self.held.formers)

    @property
    def hungry(self) -> bool:
        """Whether there is nothing to be done here but to receive."""
        if self._out or self.works or self.stale or self.held_up:
            return False
        return self.held is None or self.held.handled is Handled.COMING

    @property
    def idle(self) -> bool:
        """Whether there is nothing to be done here until the answer is made."""
        return self.held is not None and self.held.handled is Handled.WORKED_ON and not self._out

    def next_in(self) -> memoryview:
        """Returns where the next bytes go that are received."""
        return self._order if self.held is None else self.held.sink.space()

    def received(self, count: int) -> None:
        """Learns that so many bytes were received there.

        Raises:
            EncodingError: They are none that a caller may send, or another connection carries this exchange by now.
        """
        if self.stale:
            raise EncodingError("another connection has taken over")
        if self.held is None:
            self._order = self._order[count:]
            if not self._order:
                what, number, floor, taken = stream.ORDER.unpack(self._order.obj)
                self._order = memoryview(bytearray(stream.ORDER.size))
                self._hear(what, number, floor, taken)
        else:
            self.held.sink.filled(count)
            if self.held.sink.whole:
                self._whole(self.held)

    def next_out(self) -> memoryview:
        """Returns what is to be sent next; nothing where there is nothing."""
        held = self.held
        if self._out or held is None or held.answer is None:
            return self._out
        if not self._begun:
            self._begun = True
            start = held.answer.at(self._sent)
            self._out = memoryview(stream.WORD.pack(stream.ANSWER, held.answer.length) + start)
            self._sent += len(start)
            return self._out
        return held.answer.at(self._sent)

    def sent(self, count: int) -> None:
        """Learns that so many bytes of it were sent."""
        if self._out:
            self._out = self._out[count:]
        else:
            self._sent += count
        answer = None if self.held is None or self._out or not self._begun else self.held.answer
        if answer is not None and self._sent == answer.length:
            self.held = None  # the caller says when it has it

    def _hear(self, what: bytes, number: int, floor: int, taken: int) -> None:
        if what == stream.DONE:
            self._inbox.over(self.caller, number, floor)
        elif what in (stream.CALL, stream.AGAIN) and floor <= number:
            self._inbox.raised(self.caller, floor)
            held = self.held = self._inbox.enter(self.caller, number, self, again=what == stream.AGAIN)
            self.works, self._begun, self._sent = False, False, taken
            if what == stream.AGAIN:
                if taken > (0 if held.answer is None else held.answer.length):
                    raise EncodingError(f"{self.caller} has {taken} bytes of an answer that is not so long")
                self._out = memoryview(stream.WORD.pack(stream.HAVE, held.sink.taken))
        else:
            raise EncodingError(f"{self.caller} says {what!a} on a line")

    def _whole(self, held: Held) -> None:
        held.handled, self.works = Handled.WORKED_ON, True
        if held.sink.taken >= stream.LONG:
            self._out = memoryview(stream.WORD.pack(stream.GOT, held.sink.taken))
