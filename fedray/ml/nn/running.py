# SPDX-License-Identifier: Apache-2.0
"""RunningLoss: the loss of an epoch under way, for the bar, put together from what the parties tell of their own.

Asks now and then and never waits: rounds go on meanwhile. What a party tells, and how often, it decides itself; see
`fedray.party.training.so_far`. Knows no model and no order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from fedray.errors import FedRayError
from fedray.runtime.session import Session
from fedray.types import Key, PartyName, Ref

EVERY_SECONDS = 2.0
"""So long an epoch takes before anybody is asked, and between two questions: short ones tell nothing and cost nothing.
A question to two parties takes 2.4 ms of all processors together, a thousandth of that."""
EVERY_SECONDS_EACH = 0.4
"""So much more for each party, where they are many."""


class RunningLoss:
    """The joint loss of the epoch under way.

    Args:
        session: The running session.
        trainers: Party -> key of its `Trainer`.
        clock: Tells the time, in seconds.
    """

    def __init__(
        self, session: Session, trainers: Mapping[PartyName, Key], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session, self._trainers, self._clock = session, dict(trainers), clock
        self._silent = set[PartyName]()
        self.begin()

    def begin(self) -> None:
        """Begins an epoch: what parties told of the one before is forgotten, and so is what was asked."""
        self._told: dict[PartyName, tuple[float, float]] = {}
        self._asked: dict[PartyName, Ref] = {}
        self._next = self._clock() + self._pause

    @property
    def _pause(self) -> float:
        return max(EVERY_SECONDS, EVERY_SECONDS_EACH * len(self._trainers))

    def look(self) -> float | None:
        """Returns the mean over all rows that parties have told of in this epoch; None where none has told anything."""
        if self._asked:
            over = self._session.wait(list(self._asked.values()), timeout=0.0)
            for party in [party for party, ref in self._asked.items() if ref in over]:
                self._take(party, self._asked.pop(party))
        elif self._clock() >= self._next:
            # A party looks when it has been asked, and tells when it is asked next: soon, the first time.
            self._next = self._clock() + (self._pause if self._told else self._pause / 4)
            self._ask()
        rows = sum(count for _, count in self._told.values())
        return sum(total for total, _ in self._told.values()) / rows if rows else None

    def _ask(self) -> None:
        label = self._session.statement("loss so far")
        for party in self._trainers.keys() - self._silent:
            try:
                self._asked[party] = self._session.watch(party, self._trainers[party], label=label)
            except FedRayError:
                self._silent.add(party)

    def _take(self, party: PartyName, ref: Ref) -> None:
        try:
            (told,) = self._session.get([ref])
        except FedRayError:  # it has ended, which is for others to say: a bar is no reason to fail
            self._silent.add(party)
            return
        if told is not None:
            self._told[party] = told
