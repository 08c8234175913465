# SPDX-License-Identifier: Apache-2.0
"""WaitingRoom: where the threads of deliveries wait for a barrier's answers. The one place with a lock and a clock.

Knows no protocol. Whoever waits here also keeps the deadlines: no thread exists for that alone.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fedray.party.rounds.barrier import Barrier, Ticket

T = TypeVar("T")

LEAST_SECONDS = 0.01
"""So long a thread sleeps at least: a clock may say that nothing is due yet when the sleep is over."""

IDLE_SECONDS = 1.0
"""After so long a thread looks whether anything is due whose own exchange has no deadline: perhaps nobody else does."""


class WaitingRoom:
    """The threads around one barrier.

    Args:
        barrier: Whose answers are awaited.
        clock: Monotonic seconds.
    """

    def __init__(self, barrier: Barrier, clock: Callable[[], float] = time.monotonic) -> None:
        self._barrier, self._clock = barrier, clock
        self._lock = threading.RLock()
        # One for each that waits: a round's end is no news to whoever waits for something else, such as the driver.
        self._condition = partial(threading.Condition, self._lock)
        self._waiting: dict[Ticket, threading.Condition] = {}
        self._tickets: Ticket = 0

    def note(self, event: Callable[[float], T]) -> T:
        """Lets something happen and returns what comes of it; whoever has an answer by then is woken.

        Args:
            event: Called with the time, under the lock.
        """
        with self._lock:
            try:
                return event(self._clock())
            finally:  # an event that is refused may yet have answered somebody
                for ticket in self._barrier.answers:
                    if ticket in self._waiting:
                        self._waiting[ticket].notify()

    def deliver(self, event: Callable[[Ticket, float], None]) -> Any:
        """Lets something happen that is to be answered, and returns the answer when there is one.

        Args:
            event: Called with the delivery's ticket and the time, under the lock.
        """
        with self._lock:
            self._tickets += 1
            ticket = self._tickets
            self.note(lambda now: event(ticket, now))
            if ticket not in self._barrier.answers:
                self._wait(ticket)
            return self._barrier.answers.pop(ticket)

    def _wait(self, ticket: Ticket) -> None:
        """Returns when a delivery has an answer; the lock is held."""
        answered = self._waiting[ticket] = self._condition()
        try:
            while ticket not in self._barrier.answers:
                now = self._clock()
                if self._barrier.deadline <= now:
                    self.note(self._barrier.due)
                else:  # until its own deadline, not the next one: else all threads would wake for each of them
                    own = self._barrier.deadline_of(ticket)
                    answered.wait(IDLE_SECONDS if own == math.inf else max(LEAST_SECONDS, own - now))
        finally:
            del self._waiting[ticket]
