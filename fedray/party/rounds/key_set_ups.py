# SPDX-License-Identifier: Apache-2.0
"""KeySetUps: the server's part in preparing keys for rounds to come, where the scheme prepares them together. Pure.

Each step of a set-up is an exchange that needs everybody. Cannot open what it hands on. A set-up that failed for one
party has failed for all: whoever asks later is told so at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedray.errors import FedRayError, ProtocolError
from fedray.party.records import Answer
from fedray.party.rounds.barrier import Barrier, Closing, Gate, Ticket
from fedray.protocol.scheme import Fault
from fedray.protocol.schemes import BatchCoordinator, Coordinator
from fedray.types import PartyName, Round


class KeySetUps:
    """The set-ups of one session's batches of rounds.

    Args:
        coordinator: The session's server side.
        barrier: Where deliveries wait.
        timeout: Seconds that one exchange may take after its first message.
    """

    def __init__(self, coordinator: Coordinator, barrier: Barrier, timeout: float) -> None:
        self._coordinator, self._barrier, self._timeout = coordinator, barrier, timeout
        self._refused: dict[int, str] = {}  # for good: a party that was told so has gone on to end the session
        self._ended = ""

    def hear(self, ticket: Ticket, sender: PartyName, batch: int, body: bytes, now: float, number: Round) -> None:
        """Takes one party's message, and notes whose fault it is where that is wrong; see `take`.

        Args:
            ticket: Who is answered.
            sender: Who sent it.
            batch: Number of the batch.
            body: The protocol message.
            now: When.
            number: The next round, for the note.

        Raises:
            ProtocolError: The message is wrong, or the session's scheme has no batches.
        """
        owed = self.owes(sender, batch)
        try:
            self.take(ticket, sender, batch, body, now)
        except FedRayError as error:
            if self.owes(sender, batch) or not owed:  # else it was taken, and another's is wrong
                what = f"keys of batch {batch}: {str(error).removeprefix(f'{sender}: ')}"
                self._barrier.attendance.accuse([Fault(number, sender, what)])
            raise

    def take(self, ticket: Ticket, sender: PartyName, batch: int, body: bytes, now: float) -> None:
        """Takes one party's message; the answer is what the others sent, when all of them have.

        Args:
            ticket: Who is answered.
            sender: Who sent it.
            batch: Number of the batch.
            body: The protocol message.
            now: When.

        Raises:
            ProtocolError: The message is wrong, or the session's scheme has no batches.
        """
        coordinator = self._coordinator
        if not isinstance(coordinator, BatchCoordinator):
            raise ProtocolError(f"{sender}: this session's scheme has no batches of rounds, found batch {batch}")
        if self._ended:
            self._barrier.tell(ticket, Answer("left", reason=self._ended))
        elif batch in self._refused:
            self._barrier.tell(ticket, Answer("renew", reason=self._refused[batch]))
        else:
            step = _Step(self, coordinator, batch, coordinator.set_up_stage(batch), self._timeout)
            if self._barrier.stand(step.gate) is None:
                self._barrier.announce(step)
            self._barrier.arrive(step.gate, sender, body, now, ticket)

    def end(self, reason: str, now: float) -> None:
        """Ends every set-up, those under way and those to come: whoever asks is told why."""
        self._ended = self._ended or reason
        self._barrier.end("keys", self._ended, now)
        self._barrier.forget("keys")

    def owes(self, sender: PartyName, batch: int) -> bool:
        """Returns whether a party's message of the set-up of a batch is awaited."""
        coordinator = self._coordinator
        return isinstance(coordinator, BatchCoordinator) and sender in coordinator.awaited(batch)

    def gone(self, awaited: frozenset[PartyName]) -> frozenset[PartyName]:
        """Returns who of the awaited will not answer any more."""
        return awaited & self._barrier.attendance.gone.keys()

    def refuse(self, batch: int, awaited: frozenset[PartyName]) -> Answer:
        """Gives a batch up because of parties that did not answer, and returns what everybody is told."""
        gone = self._barrier.attendance.gone
        listed = ", ".join(
            f"{party} ({gone.get(party, f'no message within {self._timeout:g} s')})" for party in sorted(awaited)
        )
        self._refused[batch] = f"keys for further rounds need everybody; missing: {listed}"
        return Answer("renew", reason=self._refused[batch])


@dataclass(slots=True)
class _Step:
    """One exchange of the set-up of a batch: a message from everybody, and to each what the others made for it."""

    set_ups: KeySetUps
    coordinator: BatchCoordinator
    batch: int
    stage: int
    timeout: float

    @property
    def gate(self) -> Gate:
        return "keys", self.batch, self.stage

    @property
    def _over(self) -> bool:
        return self.coordinator.set_up_stage(self.batch) != self.stage

    def take(self, sender: PartyName, message: bytes) -> None:
        self.coordinator.add_set_up(sender, self.batch, message)

    def complete(self) -> bool:
        return self._over or bool(self.set_ups.gone(self.coordinator.awaited(self.batch)))

    def until(self, now: float) -> float:
        return now + self.timeout

    def close(self, *, late: bool) -> Closing:
        del late
        if self._over:  # nobody comes to a step that is over: who repeats its message comes to the next one
            return Closing(self._handed_on, kept=False)
        awaited = self.coordinator.awaited(self.batch)
        answer = self.set_ups.refuse(self.batch, self.set_ups.gone(awaited) or awaited)
        return Closing(lambda _: answer, kept=False)

    def ended(self, reason: str) -> Answer:
        return Answer("left", reason=reason)

    def _handed_on(self, party: PartyName) -> Answer:
        return Answer("next", broadcast=self.coordinator.set_up_answer(self.batch, self.stage, party))
