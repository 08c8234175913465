# SPDX-License-Identifier: Apache-2.0
"""The exchanges of one round at the server: its steps one after the other, and its end. Pure.

Knows the round's collector and who was heard. What comes of a step is settled by whoever keeps the rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from fedray.errors import FedRayError, ProtocolError
from fedray.party.records import Answer
from fedray.party.rounds.barrier import Closing, Gate
from fedray.protocol.scheme import Collector
from fedray.types import Message, PartyName, Round


class RoundKeeper(Protocol):
    """What the exchanges need of `ServerRounds`."""

    def begun(self, current: RoundUnderWay) -> None:
        """Learns that the first message of an announced round has come and is right."""

    def refused(self, current: RoundUnderWay, sender: PartyName, error: FedRayError) -> None:
        """Learns that a party's message is wrong.

        Args:
            current: The round.
            sender: Whose message.
            error: What is wrong with it.
        """

    def away(self, current: RoundUnderWay) -> bool:
        """Returns whether nobody is awaited, or only such as are late and can be done without."""

    def close(self, current: RoundUnderWay, *, late: bool) -> Closing:
        """Ends the step under way."""

    def missed(self, sender: PartyName, number: Round, resume: Round) -> Answer:
        """Returns what a party is told that missed a round.

        Args:
            sender: Who.
            number: The round that it missed.
            resume: The round in which it may take part again.
        """


@dataclass(slots=True)
class RoundUnderWay:
    """One round while it lasts.

    Attributes:
        number: The round.
        collector: Its summing end.
        answers: `answers[k]` is what the deliveries of exchange k are told.
        heard: How many exchanges of it each party has taken part in.
        repeats: Whether it repeats the round before, as the message says that it began with.
        only: Whose messages are taken, where it repeats a round over the same parties; None for everybody's.
    """

    number: Round
    collector: Collector
    answers: list[Answer] = field(default_factory=list)
    heard: dict[PartyName, int] = field(default_factory=dict)
    repeats: bool = False
    only: frozenset[PartyName] | None = None

    def takes(self, sender: PartyName) -> bool:
        """Returns whether a party may take part."""
        return self.only is None or sender in self.only

    @property
    def missing(self) -> frozenset[PartyName]:
        """Whose first message is awaited; nobody's once the first exchange is closed."""
        return frozenset() if self.answers else self.collector.missing()

    @property
    def awaited(self) -> tuple[PartyName, ...]:
        """Whose message is missing in the exchange under way."""
        return () if self.over else tuple(sorted(filter(self.takes, self.collector.missing())))

    @property
    def over(self) -> bool:
        """Whether the last answer is final."""
        return bool(self.answers) and self.answers[-1].verdict != "next"

    @property
    def settled(self) -> bool:
        """Whether it is over, and was not given up."""
        return self.over and self.answers[-1].verdict != "aborted"

    def other_kind(self, sender: PartyName) -> ProtocolError:
        """Returns the error for a party that takes a repeat for a round of its own, or the other way round."""
        said = "is one of its own" if self.repeats else "repeats the one before"
        return ProtocolError(f"{sender}: round {self.number} {said}, as it says; the others say it is not so")


@dataclass(slots=True)
class Stage:
    """One step of a round: a message from every member of the view, and the same answer to all of them.

    Attributes:
        rounds: Who settles what comes of it.
        current: The round.
        stage: Which step, counted from 0.
        timeout: Seconds that it may take.
    """

    rounds: RoundKeeper
    current: RoundUnderWay
    stage: int
    timeout: float

    @property
    def gate(self) -> Gate:
        """Its name."""
        return "round", self.current.number, self.stage

    def take(self, sender: PartyName, message: Message) -> None:
        """Has the round's collector add a message.

        Raises:
            ProtocolError: The message is wrong.
        """
        try:
            self.current.collector.add(sender, message)
        except FedRayError as error:
            self.rounds.refused(self.current, sender, error)
            raise
        self.current.heard[sender] = self.stage + 1  # after the message was found right: a wrong one is as none
        if self.stage == 0:
            self.rounds.begun(self.current)

    def complete(self) -> bool:
        """Returns whether nobody is awaited any longer."""
        return self.rounds.away(self.current)

    def until(self, now: float) -> float:
        """Returns the deadline."""
        return now + self.timeout

    def close(self, *, late: bool) -> Closing:
        """Has it settled what everybody is told."""
        return self.rounds.close(self.current, late=late)

    def ended(self, reason: str) -> Answer:
        """Returns what whoever waits is told where nothing is opened."""
        return Answer("aborted", reason=reason)


@dataclass(slots=True)
class RoundEnd:
    """The end of a round, for those that may take part only in the next one. It has no deadline but the steps'.

    Attributes:
        rounds: Who says what they are told.
        current: The round.
        missed: Who waits -> the round that it has missed.
    """

    rounds: RoundKeeper
    current: RoundUnderWay
    missed: dict[PartyName, Round] = field(default_factory=dict)

    @property
    def gate(self) -> Gate:
        """Its name."""
        return "round", self.current.number, "end"

    def take(self, sender: PartyName, message: Round) -> None:
        """Notes which round somebody has missed."""
        self.missed[sender] = message

    def complete(self) -> bool:
        """Returns whether the round is over."""
        return self.current.over

    def until(self, now: float) -> float:
        """Returns no deadline."""
        del now
        return math.inf

    def close(self, *, late: bool) -> Closing:
        """Lets everybody go on with the next round, or ask for the end of the one that repeats this one."""
        del late
        resume = self.current.number + 1
        return Closing(lambda party: self.rounds.missed(party, self.missed[party], resume))

    def ended(self, reason: str) -> Answer:
        """Returns what whoever waits is told where the round is not opened."""
        return Answer("aborted", reason=reason)
