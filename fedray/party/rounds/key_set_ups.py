# SPDX-License-Identifier: Apache-2.0
"""KeySetUps: the server's part in preparing keys for rounds to come, where the scheme prepares them together.

Knows whose message is awaited and for how long. Cannot open what it hands on. A set-up that failed for one party has
failed for all: whoever asks later is told so at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from fedray.errors import ProtocolError
from fedray.party.records import Answer
from fedray.protocol.schemes import BatchCoordinator, Coordinator
from fedray.types import PartyName


class KeySetUps:
    """The set-ups of one session's batches of rounds. Every method is called under the lock of `changed`.

    Args:
        coordinator: The session's server side.
        changed: Woken when a message has come.
        timeout: Seconds that one exchange may take after a party's own message.
        clock: Monotonic seconds.
        gone: Who will not answer, and why; it may grow meanwhile.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        changed: threading.Condition,
        timeout: float,
        clock: Callable[[], float],
        gone: Mapping[PartyName, str],
    ) -> None:
        self._coordinator = coordinator
        self._changed, self._timeout, self._clock, self._gone = changed, timeout, clock, gone
        self._refused: dict[int, str] = {}
        self._ended = ""

    def take(self, sender: PartyName, batch: int, body: bytes) -> Answer:
        """Takes one party's message and returns what the others sent, when all of them have.

        Raises:
            ProtocolError: The message is wrong, or the session's scheme has no batches.
        """
        coordinator = self._coordinator
        if not isinstance(coordinator, BatchCoordinator):
            raise ProtocolError(f"{sender}: this session's scheme has no batches of rounds, found batch {batch}")
        stage = coordinator.set_up_stage(batch)
        if batch not in self._refused:
            coordinator.add_set_up(sender, batch, body)
            self._changed.notify_all()
        deadline = self._clock() + self._timeout
        while not self._ended and batch not in self._refused:
            if coordinator.set_up_stage(batch) != stage:
                return Answer("next", broadcast=coordinator.set_up_answer(batch, stage, sender))
            self._give_up_if(batch, coordinator.awaited(batch), late=self._clock() >= deadline)
            if batch not in self._refused:
                self._changed.wait(max(deadline - self._clock(), 0.01))
        if self._ended:
            return Answer("left", reason=self._ended)
        return Answer("renew", reason=self._refused[batch])

    def end(self, reason: str) -> None:
        """Ends every set-up, those under way and those to come: whoever asks is told why."""
        self._ended = self._ended or reason
        self._changed.notify_all()

    def _give_up_if(self, batch: int, awaited: frozenset[PartyName], *, late: bool) -> None:
        absent = awaited & self._gone.keys()
        if absent or late:
            listed = ", ".join(
                f"{party} ({self._gone.get(party, f'no message within {self._timeout:g} s')})"
                for party in sorted(absent or awaited)
            )
            self._refused[batch] = f"keys for further rounds need everybody; missing: {listed}"
            self._changed.notify_all()
