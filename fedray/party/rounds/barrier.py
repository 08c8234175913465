# SPDX-License-Identifier: Apache-2.0
"""Barrier: whose message is missing, until when, and what everybody is told who waits for it. Pure.

Everything at which somebody waits for somebody else's message is an exchange: one step of a round, one step of
preparing keys, the shares of a round at a compute party, the shares of a value in a vault, the driver's wish for news.

Two rules:

* Whatever changes an exchange's state is in this file. What its messages mean, when it is complete and what comes of it
  is in the `Exchange` that its owner supplies.
* Nothing here waits and nothing here looks at a clock. Time comes in as a number beside every event, and `deadline`
  says when `due` has to be called next. Threads wait in `fedray/party/rounds/waiting_room.py` and nowhere else.

How an exchange goes. It is ANNOUNCED before anybody has sent anything: nobody is late, however long that takes, because
parties may compute for hours before the first of them is done. The first message makes it GATHERING, and starts its
deadline. Each delivery then waits, and is known by a ticket. It leaves GATHERING once, which is why nothing can be
opened twice:

* COMPLETE: no message is missing that is worth waiting for. A message was the last one, or a party was lost whose
  message was the last one missing.
* DUE: the deadline has passed. It is closed without those whose message is missing.
* ENDED: the segment or the session is over. There will be no answer; whoever waits is told why.

A CLOSED exchange has an answer for everybody who waits there, or hands them on to the exchange that follows. Whoever
comes later gets the same answer at once. Its message is not read: what was decided without it stands. An ENDED exchange
tells late comers, too, why it has ended.

An event that the table does not allow raises and changes nothing; so does a message that its exchange refuses.

What the table cannot show: losing a party, or a party coming back, is no event of one exchange. It changes the
attendance, and with it whether exchanges are complete, so that every event is followed by a look at all that gather.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias

from fedray.errors import ProtocolError
from fedray.party.rounds.attendance import Attendance
from fedray.types import PartyName

Gate: TypeAlias = tuple[Hashable, ...]
"""Names an exchange; it begins with its kind, e.g. `("round", 3, 0)`."""

Ticket: TypeAlias = int
"""Names one delivery that waits."""


class Stand(Enum):
    """How far an exchange is."""

    ANNOUNCED = "announced"
    GATHERING = "gathering"
    CLOSED = "closed"
    ENDED = "ended"


class Happening(Enum):
    """What can happen to an exchange."""

    ARRIVED = "a message arrived"
    COMPLETE = "nobody is awaited any longer"
    DUE = "the deadline has passed"
    ENDED = "the segment or the session has ended"


TRANSITIONS: Mapping[Stand, Mapping[Happening, Stand]] = {
    Stand.ANNOUNCED: {Happening.ARRIVED: Stand.GATHERING, Happening.ENDED: Stand.ENDED},
    Stand.GATHERING: {
        Happening.ARRIVED: Stand.GATHERING,
        Happening.COMPLETE: Stand.CLOSED,
        Happening.DUE: Stand.CLOSED,
        Happening.ENDED: Stand.ENDED,
    },
    Stand.CLOSED: {Happening.ARRIVED: Stand.CLOSED},
    Stand.ENDED: {Happening.ARRIVED: Stand.ENDED},
}
"""What may happen at which stand, and what comes of it. Everything else is refused."""


@dataclass(frozen=True, slots=True)
class Closing:
    """What comes of an exchange that closes.

    Attributes:
        answer: Party -> what its deliveries are told; None where they wait on at `then`.
        then: The exchange that follows. It gathers at once: whoever is told `answer` is about to send to it.
        ends: Why all other exchanges of this kind end with it, or empty.
        kept: Whether late comers may still ask for the answer.
    """

    answer: Callable[[PartyName], Any] | None
    then: Exchange | None = None
    ends: str = ""
    kept: bool = True


class Exchange(Protocol):
    """What one exchange is about. Its methods are pure or only send; none of them waits."""

    @property
    def gate(self) -> Gate:
        """Its name."""

    def take(self, sender: PartyName, message: Any) -> None:
        """Takes one message.

        Raises:
            FedRayError: The message is wrong. Nothing has changed.
        """

    def complete(self) -> bool:
        """Returns whether it can be closed by now."""

    def until(self, now: float) -> float:
        """Returns the deadline of an exchange that begins now; infinity for none."""

    def close(self, *, late: bool) -> Closing:
        """Settles what comes of it; `late` says that it is closed because its deadline has passed."""

    def ended(self, reason: str) -> Any:
        """Returns what whoever waits is told if it ends without an answer."""


@dataclass(slots=True)
class _Place:
    """One exchange, and who waits at it."""

    exchange: Exchange
    stand: Stand
    deadline: float = math.inf
    waiting: list[tuple[Ticket, PartyName]] = field(default_factory=list)
    answer: Callable[[PartyName], Any] | None = None
    then: Gate | None = None


class Barrier:
    """The exchanges of one service.

    Args:
        attendance: Who is gone and who is late.

    Attributes:
        attendance: The same.
        answers: Ticket -> answer, of deliveries that have one; whoever passes it on takes it out.
    """

    def __init__(self, attendance: Attendance) -> None:
        self.attendance = attendance
        self.answers: dict[Ticket, Any] = {}
        self._places: dict[Gate, _Place] = {}

    @property
    def deadline(self) -> float:
        """Returns when `due` has to be called next; infinity for never."""
        places = self._places.values()
        return min((place.deadline for place in places if place.stand is Stand.GATHERING), default=math.inf)

    def deadline_of(self, ticket: Ticket) -> float:
        """Returns the deadline of the exchange at which a delivery waits; infinity for none."""
        waits = (place for place in self._places.values() if any(one == ticket for one, _ in place.waiting))
        return min((place.deadline for place in waits), default=math.inf)

    def stand(self, gate: Gate) -> Stand | None:
        """Returns how far an exchange is; None for one that was never announced, or is forgotten."""
        place = self._places.get(gate)
        return None if place is None else place.stand

    # What happens. Each of these is an event; `now` is when, in seconds of any clock.

    def announce(self, exchange: Exchange) -> None:
        """Says that an exchange begins with the first message for it.

        Raises:
            ProtocolError: It is there already.
        """
        self._enter(exchange, Stand.ANNOUNCED)

    def open(self, exchange: Exchange, ticket: Ticket, sender: PartyName, now: float) -> None:
        """Begins an exchange at which somebody waits without having sent anything.

        Args:
            exchange: What it is about.
            ticket: Who waits.
            sender: Their name.
            now: When.

        Raises:
            ProtocolError: It is there already.
        """
        place = self._enter(exchange, Stand.GATHERING)
        place.deadline = exchange.until(now)
        place.waiting.append((ticket, sender))
        self.check(now)

    def arrive(self, gate: Gate, sender: PartyName, message: Any, now: float, ticket: Ticket | None = None) -> None:
        """Takes a message for an exchange.

        Args:
            gate: Which one.
            sender: Whose message.
            message: What the exchange takes.
            now: When.
            ticket: Who waits for the answer; None where nobody does.

        Raises:
            ProtocolError: There is no such exchange.
            FedRayError: The exchange refuses the message.
        """
        place = self._place(gate)
        stand = self._next(place, Happening.ARRIVED)
        if stand is Stand.GATHERING:
            place.exchange.take(sender, message)  # it may raise, and then nothing has happened
            if place.stand is Stand.ANNOUNCED:
                place.deadline = place.exchange.until(now)
        place.stand = stand
        self.attendance.heard(sender)
        if ticket is not None:
            self.wait(gate, ticket, sender)
        self.check(now)

    def wait(self, gate: Gate, ticket: Ticket, sender: PartyName) -> None:
        """Lets a delivery wait at an exchange, or at the one that those who wait there were handed on to.

        Args:
            gate: Which one.
            ticket: Who waits.
            sender: Whose delivery it is.

        Raises:
            ProtocolError: There is no such exchange.
        """
        place = self._place(gate)
        while place.answer is None and place.then is not None:
            place = self._place(place.then)
        if place.answer is None:
            place.waiting.append((ticket, sender))
        else:
            self.tell(ticket, place.answer(sender))

    def lost(self, party: PartyName, reason: str, now: float) -> None:
        """Notes that a party will not answer any more.

        Args:
            party: Who.
            reason: Why.
            now: When.
        """
        self.attendance.gone[party] = reason
        self.check(now)

    def due(self, now: float) -> None:
        """Closes what has reached its deadline.

        Raises:
            ProtocolError: Nothing has.
        """
        late = [place for place in self._gathering() if place.deadline <= now]
        if not late:
            raise ProtocolError(f"nothing is due before {self.deadline:g}, found {now:g}")
        for place in late:
            if place.stand is Stand.GATHERING:  # closing one may have ended another
                self._close(place, now, Happening.DUE)
        self.check(now)

    def end(self, kind: str, reason: str, now: float) -> None:
        """Ends all exchanges of a kind that have no answer yet.

        Args:
            kind: Which kind; others are left alone.
            reason: What whoever waits is told.
            now: When.
        """
        self._end(kind, reason)
        self.check(now)

    def check(self, now: float) -> None:
        """Closes whatever is complete by now; to be called where something else has changed that decides on that."""
        # One at a time: closing one may open another, end others, or make them complete.
        while complete := [place for place in self._gathering() if place.exchange.complete()]:
            self._close(complete[0], now, Happening.COMPLETE)

    def tell(self, ticket: Ticket, answer: Any) -> None:
        """Answers a delivery."""
        self.answers[ticket] = answer

    def forget(self, kind: str, but: Hashable = None) -> None:
        """Forgets the exchanges of a kind at which nobody waits, except those whose gate has `but` after the kind."""
        self._places = {
            gate: place
            for gate, place in self._places.items()
            if gate[0] != kind or gate[1] == but or place.stand is Stand.GATHERING
        }

    # Inside.

    def _enter(self, exchange: Exchange, stand: Stand) -> _Place:
        if exchange.gate in self._places:
            raise ProtocolError(f"exchange {exchange.gate} was announced before")
        place = self._places[exchange.gate] = _Place(exchange, stand)
        return place

    def _place(self, gate: Gate) -> _Place:
        place = self._places.get(gate)
        if place is None:
            raise ProtocolError(f"exchange {gate} is not under way")
        return place

    def _next(self, place: _Place, happening: Happening) -> Stand:
        after = TRANSITIONS[place.stand].get(happening)
        if after is None:
            raise ProtocolError(f"exchange {place.exchange.gate} is {place.stand.value}, yet {happening.value}")
        return after

    def _gathering(self) -> list[_Place]:
        return [place for place in self._places.values() if place.stand is Stand.GATHERING]

    def _close(self, place: _Place, now: float, happening: Happening) -> None:
        after, gate = self._next(place, happening), place.exchange.gate
        closing = place.exchange.close(late=happening is Happening.DUE)  # if it raises, nothing has changed here
        place.stand, place.answer = after, closing.answer
        waiting, place.waiting = place.waiting, []
        if closing.then is not None:
            place.then = closing.then.gate
            following = self._enter(closing.then, Stand.GATHERING)
            following.deadline = closing.then.until(now)
            if closing.answer is None:
                following.waiting, waiting = waiting, []
        for ticket, party in waiting:
            self.tell(ticket, closing.answer(party) if closing.answer is not None else None)
        if not closing.kept:
            del self._places[gate]
        if closing.ends:  # last: this one has its answers, and is not ended with the others
            self._end(str(gate[0]), closing.ends)

    def _end(self, kind: str, reason: str) -> None:
        for place in self._places.values():
            if place.exchange.gate[0] != kind or Happening.ENDED not in TRANSITIONS[place.stand]:
                continue
            place.stand = self._next(place, Happening.ENDED)
            told = place.exchange.ended(reason)
            place.answer = _constant(told)
            for ticket, _ in place.waiting:
                self.tell(ticket, told)
            place.waiting = []


def _constant(value: Any) -> Callable[[PartyName], Any]:
    return lambda _: value
