# SPDX-License-Identifier: Apache-2.0
"""Barrier: whose messages a round waits for, when it closes, and what everybody is told.

Every delivery waits here, on a thread of its own, until there is an answer to it. Knows protocol messages, deadlines
and who is gone. Knows no model and no strategy; what an opened sum is turned into is the caller's `finish`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fedray.errors import FedRayError, ProtocolError
from fedray.party.records import Answer, Expect, Progress
from fedray.party.rounds.attendance import Attendance
from fedray.party.rounds.key_set_ups import KeySetUps
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.scheme import Collector, Opened, View
from fedray.protocol.schemes import SCHEMES, Coordinator
from fedray.types import Message, PartyName, Round


@dataclass(slots=True)
class _Round:
    """One round while it lasts.

    Attributes:
        number: The round.
        collector: Its summing end.
        deadline: When the exchange under way is closed without those who are missing, on the barrier's clock.
        answers: `answers[k]` is what the deliveries of exchange k wait for.
        heard: How many exchanges of it each party has taken part in.
    """

    number: Round
    collector: Collector
    deadline: float
    answers: list[Answer] = field(default_factory=list)
    heard: dict[PartyName, int] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether the last answer is final."""
        return bool(self.answers) and self.answers[-1].verdict != "next"


class Barrier:
    """Runs the rounds of one aggregator, one segment after the other.

    Args:
        timeout: Seconds that one exchange may take after its first message.
        clock: Monotonic seconds.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout, self._clock = timeout, clock
        self._changed = threading.Condition()
        self._number = 0
        self._coordinator: Coordinator | None = None
        self._set_ups: KeySetUps | None = None
        self._view = View(0, ())
        self._owners: frozenset[PartyName] = frozenset()
        self._attendance = Attendance(timeout)
        self._expect: Expect | None = None
        self._finish: Callable[[Opened], Answer] | None = None
        self._round: _Round | None = None
        self._last: tuple[Round, Answer] | None = None
        self._next: Round = 0
        self._stop = False
        self._error = ""

    def begin(
        self, number: int, config: Config, roster: Roster, hellos: Sequence[bytes], confirms: Sequence[bytes]
    ) -> None:
        """Starts a session among the parties of a roster; all of them are awaited.

        Args:
            number: Number of the session; what is sent in another one is not taken.
            config: What all have agreed on.
            roster: The parties of the session.
            hellos: Their Hellos, in roster order.
            confirms: Their Confirms, in roster order.
        """
        with self._changed:
            self._fail("a new session has begun")
            self._end_set_ups("a new session has begun")
            self._number = number
            self._coordinator = SCHEMES[config.scheme].coordinator(config, roster, hellos, confirms)
            self._view, self._owners = View(0, roster.names), frozenset(config.owners or roster.names)
            self._attendance = Attendance(self._timeout)
            gone = self._attendance.gone
            self._set_ups = KeySetUps(self._coordinator, self._changed, self._timeout, self._clock, gone)
            self._expect = self._round = self._last = None
            self._error = ""

    def expect(self, order: Expect, finish: Callable[[Opened], Answer]) -> None:
        """Announces the rounds of a segment, and what an opened sum is turned into."""
        with self._changed:
            self._fail("the segment has ended")
            self._expect, self._finish, self._round = order, finish, None
            self._next, self._stop, self._error = order.number, False, ""
            self._attendance.begin_segment(order.absent)

    def stop(self) -> None:
        """Ends the segment after the round under way, for every party alike."""
        with self._changed:
            self._stop = True

    def abort(self, reason: str) -> None:
        """Ends the segment at once: whoever waits, for a round or for keys, is told why, and nothing more is opened."""
        with self._changed:
            self._fail(reason)
            self._end_set_ups(reason)

    def lost(self, party: PartyName, reason: str) -> None:
        """Waits no longer for a party that is known to be gone."""
        with self._changed:
            self._attendance.gone[party] = reason
            if self._round is not None and not self._round.over:
                self._close_if_ready(self._round)
            self._changed.notify_all()

    def progress(self, seen: int, seconds: float) -> Progress:
        """Returns the progress after some seconds, or as soon as the segment's last round is over or it was given up.

        Not after every round: where rounds are short, telling the driver would cost more than the rounds.

        Args:
            seen: The number of rounds that the caller knows of; below 0 the answer comes at once.
            seconds: How long to wait at most.
        """
        with self._changed:
            self._changed.wait_for(lambda: seen < 0 or bool(self._error) or seen != self._done == self._count, seconds)
            return Progress(self._done, tuple(self._attendance.missing), self._error, self._attendance.away)

    def take(self, sender: PartyName, session: int, number: Round, body: Message) -> Answer:
        """Takes one message of a round and returns the answer, when there is one.

        Args:
            sender: Who sent it.
            session: Number of the session it was sent in.
            number: The round.
            body: The protocol message.

        Raises:
            ProtocolError: The message is wrong or does not belong to the round under way.
        """
        with self._changed:
            refusal = self._refusal(sender, session)
            if refusal is not None:
                return refusal
            self._attendance.late.pop(sender, None)
            current = self._admitted(number)
            if current is None:
                return self._missed(sender, session, number)
            heard = current.heard.get(sender, 0)
            stage = min(heard, len(current.answers) - current.over)
            if stage == len(current.answers):
                current.collector.add(sender, body)
                current.heard[sender] = stage + 1
                self._close_if_ready(current)
                self._wait(current, lambda: len(current.answers) > stage)
            elif heard == 0:  # closed without it: its message is not read
                return self._missed(sender, session, number)
            else:
                current.heard[sender] = stage + 1
            return current.answers[stage]

    def set_up(self, sender: PartyName, session: int, batch: int, body: bytes) -> Answer:
        """Takes one message of the set-up of a batch of rounds and returns what the others sent.

        Raises:
            ProtocolError: The message is wrong, or the session's scheme has no batches.
        """
        with self._changed:
            if session != self._number or self._set_ups is None:
                return Answer("left", reason="a new session has begun")
            return self._set_ups.take(sender, batch, body)

    @property
    def _count(self) -> int:
        return 0 if self._expect is None else self._expect.count

    @property
    def _done(self) -> int:
        if self._expect is None:
            return 0
        unfinished = self._round is not None and not (self._round.over and self._round.answers[-1].verdict != "aborted")
        return min(self._next - self._expect.number - unfinished, self._expect.count)

    def _refusal(self, sender: PartyName, session: int) -> Answer | None:
        """Returns the answer to whoever has no part in the rounds that are under way."""
        if session != self._number:
            return Answer("left", reason="a new session has begun")
        if self._error:
            return Answer("aborted", reason=self._error)
        if sender not in self._view.members:
            return Answer("left", reason=self._attendance.why(sender, "it was not part of the view"))
        return None

    def _admitted(self, number: Round) -> _Round | None:
        """Returns the round of this number, begun if it is the next one; None where it was over before the last one."""
        current, expect = self._round, self._expect
        if current is not None and current.number == number:
            return current
        if number < self._next:
            return None
        if expect is None or (current is not None and not current.over) or number >= self._end(expect):
            raise ProtocolError(f"round {number} is not the one under way; its message was dropped unread")
        metrics_alone = expect.report is not None and number >= expect.number + expect.count
        manifest = expect.report if metrics_alone and expect.report is not None else expect.manifest
        collector = self._session.collector(self._view, number, manifest)
        self._round = _Round(number, collector, self._clock() + self._timeout)
        self._next = number + 1
        return self._round

    def _end(self, expect: Expect) -> Round:
        """Returns the number after the last that the segment may use: each smaller view reports the metrics anew."""
        return expect.number + expect.count + (len(self._view.members) if expect.report is not None else 0)

    @property
    def _session(self) -> Coordinator:
        if self._coordinator is None:
            raise ProtocolError("the server has no session yet")
        return self._coordinator

    def _wait(self, current: _Round, done: Callable[[], bool]) -> None:
        while not done():
            left = current.deadline - self._clock()
            if left <= 0 and not current.over:
                self._close(current, f"no message within {self._timeout:g} s")
            elif not done():
                self._changed.wait(max(left, 0.01))

    def _wait_out(self, current: _Round) -> None:
        self._wait(current, lambda: current.over)

    def _close_if_ready(self, current: _Round) -> None:
        """Closes the exchange under way when nobody is awaited, or only such as are late and can be done without."""
        absent, attendance = current.collector.missing(), self._attendance
        if absent <= attendance.gone.keys() or (absent <= attendance.away and current.collector.sufficient()):
            self._close(current, "")

    def _close(self, current: _Round, reason: str) -> None:
        """Ends the exchange under way: with everybody's message, or without those of whom there is none."""
        absent, recovers = current.collector.missing(), self._session.recovers
        if recovers and reason:
            self._attendance.delay(absent, reason)
        if not current.answers:
            self._attendance.note(current.number, absent & self._owners, reason, abandoned=not recovers)
        try:
            answer = self._abandoned(absent) if absent and not recovers else self._advanced(current)
        except Exception as error:  # whoever waits must learn of it, even of a fault of our own
            text = str(error) if isinstance(error, FedRayError) else f"{type(error).__name__} at the server: {error}"
            self._fail(text + self._attendance.listed(absent, reason))
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
        others = self._owners.intersection(self._view.members) - set(opened.parties)
        self._attendance.note(current.number, others, "", abandoned=False)
        extra = current.number >= expect.number + expect.count
        answer = Answer("opened", opened.values, opened.metrics) if extra else finish(opened)
        answer = replace(answer, stop=self._stop)
        self._last = current.number, answer
        return answer

    def _abandoned(self, absent: frozenset[PartyName]) -> Answer:
        for party in absent:
            self._attendance.gone.setdefault(party, "the others went on without it")
        members = tuple(name for name in self._view.members if name not in absent)
        self._session.check_view(members)
        self._view = View(self._view.counter + 1, members)
        return Answer("abandoned", view=self._view, stop=self._stop)

    def _missed(self, sender: PartyName, session: int, number: Round) -> Answer:
        """Waits until a party that missed a round can take part again, and tells it where."""
        while True:
            current, refusal = self._round, self._refusal(sender, session)
            if refusal is not None:
                return refusal
            if current is None or current.over:
                resume = self._next
                break
            if not current.answers and sender in current.collector.missing():
                resume = current.number
                break
            self._wait_out(current)
        last, answer = self._last or (-1, Answer("opened"))
        values = answer.values if last == number else None
        return Answer("missed", values, answer.metrics, number=resume, stop=answer.stop)

    def _fail(self, reason: str) -> None:
        self._error = self._error or reason
        if self._round is not None and not self._round.over:
            self._round.answers.append(Answer("aborted", reason=self._error))
        self._changed.notify_all()

    def _end_set_ups(self, reason: str) -> None:
        if self._set_ups is not None:
            self._set_ups.end(reason)
