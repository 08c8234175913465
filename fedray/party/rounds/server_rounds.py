# SPDX-License-Identifier: Apache-2.0
"""ServerRounds: the rounds of one aggregator at the server. Which round a message belongs to, what comes of it. Pure.

A round is a chain of exchanges, as many as its scheme has, and the end of it, at which those wait that missed its
begin. Knows protocol messages and who is in the view. Adds, and hands out sums: knows no model, and nothing of what a
sum says.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedray.errors import FedRayError, ProtocolError
from fedray.party.records import Answer, Expect, Progress, RoundMessage, SumsRequest
from fedray.party.rounds.announced import Announced
from fedray.party.rounds.attendance import Attendance
from fedray.party.rounds.barrier import Barrier, Closing, Ticket
from fedray.party.rounds.key_set_ups import KeySetUps
from fedray.party.rounds.news import News
from fedray.party.rounds.past_rounds import KEPT_BYTES, PastRounds
from fedray.party.rounds.round_exchanges import RoundEnd, RoundUnderWay, Stage
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.scheme import Fault, FaultFinder, View
from fedray.protocol.schemes import SCHEMES, Coordinator
from fedray.types import PartyName, Round

NEW_SESSION = "a new session has begun"


class ServerRounds:
    """Runs the rounds of one aggregator, one segment after the other. What takes a ticket is answered in the barrier.

    Args:
        timeout: Seconds that one exchange may take after its first message.

    Attributes:
        barrier: Where deliveries wait.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._attendance = Attendance(timeout)
        self.barrier = Barrier(self._attendance)
        self._session = 0
        self._coordinator: Coordinator | None = None
        self._set_ups: KeySetUps | None = None
        self._view = View(0, ())
        self._owners: frozenset[PartyName] = frozenset()
        self._announced: Announced | None = None
        self._round: RoundUnderWay | None = None
        self._coming: RoundUnderWay | None = None
        self._past = PastRounds()
        self._next: Round = 0
        self._stop = False
        self._bound = True
        self._error = ""

    # The driver's words.

    def begin(
        self,
        number: int,
        config: Config,
        roster: Roster,
        hellos: Sequence[bytes],
        confirms: Sequence[bytes],
        now: float,
    ) -> None:
        """Starts a session among the parties of a roster; all of them are awaited.

        Args:
            number: Number of the session; what is sent in another one is not taken.
            config: What all have agreed on.
            roster: The parties of the session.
            hellos: Their Hellos, in roster order.
            confirms: Their Confirms, in roster order.
            now: When.
        """
        self.abort(NEW_SESSION, now)
        self.barrier.forget("round")
        self._attendance.begin_session()
        self._session = number
        self._coordinator = SCHEMES[config.scheme].coordinator(config, roster, hellos, confirms)
        self._view, self._owners = View(0, roster.names), frozenset(config.owners or roster.names)
        self._set_ups = KeySetUps(self._coordinator, self.barrier, self._timeout)
        self._announced = self._round = self._coming = None
        # Where compute parties add, they see to it that a repeat is over the same owners, and no owner comes late.
        self._bound, self._error = config.scheme != "sharing", ""
        self._past = PastRounds(KEPT_BYTES if self._bound and self._coordinator.recovers else 0)

    def expect(self, order: Expect, now: float) -> None:
        """Announces the rounds of a segment."""
        reason = self._error or "the segment has ended"
        self._give_up(reason)
        self._announced, self._round, self._coming = Announced(order), None, None
        self._next, self._stop, self._error = order.number, False, ""
        self._attendance.begin_segment(order.absent)
        self.barrier.end("round", reason, now)  # the driver, who may wait for news, is not told of it: it knows
        self.barrier.forget("round")

    def stop(self) -> None:
        """Ends the segment after the round under way, for every party alike."""
        self._stop = True

    def abort(self, reason: str, now: float) -> None:
        """Ends the segment at once: whoever waits, for a round or for keys, is told why, and nothing more is opened."""
        self._fail(reason, now)
        if self._set_ups is not None:
            self._set_ups.end(reason, now)

    def lost(self, party: PartyName, reason: str, now: float) -> None:
        """Waits no longer for a party.

        Args:
            party: Who is gone.
            reason: Why.
            now: When.
        """
        self.barrier.lost(party, reason, now)

    def progress(self) -> Progress:
        """Returns how far the segment is."""
        return Progress(
            self._done,
            tuple(self._attendance.missing),
            self._error,
            self._attendance.away,
            tuple(self._attendance.faults),
            0 if self._announced is None else self._announced.again + self._announced.void,
            () if self._round is None else self._round.awaited,
        )

    def watch(self, ticket: Ticket, seen: int, seconds: float, now: float) -> None:
        """Answers with the progress after some seconds, or when the segment's last round is over or it was given up.

        Not after every round: where rounds are short, telling the driver would cost more than the rounds.

        Args:
            ticket: Who is answered.
            seen: The number of rounds that the driver knows of.
            seconds: How long to wait at most.
            now: When.
        """
        news = News(ticket, seconds, lambda: self._is_news(seen), self.progress)
        self.barrier.open(news, ticket, "the driver", now)

    # The parties' messages.

    def take(self, ticket: Ticket, sender: PartyName, message: RoundMessage, now: float) -> None:
        """Takes one message of a round.

        Args:
            ticket: Who is answered.
            sender: Who sent it.
            message: The message.
            now: When.

        Raises:
            ProtocolError: The message is wrong or does not belong to the round under way.
        """
        refusal, number = self._refusal(sender, message.session), message.number
        if refusal is not None:
            self.barrier.tell(ticket, refusal)
            return
        if self._announced is not None:
            self._announced.take_void(sender, message.void, elsewhere=not self._bound)
        current = self._admitted(number, repeats=message.repeats)
        if current is not None and current.repeats is not message.repeats:
            error = current.other_kind(sender)
            self.refused(current, sender, error)
            raise error
        if current is None or not current.takes(sender):
            self._await_end(ticket, sender, number, now)
            return
        heard = current.heard.get(sender, 0)
        stage = min(heard, len(current.answers) - current.over)  # a repeated last message gets the last answer again
        closed = stage < len(current.answers)
        if closed and heard == 0:  # closed without it: its message is not read
            self._await_end(ticket, sender, number, now)
            return
        self.barrier.arrive(("round", number, stage), sender, message.body, now, ticket)
        if closed:
            current.heard[sender] = stage + 1

    def await_sum(self, ticket: Ticket, sender: PartyName, request: SumsRequest, now: float) -> None:
        """Answers a party that has missed a round with what comes of the one that repeats it, when that is over.

        Args:
            ticket: Who is answered.
            sender: Who asks.
            request: For which round.
            now: When.

        Raises:
            ProtocolError: The round cannot be a repeat of the one before.
        """
        refusal = self._refusal(sender, request.session)
        if refusal is not None:
            self.barrier.tell(ticket, refusal)
            return
        current = self._admitted(request.number, repeats=True)
        if current is None or current.over:
            self._await_end(ticket, sender, request.number, now)
        else:
            self.barrier.arrive(("round", request.number, "end"), sender, request.number, now, ticket)

    def set_up(self, ticket: Ticket, sender: PartyName, session: int, batch: int, body: bytes, now: float) -> None:
        """Takes one message of the set-up of a batch of rounds; the answer is what the others sent.

        Args:
            ticket: Who is answered.
            sender: Who sent it.
            session: Number of the session it was sent in.
            batch: Number of the batch.
            body: The protocol message.
            now: When.

        Raises:
            ProtocolError: The message is wrong, or the session's scheme has no batches.
        """
        if session != self._session or self._set_ups is None:
            self.barrier.tell(ticket, Answer("left", reason=NEW_SESSION))
        else:
            self._set_ups.hear(ticket, sender, batch, body, now, self._next)

    # For the exchanges below.

    def begun(self, current: RoundUnderWay) -> None:
        """Learns that the first message of an announced round has come and is right."""
        if current is not self._round:
            self._own_announced.again += current.repeats
        self._round, self._coming, self._next = current, None, current.number + 1
        self.barrier.forget("round", but=current.number)  # the answers of the round before were given, or are stale

    def refused(self, current: RoundUnderWay, sender: PartyName, error: FedRayError) -> None:
        """Learns that a party's message to the exchange under way is wrong.

        Args:
            current: The round.
            sender: Whose message.
            error: What is wrong with it.
        """
        if not isinstance(current.collector, FaultFinder):  # which says more of it
            what = str(error).removeprefix(f"{sender}: ")
            self._attendance.accuse([Fault(current.number, sender, what)])
        self._found(current)

    def away(self, current: RoundUnderWay) -> bool:
        """Returns whether nobody is awaited, or only such as are late and can be done without."""
        absent = frozenset(filter(current.takes, current.collector.missing()))
        if absent <= self._attendance.gone.keys():
            return True
        return absent <= self._attendance.away and current.collector.sufficient()

    def close(self, current: RoundUnderWay, *, late: bool) -> Closing:
        """Ends an exchange of a round: with everybody's message, or without those of whom there is none."""
        reason = f"no message within {self._timeout:g} s" if late else ""
        absent = frozenset(filter(current.takes, current.collector.missing()))
        recovers = self._own_coordinator.recovers
        if recovers and late:
            self._attendance.delay(absent, reason)
        # The same inputs are summed over the same parties only: less one of them, the sum would show its input.
        lost = bool(absent) and (not recovers or (current.only is not None and not current.answers))
        if not current.answers:
            number = self._own_announced.planned(current.number)
            self._attendance.note(number, absent & self._owners, reason, abandoned=lost or not recovers)
        try:
            answer = self._abandoned(current, absent, smaller=not recovers) if lost else self._advanced(current)
        except Exception as error:  # whoever waits must learn of it, even of a fault of our own
            text = str(error) if isinstance(error, FedRayError) else f"{type(error).__name__} at the server: {error}"
            self._error = self._error or text + self._attendance.listed(absent, reason)
            answer = Answer("aborted", reason=self._error)
        self._found(current)
        current.answers.append(answer)
        then = None if current.over else Stage(self, current, len(current.answers), self._timeout)
        return Closing(lambda _: answer, then, ends=answer.reason if answer.verdict == "aborted" else "")

    def missed(self, sender: PartyName, number: Round, resume: Round) -> Answer:
        """Returns what a party is told that missed a round.

        Args:
            sender: Who.
            number: The round that it missed.
            resume: The round in which it may take part again.
        """
        refusal = self._refusal(sender, self._session)
        if refusal is not None:
            return refusal
        last = self._round.answers[-1:] if self._round is not None else []
        return self._past.missed(number, resume, stop=any(answer.stop for answer in last))

    # Inside.

    def _is_news(self, seen: int) -> bool:
        """Returns whether the driver, who knows of `seen` rounds, is to be told something at once."""
        planned = 0 if self._announced is None else self._announced.order.count
        return bool(self._error) or seen != self._done == planned

    @property
    def _done(self) -> int:
        if self._announced is None:
            return 0
        return self._announced.reached(self._next - (self._round is not None and not self._round.settled))

    def _found(self, current: RoundUnderWay) -> None:
        """Takes over what a round's collector has found out about parties."""
        if isinstance(current.collector, FaultFinder):
            self._attendance.accuse(current.collector.faults)

    def _fail(self, reason: str, now: float) -> None:
        self._error = self._error or reason
        self._give_up(self._error)
        self.barrier.end("round", self._error, now)

    def _give_up(self, reason: str) -> None:
        if self._round is not None and not self._round.over:
            self._round.answers.append(Answer("aborted", reason=reason))

    def _refusal(self, sender: PartyName, session: int) -> Answer | None:
        """Returns the answer to whoever has no part in the rounds that are under way."""
        if session != self._session:
            return Answer("left", reason=NEW_SESSION)
        if self._error:
            return Answer("aborted", reason=self._error)
        if sender not in self._view.members:
            return Answer("left", reason=self._attendance.why(sender, "it was not part of the view"))
        return None

    def _admitted(self, number: Round, *, repeats: bool) -> RoundUnderWay | None:
        """Returns the round of this number, announced if it is the next; None where it was over before the last one."""
        current, announced = self._round, self._announced
        if current is not None and current.number == number:
            return current
        if number < self._next:
            return None
        under_way = current is not None and not current.over
        if announced is None or under_way or number >= announced.end(len(self._view.members), repeats=repeats):
            raise ProtocolError(f"round {number} is not the one under way; its message was dropped unread")
        if repeats and (current is None or number != current.number + 1):
            raise ProtocolError(f"round {number} cannot repeat the one before, of which there is no sum")
        coming = self._coming
        # Until one has begun, whoever speaks of it last says what it is: a party alone cannot keep it from the others.
        if coming is None or (coming.number, coming.repeats) != (number, repeats):
            manifest, over = announced.manifest_of(number, repeats=repeats), announced.over if repeats else None
            made = self._own_coordinator.collector(self._view, number, manifest)
            if coming is None or coming.number != number:
                self.barrier.forget("round", but=None if current is None else current.number)
                self._coming = coming = RoundUnderWay(number, made)
                self.barrier.announce(Stage(self, coming, 0, self._timeout))
                self.barrier.announce(RoundEnd(self, coming))
            coming.collector, coming.repeats, coming.only = made, repeats, over
        return coming

    @property
    def _own_coordinator(self) -> Coordinator:
        if self._coordinator is None:
            raise ProtocolError("the server has no session yet")
        return self._coordinator

    @property
    def _own_announced(self) -> Announced:
        if self._announced is None:
            raise ProtocolError("no rounds were announced")
        return self._announced

    def _await_end(self, ticket: Ticket, sender: PartyName, number: Round, now: float) -> None:
        """Answers a party that missed a round when it can take part again."""
        current = self._round
        under_way = current is not None and not current.over
        if current is not None and under_way and not (current.takes(sender) and sender in current.missing):
            self.barrier.arrive(("round", current.number, "end"), sender, number, now, ticket)
            return
        self._attendance.heard(sender)
        resume = current.number if current is not None and under_way else self._next
        self.barrier.tell(ticket, self.missed(sender, number, resume))

    def _advanced(self, current: RoundUnderWay) -> Answer:
        broadcast = current.collector.advance()
        if broadcast is not None:
            return Answer("next", broadcast=broadcast)
        opened = current.collector.open()
        others = self._owners.intersection(self._view.members) - set(opened.members)
        announced = self._own_announced
        self._attendance.note(announced.planned(current.number), others, "", abandoned=False)
        announced.over = frozenset(opened.members) if self._bound else None
        self._past.note(current.number, opened)
        return Answer("opened", opened, stop=self._stop)

    def _abandoned(self, current: RoundUnderWay, absent: frozenset[PartyName], *, smaller: bool) -> Answer:
        self._own_announced.over = None
        self._past.note(current.number, None)
        if not smaller:
            return Answer("abandoned", stop=self._stop)
        members = tuple(name for name in self._view.members if name not in absent)
        self._own_coordinator.check_view(members)  # it may raise, and then nobody goes on
        for party in absent:  # in this scheme a smaller view never grows again
            self._attendance.gone.setdefault(party, "the others went on without it")
        self._view = View(self._view.counter + 1, members)
        return Answer("abandoned", view=self._view, stop=self._stop)
