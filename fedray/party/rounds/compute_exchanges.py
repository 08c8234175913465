# SPDX-License-Identifier: Apache-2.0
"""The exchanges of one round at a compute party: shares, signatures, the server's word. Pure.

Owners that wait are handed on from one to the next. What comes of each is settled by whoever keeps the rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from fedray.party.records import Answer, RoundOutcome
from fedray.party.rounds.barrier import Closing, Gate
from fedray.types import PartyName, Round

PATIENCE = 1.5
"""Timeouts after which a round without all signatures is given up: one for owners, half of one for compute parties."""


class ComputeKeeper(Protocol):
    """What the exchanges need of `ComputeRounds`.

    Attributes:
        timeout: Seconds that a round waits for owners.
    """

    timeout: float

    def leads(self) -> bool:
        """Returns whether this compute party is the one that proposes."""

    def may_sign(self, number: Round, *, late: bool) -> bool:
        """Returns whether a set of owners is settled, and their shares are here."""

    def agreed(self) -> bool:
        """Returns whether all compute parties have signed one set of owners."""

    def sign(self, number: Round, deadline: float) -> Closing:
        """Signs the set of owners, and has the other compute parties told."""

    def unsigned(self, number: Round) -> Closing:
        """Gives up because a signature is missing."""

    def publish(self, number: Round) -> Closing:
        """Publishes this party's sum."""

    def over(self, number: Round) -> None:
        """Notes that a round is over."""

    def not_opened(self, number: Round, answer: Answer) -> str:
        """Ends the segment since the server says something else than "opened"; returns why."""


def gate_of(number: Round, step: str = "shares") -> Gate:
    """Returns the name of one exchange of a round: `"shares"`, `"signatures"` or `"sum"`."""
    return "round", number, step


@dataclass(slots=True)
class _Step:
    """One exchange of a round. Its messages were taken by the adder: some may come before the step they belong to."""

    rounds: ComputeKeeper
    number: Round

    def take(self, sender: PartyName, message: Any) -> None:
        """Takes nothing more."""

    def ended(self, reason: str) -> RoundOutcome:
        """Returns what whoever waits is told where nothing is opened."""
        return RoundOutcome(Answer("aborted", reason=reason))


@dataclass(slots=True)
class SharesStep(_Step):
    """The owners' shares, until it is settled whose are opened."""

    given_up: float = math.inf

    @property
    def gate(self) -> Gate:
        """Its name; a round is known by that of its first exchange."""
        return gate_of(self.number)

    def complete(self) -> bool:
        """Returns whether everybody is there who is expected; at others than the first, whom that one proposed."""
        return self.rounds.may_sign(self.number, late=False)

    def until(self, now: float) -> float:
        """Returns when the first compute party proposes whoever came, and when the others wait for that no longer."""
        self.given_up = now + PATIENCE * self.rounds.timeout
        return now + self.rounds.timeout if self.rounds.leads() else self.given_up

    def close(self, *, late: bool) -> Closing:
        """Has the set signed, if there is one by now."""
        if self.rounds.may_sign(self.number, late=late):
            return self.rounds.sign(self.number, self.given_up)
        return self.rounds.unsigned(self.number)


@dataclass(slots=True)
class SignaturesStep(_Step):
    """All compute parties' signatures under one set of owners."""

    deadline: float

    @property
    def gate(self) -> Gate:
        """Its name."""
        return gate_of(self.number, "signatures")

    def complete(self) -> bool:
        """Returns whether all have signed the same."""
        return self.rounds.agreed()

    def until(self, now: float) -> float:
        """Returns the round's deadline: it does not matter when this party signed."""
        del now
        return self.deadline

    def close(self, *, late: bool) -> Closing:
        """Has the sum published, or the round given up."""
        return self.rounds.unsigned(self.number) if late else self.rounds.publish(self.number)


@dataclass(slots=True)
class SumStep(_Step):
    """The server's word on the compute parties' sums. The server keeps the deadline.

    Attributes:
        members: Whose inputs are in the sum.
        proof: All compute parties' signatures under them.
        answer: The server's answer, when there is one.
    """

    members: tuple[PartyName, ...]
    proof: bytes
    answer: Answer | None = None

    @property
    def gate(self) -> Gate:
        """Its name."""
        return gate_of(self.number, "sum")

    def take(self, sender: PartyName, message: Answer) -> None:
        """Takes the server's answer."""
        del sender
        self.answer = message

    def complete(self) -> bool:
        """Returns whether there is an answer."""
        return self.answer is not None

    def until(self, now: float) -> float:
        """Returns no deadline."""
        del now
        return math.inf

    def close(self, *, late: bool) -> Closing:
        """Passes the answer on. The server has the sum: whatever else it says, no further round is held."""
        del late
        answer = self.answer
        if answer is None or answer.verdict == "opened":
            self.rounds.over(self.number)
            return Closing(self._told)
        return Closing(self._told, ends=self.rounds.not_opened(self.number, answer))

    def ended(self, reason: str) -> RoundOutcome:
        """Returns what whoever waits is told where the segment ends: with the proof of whose sum has left."""
        return RoundOutcome(Answer("aborted", reason=reason), self.proof)

    def _told(self, owner: PartyName) -> RoundOutcome:
        answer = self.answer or Answer("aborted")
        summed = answer.verdict == "opened"
        if summed and owner not in self.members:  # a sum without it must not change its model
            return RoundOutcome(Answer("left", reason=f"it was opened over {', '.join(self.members)}"))
        return RoundOutcome(answer, self.proof)
