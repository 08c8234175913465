# SPDX-License-Identifier: Apache-2.0
"""ComputeRounds: the rounds of sums of shares at one compute party. Whose message is missing, and what follows.

A round is a chain of three exchanges, and the owners that wait are handed on from one to the next: the owners' shares,
all compute parties' signatures under one set of owners, and the server's word on their sums. The first compute party
proposes the set: everybody who is expected, or at the deadline those that came. Knows no model, and no input. Sends
through its caller, and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fedray.errors import FedRayError, ProtocolError
from fedray.party.records import Answer, Expect, RoundOutcome
from fedray.party.rounds.attendance import Attendance
from fedray.party.rounds.barrier import Barrier, Closing, Stand, Ticket
from fedray.party.rounds.compute_exchanges import PATIENCE, SharesStep, SignaturesStep, SumStep, gate_of
from fedray.party.rounds.news import News
from fedray.protocol.scales import MOST_REPEATS
from fedray.protocol.scheme import Fault
from fedray.protocol.sharing import ShareAdder
from fedray.types import Message, PartyName, Round


@dataclass(frozen=True, slots=True)
class ComputeRoles:
    """Who does what in one session of sums of shares.

    Attributes:
        session: Number of the session; rounds of another one have the same numbers.
        adder: This compute party's own end.
        owners: Whose shares are awaited.
        leader: The compute party that proposes.
        leads: Whether that is this one.
    """

    session: int
    adder: ShareAdder
    owners: tuple[PartyName, ...]
    leader: PartyName
    leads: bool


class ComputeRounds:
    """One compute party's rounds, one segment after the other.

    Args:
        name: The compute party, for error messages.
        timeout: Seconds that a round waits for owners after its first message.
        sign: (round, signature under a set of owners) -> None; tells the other compute parties.
        publish: (round, this party's sum, whether it repeats the round before, how many repeats were void) -> None;
            sends it to the server, whose answer comes to `answered`.
        fail: (round, reason, whether the next one goes on) -> None; tells the other compute parties that nothing will
            be opened.

    Attributes:
        barrier: Where deliveries wait.
    """

    def __init__(
        self,
        name: PartyName,
        timeout: float,
        sign: Callable[[Round, bytes], None],
        publish: Callable[[Round, Message, bool, int], None],
        fail: Callable[[Round, str, bool], None],
    ) -> None:
        self._name, self.timeout = name, timeout
        self._sign, self._publish, self._tell_failure = sign, publish, fail
        self._attendance = Attendance(timeout)
        self.barrier = Barrier(self._attendance)
        self._roles: ComputeRoles | None = None
        self._proposed: dict[Round, tuple[PartyName, ...]] = {}
        self._announced: list[range] = []
        self._unanswered: set[Round] = set()
        self._void: set[Round] = set()
        self._void_repeats = 0
        self._watch: Ticket = 0
        self._error = ""

    # The driver's words.

    def begin(self, roles: ComputeRoles, now: float) -> None:
        """Starts a session; all of its owners are awaited."""
        self._clear("a new session has begun", now)
        self._attendance.begin_session()
        self._roles = roles

    def expect(self, order: Expect, spare: int, now: float) -> None:
        """Announces the rounds of a segment.

        Args:
            order: Which rounds.
            spare: How many further ones may follow that carry metrics alone.
            now: When.
        """
        first, end = order.number, order.number + order.count
        parties = len(self.roles.owners)
        # Any of them may be repeated, and those of metrics follow whenever that is over.
        last = end + MOST_REPEATS * order.count if order.manifest.counted else end
        spans = [(range(first, last), order.manifest.words(parties))]
        if order.report is not None:
            spans.append((range(end, last + spare), order.report.words(parties)))
        self.roles.adder.expect(*spans)
        self._announced = [numbers for numbers, _ in spans]
        self._clear("the segment has ended", now)
        self._attendance.begin_segment(order.absent)

    def abort(self, reason: str, now: float) -> None:
        """Ends the segment at once: whoever waits is told why, and nothing more is published."""
        self._give_up(reason)
        self.barrier.end("round", self._error, now)

    def watch(self, ticket: Ticket, seconds: float, now: float) -> None:
        """Answers with the faults found so far, or when asked again.

        Args:
            ticket: Who is answered.
            seconds: How long to wait at most.
            now: When.
        """
        self._watch = ticket
        news = News(ticket, seconds, lambda: self._watch != ticket, lambda: self.faults)
        self.barrier.open(news, ticket, "the driver", now)

    # Messages.

    def take(self, owner: PartyName, number: Round, body: Message, now: float, ticket: Ticket | None = None) -> None:
        """Takes an owner's share.

        Args:
            owner: Who sent it.
            number: The round.
            body: The protocol message.
            now: When.
            ticket: Who waits for the `RoundOutcome`; None where nobody does.

        Raises:
            ProtocolError: As in `ShareAdder.add`; or the segment has ended.
        """
        self._check_open()
        if number in self._void:  # its share is not read: it learns that it goes on with the next round
            self._arrive(number, owner, now, ticket)
            return
        try:
            self.roles.adder.add(owner, body)
        except FedRayError as error:
            if self._expects(number):  # else it is late, or early
                self._accuse(number, owner, error)
            raise
        self._arrive(number, owner, now, ticket)

    def await_outcome(self, ticket: Ticket, owner: PartyName, number: Round) -> None:
        """Answers with what came of a round, when it is over.

        Args:
            ticket: Who is answered.
            owner: Who asks.
            number: The round.
        """
        if self.barrier.stand(gate_of(number)) is None:
            reason = self._error or f"round {number} is not under way"
            self.barrier.tell(ticket, RoundOutcome(Answer("aborted", reason=reason)))
        else:
            self.barrier.wait(gate_of(number), ticket, owner)

    def hear(self, peer: PartyName, number: Round, body: bytes, now: float) -> None:
        """Takes another compute party's signature under a set of owners.

        Args:
            peer: Who sent it.
            number: The round.
            body: The protocol message.
            now: When.

        Raises:
            ProtocolError: It is wrong, and the segment has ended because of it; or it had ended before.
        """
        self._check_open()
        try:
            members = self.roles.adder.hear(peer, body)
        except ProtocolError as error:
            # A compute party that lies may have told others something else: nothing of the segment can be trusted.
            self._accuse(number, peer, error)
            self._tell_all(str(error))
            self.abort(str(error), now)
            raise
        if peer == self.roles.leader:
            self._proposed[number] = members
        self._arrive(number, peer, now)

    def failed(self, session: int, number: Round, reason: str, now: float) -> None:
        """Learns from another compute party that nothing will be opened.

        Args:
            session: Number of the session that it speaks of.
            number: The round.
            reason: Why.
            now: When.
        """
        if session == self.roles.session and self.barrier.stand(gate_of(number)) is not None:
            self.abort(reason, now)

    def voided(self, session: int, peer: PartyName, number: Round, now: float) -> None:
        """Learns from the one that proposes that a round is not opened, and the next one goes on.

        Args:
            session: Number of the session that it speaks of.
            peer: Who says so.
            number: The round.
            now: When.
        """
        if session == self.roles.session and peer == self.roles.leader:
            self._void.add(number)
            self.barrier.check(now)

    def answered(self, session: int, number: Round, answer: Answer, now: float) -> None:
        """Learns what the server says of this party's sum.

        Args:
            session: Number of the session in which it was published.
            number: The round.
            answer: The server's answer.
            now: When.
        """
        gate = gate_of(number, "sum")
        if session == self.roles.session and self.barrier.stand(gate) is not None:
            self.barrier.arrive(gate, "the server", answer, now)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What parties did wrong since this was made."""
        return tuple(self._attendance.faults)

    # For the exchanges below.

    @property
    def roles(self) -> ComputeRoles:
        """Who does what.

        Raises:
            ProtocolError: There is no session yet.
        """
        if self._roles is None:
            raise ProtocolError(f"compute party {self._name!r} has no session yet")
        return self._roles

    def leads(self) -> bool:
        """Returns whether this compute party is the one that proposes."""
        return self.roles.leads

    def agreed(self) -> bool:
        """Returns whether all compute parties have signed one set of owners."""
        return self.roles.adder.ready()

    def may_sign(self, number: Round, *, late: bool) -> bool:
        """Returns whether a set of owners is settled, and their shares are here."""
        roles, held = self.roles, set(self.roles.adder.held())
        if number in self._void:
            return True
        if not roles.leads:
            return number in self._proposed and set(self._proposed[number]) <= held
        again = set(roles.adder.only_over())
        if again:  # over these or not at all
            return late or again <= held or bool(again & self._attendance.gone.keys())
        return bool(held) and (late or set(roles.owners) - self._attendance.gone.keys() <= held)

    def sign(self, number: Round, deadline: float) -> Closing:
        """Signs the set of owners, and has the other compute parties told."""
        adder, again = self.roles.adder, self.roles.adder.only_over()
        if number in self._void or (self.roles.leads and not set(again) <= set(adder.held())):
            return self._made_void(number)
        try:
            members = (again or adder.held()) if self.roles.leads else self._proposed[number]
            self._sign(number, adder.sign(members))
        except FedRayError as error:
            return self.given_up(f"{error}{self._absent()}")
        return Closing(None, SignaturesStep(self, number, deadline))

    def publish(self, number: Round) -> Closing:
        """Publishes this party's sum."""
        adder = self.roles.adder
        repeats = bool(adder.summed_before())
        try:
            message = adder.publish()
            opened = SumStep(self, number, adder.opened(), adder.proof(number))
            self._publish(number, message, repeats, self._void_repeats)
        except FedRayError as error:
            return self.given_up(f"{error}{self._absent()}")
        return Closing(None, opened)

    def unsigned(self, number: Round) -> Closing:
        """Gives up because a signature is missing."""
        awaited = ", ".join(self.roles.adder.awaited()) or "nobody"
        return self.given_up(f"round {number}: no signature from {awaited} within {PATIENCE * self.timeout:g} s")

    def given_up(self, reason: str) -> Closing:
        """Ends the segment because of what one of its rounds came to."""
        self._tell_all(reason)
        self._give_up(reason)
        aborted = RoundOutcome(Answer("aborted", reason=self._error))
        return Closing(lambda _: aborted, ends=self._error)

    def over(self, number: Round) -> None:
        """Notes that a round is over."""
        self._unanswered.discard(number)

    def not_opened(self, number: Round, answer: Answer) -> str:
        """Ends the segment, for the other compute parties too, and returns why: the server had the sum, and kept it."""
        said = f"the server said {answer.verdict!r} of round {number}, whose sum it was sent"
        return self.given_up(answer.reason if answer.verdict == "aborted" else said).ends

    # Inside.

    def _made_void(self, number: Round) -> Closing:
        """Lets everybody go on with the next round: the same inputs once more are opened over all of them only."""
        if self.roles.leads:
            self._tell_failure(number, f"round {number} is void{self._absent()}", True)
        # One of the plan is over with that. A repeat is none of the plan, and the server has not seen it.
        self._void_repeats += bool(self.roles.adder.summed_before())
        self._void.add(number)
        self._unanswered.discard(number)
        self.roles.adder.fail()
        void = RoundOutcome(Answer("abandoned"))
        return Closing(lambda _: void)

    def _arrive(self, number: Round, sender: PartyName, now: float, ticket: Ticket | None = None) -> None:
        if self.barrier.stand(gate_of(number)) is None:
            self.barrier.forget("round", but=number - 1)  # an owner may not yet have asked what came of the last one
            self._proposed = {n: names for n, names in self._proposed.items() if n >= number - 1}
            self._unanswered.add(number)
            self.barrier.announce(SharesStep(self, number))
        self.barrier.arrive(gate_of(number), sender, None, now, ticket)

    def _expects(self, number: Round) -> bool:
        """Returns whether shares of a round may come now: it is announced, not settled, and no other is under way."""
        announced = any(number in numbers for numbers in self._announced)
        unsettled = self.barrier.stand(gate_of(number)) in (None, Stand.ANNOUNCED, Stand.GATHERING)
        return announced and unsettled and self._unanswered <= {number}

    def _accuse(self, number: Round, party: PartyName, error: FedRayError) -> None:
        what = str(error).removeprefix(f"{self._name}: ").removeprefix(f"{party}: ")
        self._attendance.accuse([Fault(number, party, what)])

    def _clear(self, reason: str, now: float) -> None:
        self.barrier.end("round", self._error or reason, now)
        self.barrier.forget("round")
        self._proposed, self._unanswered, self._void, self._void_repeats = {}, set(), set(), 0
        self._error = ""  # last: it was the reason just told

    def _give_up(self, reason: str) -> None:
        self._error = self._error or reason
        self._unanswered = set()
        if self._roles is not None:
            self._roles.adder.fail()  # erases the shares: whatever is asked later, nothing of the round is published

    def _tell_all(self, reason: str) -> None:
        for number in sorted(self._unanswered):
            self._tell_failure(number, self._error or reason, False)

    def _check_open(self) -> None:
        if self._error:
            raise ProtocolError(f"the segment has ended: {self._error}")

    def _absent(self) -> str:
        """Returns who of the owners was missing, and why, as the end of a message."""
        held: Collection[PartyName] = self.roles.adder.held()
        absent = [owner for owner in self.roles.owners if owner not in held]
        late = f"no share within {self.timeout:g} s"
        listed = "; ".join(f"{owner!r}: {self._attendance.gone.get(owner, late)}" for owner in absent)
        return f" ({listed})" if listed else ""
