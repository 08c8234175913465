# SPDX-License-Identifier: Apache-2.0
"""Referee: whose messages a round waits for, when it closes, and what everybody is told.

Every delivery waits here, on a thread of its own, until there is an answer to it. Knows protocol messages, deadlines
and who is gone. Knows no model and no strategy; what an opened sum is turned into is the caller's `finish`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedray.errors import FedRayError, ProtocolError
from fedray.party.orders import Answer, Expect, Missing, Progress
from fedray.protocol.config import Config
from fedray.protocol.keys import Roster
from fedray.protocol.scheme import Collector, Opened, View
from fedray.protocol.schemes import SCHEMES, BatchCoordinator, Coordinator
from fedray.types import Message, PartyName, Round


@dataclass(slots=True)
class _Round:
    """One round while it lasts. `answers[k]` is what the deliveries of exchange k wait for."""

    number: Round
    collector: Collector
    deadline: float
    answers: list[Answer] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether the last answer is final."""
        return bool(self.answers) and self.answers[-1].verdict != "next"


class Referee:
    """Runs the rounds of one aggregator, one segment after the other.

    Args:
        timeout: Seconds that one exchange may take after its first message.
        clock: Monotonic seconds.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._clock = clock
        self._changed = threading.Condition()
        self._coordinator: Coordinator | None = None
        self._view = View(0, ())
        self._gone: dict[PartyName, str] = {}
        self._expect: Expect | None = None
        self._finish: Callable[[Opened], Answer] | None = None
        self._round: _Round | None = None
        self._next: Round = 0
        self._missing: list[Missing] = []
        self._stop = False
        self._error = ""

    def begin(self, config: Config, roster: Roster, hellos: Sequence[bytes], confirms: Sequence[bytes]) -> None:
        """Starts a session among the parties of a roster; all of them are awaited."""
        with self._changed:
            self._coordinator = SCHEMES[config.part].coordinator(config, roster, hellos, confirms)
            self._view = View(0, roster.names)
            self._gone = {}
            self._expect = self._round = None
            self._missing = []

    def expect(self, order: Expect, finish: Callable[[Opened], Answer]) -> None:
        """Announces the rounds of a segment, and what an opened sum is turned into."""
        with self._changed:
            self._expect, self._finish, self._round = order, finish, None
            self._next, self._missing, self._stop, self._error = order.number, [], False, ""

    def stop(self) -> None:
        """Ends the segment after the round under way, for every party alike."""
        with self._changed:
            self._stop = True

    def abort(self, reason: str) -> None:
        """Ends the segment at once: whoever waits is told why, and nothing more is opened."""
        with self._changed:
            self._fail(reason)

    def lost(self, party: PartyName, reason: str) -> None:
        """Waits no longer for a party that is known to be gone."""
        with self._changed:
            self._gone[party] = reason
            if self._round is not None and not self._round.over:
                self._close_if_ready(self._round)
            self._changed.notify_all()

    def progress(self, seen: int, seconds: float) -> Progress:
        """Returns the progress as soon as it differs from `seen` rounds, or after some seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._done != seen or bool(self._error), seconds)
            return Progress(self._done, tuple(self._missing), self._error)

    def take(self, sender: PartyName, number: Round, body: Message) -> Answer:
        """Takes one message of a round and returns the answer, when there is one.

        Raises:
            ProtocolError: The message is wrong or does not belong to the round under way.
        """
        with self._changed:
            if self._error:
                return Answer("aborted", reason=self._error)
            if sender not in self._view.members:
                return Answer("left", reason=self._gone.get(sender, "it was not part of the view"))
            if number < self._next and (self._round is None or number < self._round.number or self._round.over):
                return self._missed()
            current = self._admit(number)
            if sender not in current.collector.missing():
                self._wait(current, lambda: current.over)
                return self._missed() if current.answers[-1].verdict == "opened" else current.answers[-1]
            stage = len(current.answers)
            current.collector.add(sender, body)
            self._close_if_ready(current)
            self._wait(current, lambda: len(current.answers) > stage)
            return current.answers[stage]

    def set_up(self, sender: PartyName, batch: int, body: bytes) -> Answer:
        """Takes one message of the set-up of a batch of rounds and returns what the others sent.

        Raises:
            ProtocolError: The message is wrong, or the session's scheme has no batches.
        """
        with self._changed:
            coordinator = self._session()
            if not isinstance(coordinator, BatchCoordinator):
                raise ProtocolError(f"{sender}: this session's scheme has no batches of rounds, found batch {batch}")
            stage = coordinator.set_up_stage(batch)
            coordinator.add_set_up(sender, batch, body)
            self._changed.notify_all()
            deadline = self._clock() + self._timeout
            while coordinator.set_up_stage(batch) == stage:
                absent = coordinator.awaited(batch) & self._gone.keys()
                if absent or self._clock() >= deadline:
                    who = ", ".join(sorted(absent or coordinator.awaited(batch)))
                    return Answer("renew", reason=f"keys for further rounds need everybody; {who} did not answer")
                self._changed.wait(max(deadline - self._clock(), 0.01))
            return Answer("next", broadcast=coordinator.set_up_answer(batch, stage, sender))

    @property
    def _done(self) -> int:
        if self._expect is None:
            return 0
        under_way = self._round is not None and not self._round.over
        return min(self._next - self._expect.number - under_way, self._expect.count)

    def _session(self) -> Coordinator:
        if self._coordinator is None:
            raise ProtocolError("the server has no session yet")
        return self._coordinator

    def _admit(self, number: Round) -> _Round:
        current, expect = self._round, self._expect
        if current is not None and current.number == number and not current.over:
            return current
        # Rounds that no two parties of a smaller view hold rows for are passed over by all of them.
        last = (
            -1 if expect is None else expect.number + expect.count + (len(self._view.members) if expect.report else 0)
        )
        if expect is None or (current is not None and not current.over) or not self._next <= number < last:
            raise ProtocolError(f"round {number} is not the one under way; its message was dropped unread")
        manifest = expect.manifest
        if expect.report is not None and number >= expect.number + expect.count:
            manifest = expect.report
        collector = self._session().collector(self._view, number, manifest)
        self._round = _Round(number, collector, self._clock() + self._timeout)
        self._next = number + 1
        return self._round

    def _wait(self, current: _Round, done: Callable[[], bool]) -> None:
        while not done():
            left = current.deadline - self._clock()
            if left <= 0 and not current.over:
                self._close(current, f"no message within {self._timeout:g} s")
            elif not done():
                self._changed.wait(max(left, 0.01))

    def _close_if_ready(self, current: _Round) -> None:
        if current.collector.missing() <= self._gone.keys():
            self._close(current, "")

    def _close(self, current: _Round, reason: str) -> None:
        """Ends the exchange under way: with everybody's message, or without those of whom there is none."""
        absent, first = current.collector.missing(), not current.answers
        recovers = self._session().recovers
        if absent and first:
            self._missing += [
                Missing(current.number, party, self._gone.get(party, reason), not recovers) for party in sorted(absent)
            ]
        try:
            answer = self._abandoned(absent) if absent and not recovers else self._advanced(current)
        except FedRayError as error:
            self._fail(str(error))
            return
        current.answers.append(answer)
        current.deadline = self._clock() + self._timeout
        self._changed.notify_all()

    def _advanced(self, current: _Round) -> Answer:
        broadcast = current.collector.advance()
        if broadcast is not None:
            return Answer("next", broadcast=broadcast)
        opened = current.collector.open()
        expect, finish = self._expect, self._finish
        if expect is None or finish is None:
            raise ProtocolError("no rounds were announced")
        extra = current.number >= expect.number + expect.count
        answer = Answer("opened", opened.values, opened.metrics) if extra else finish(opened)
        return Answer(answer.verdict, answer.values, answer.metrics, stop=self._stop)

    def _abandoned(self, absent: frozenset[PartyName]) -> Answer:
        for party in absent:
            self._gone.setdefault(party, "the others went on without it")
        members = tuple(name for name in self._view.members if name not in absent)
        self._session().check_view(members)
        self._view = View(self._view.counter + 1, members)
        return Answer("abandoned", view=self._view, stop=self._stop)

    def _missed(self) -> Answer:
        return Answer("missed", number=self._next)

    def _fail(self, reason: str) -> None:
        self._error = self._error or reason
        if self._round is not None and not self._round.over:
            self._round.answers.append(Answer("aborted", reason=self._error))
        self._changed.notify_all()
