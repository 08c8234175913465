# SPDX-License-Identifier: Apache-2.0
"""ComputeParty: one compute party's part in sums of shares. Takes shares, agrees with its peers, tells the server.

The first compute party proposes whose inputs a round opens: everybody's who is expected, or at the deadline those that
came. Knows messages, deadlines and who is gone. Knows no model, and no input.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedray.errors import FedRayError, ProtocolError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.records import Answer, Expect
from fedray.protocol.config import Config
from fedray.protocol.scheme import Joining
from fedray.protocol.sharing import ShareAdder, SharingShield
from fedray.types import Key, Message, PartyName, Ref, Round

WATCH_SECONDS = 1.0
"""How long the driver waits at a compute party, to learn whether it has ended."""

_ADDERS = "share adders"


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What an owner is told of a round.

    Attributes:
        answer: The server's answer, passed on.
        proof: All compute parties' signatures under whose inputs were opened; empty where nothing was.
    """

    answer: Answer
    proof: bytes = b""


@dataclass(slots=True)
class _Round:
    """One round while it lasts, and a little longer."""

    deadline: float
    proposed: tuple[PartyName, ...] | None = None
    signed: bool = False
    members: tuple[PartyName, ...] = ()
    proof: bytes = b""
    answer: Answer | None = None


class ComputeParty:
    """One compute party of one aggregator.

    Args:
        context: The party this service lives in.
        server: The party that opens.
        round_server: Key of its `RoundServer`.
        timeout: Seconds that a round waits for owners after its first message.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        context: PartyContext,
        server: PartyName,
        round_server: Key,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context, self._server, self._round_server = context, server, round_server
        self._timeout, self._clock = timeout, clock
        self._changed = threading.Condition()
        self._joining: Joining[SharingShield] | None = None
        self._adder: ShareAdder | None = None
        self._peers: dict[PartyName, Key] = {}
        self._leader = ""
        self._leads = False
        self._owners: tuple[PartyName, ...] = ()
        self._gone: dict[PartyName, str] = {}
        self._rounds: dict[Round, _Round] = {}
        self._error = ""
        self._session = 0
        self._watches = 0

    # Set-up. A compute party that owns inputs, too, is introduced by its owner's end.

    def hello(self, config: bytes, names: Sequence[PartyName], compute: Mapping[PartyName, Key]) -> Reply:
        """Checks a proposed Config against this party's policy and roster, and returns the signed Hello."""
        del compute
        self._joining = SharingShield.joining(Config.decode(config), self._context.member(names))
        return Reply(Kind.HELLO, self._joining.hello())

    def confirm(self, hellos: Sequence[bytes]) -> Reply:
        """Checks everybody's Hello and returns the signed Confirm."""
        return Reply(Kind.HELLO, self._invited().confirm(hellos))

    def start(self, confirms: Sequence[bytes], number: int) -> None:
        """Checks everybody's Confirm."""
        del number  # `begin` says it, to compute parties that own inputs as well
        register(self._context, self._round_server, self._invited().start(confirms))

    def begin(self, number: int, config: bytes, names: Sequence[PartyName], compute: Mapping[PartyName, Key]) -> None:
        """Starts a session: its shares come to this compute party from now on.

        Args:
            number: Number of the session.
            config: The Config that every party has accepted.
            names: Owners and compute parties, in roster order.
            compute: Compute party -> key of its `ComputeParty`.
        """
        agreed = Config.decode(config)
        with self._changed:
            self._adder = self._context.state[_ADDERS].pop(self._round_server)
            self._joining = None
            self._peers = {name: key for name, key in compute.items() if name != self._context.name}
            self._leader = agreed.receivers[0]
            self._leads = self._leader == self._context.name
            self._owners = agreed.owners or tuple(names)
            self._gone, self._rounds, self._error = {}, {}, ""
            self._session = number

    # The driver's words.

    def expect(self, order: Expect, spare: int) -> None:
        """Announces the rounds of a segment, and `spare` further ones that carry metrics alone."""
        with self._changed:
            first, end = order.number, order.number + order.count
            spans = [(range(first, end), order.manifest.words)]
            if order.report is not None:
                spans.append((range(end, end + spare), order.report.words))
            self._active().expect(*spans)
            self._rounds, self._error = {}, ""
            self._gone |= {party: "it does not take part" for party in order.absent if party not in self._gone}

    def lost(self, party: PartyName, reason: str) -> None:
        """Waits no longer for an owner that is known to be gone."""
        with self._changed:
            self._gone[party] = reason
            for number in list(self._rounds):
                self._move(number)

    def abort(self, reason: str) -> None:
        """Ends the segment at once: whoever waits is told why, and nothing more is published."""
        with self._changed:
            self._fail(reason, tell=())

    def watch(self) -> Reply:
        """Returns after a second, or when asked again: as long as it does, this party lives. Deadlines are kept."""
        with self._changed:
            self._watches += 1
            mine = self._watches
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._watches != mine, WATCH_SECONDS)
            self._expire()
        return Reply(Kind.SHAPE, None)

    # Messages of owners and of peers.

    def deliver(self, sender: PartyName, message: tuple[Any, ...]) -> Reply | None:
        """Takes a message of an owner or of another compute party.

        Args:
            sender: Who sent it, as the transport names it.
            message: `("share", round, protocol bytes, whether to answer with the RoundOutcome)`,
                `("survive", round, protocol bytes)` or `("failed", round, session, reason)`.

        Raises:
            ProtocolError: The message is wrong, or is not for the round under way.
        """
        match message:
            case ("share", int(number), body, bool(waits)):
                self.take(sender, number, body)
                return Reply(Kind.AGGREGATE, self.wait(sender, number)) if waits else None
            case ("survive", int(number), bytes(body)):
                self._hear(sender, number, body)
                return None
            case ("failed", int(number), int(session), str(reason)) if sender in self._peers:
                with self._changed:
                    if session == self._session and number in self._rounds:
                        self._fail(reason, tell=())
                return None
        raise ProtocolError(f"{sender} sent a message of unknown form to compute party {self._context.name!r}")

    def take(self, owner: PartyName, number: Round, body: Message) -> None:
        """Takes an owner's share.

        Raises:
            ProtocolError: As in `ShareAdder.add`; or the segment has ended.
        """
        with self._changed:
            self._check_open()
            self._active().add(owner, body)
            self._round(number)
            self._move(number)

    def wait(self, owner: PartyName, number: Round) -> RoundOutcome:
        """Returns what came of a round, when it is over."""
        with self._changed:
            current = self._round(number)
            while current.answer is None:
                self._changed.wait(max(0.01, min(current.deadline - self._clock(), WATCH_SECONDS)))
                self._expire()
            if current.answer.verdict == "opened" and owner not in current.members:
                return RoundOutcome(Answer("left", reason=f"it was opened over {', '.join(current.members)}"))
            return RoundOutcome(current.answer, current.proof)

    def _hear(self, sender: PartyName, number: Round, body: bytes) -> None:
        with self._changed:
            self._check_open()
            try:
                members = self._active().hear(sender, body)
            except ProtocolError as error:
                self._fail(str(error))
                raise
            current = self._round(number)
            if sender == self._leader:
                current.proposed = members
            self._move(number)

    # One round. All of this runs under the lock, but for the wait for the server's answer.

    def _round(self, number: Round) -> _Round:
        found = self._rounds.get(number)
        if found is None:
            found = self._rounds[number] = _Round(self._clock() + self._timeout)
            for old in [n for n in self._rounds if n < number - 1]:
                del self._rounds[old]
            if self._error:
                found.answer = Answer("aborted", reason=self._error)
        return found

    def _move(self, number: Round) -> None:
        """Does whatever can be done by now: signs, or publishes this party's sum."""
        current, adder = self._rounds[number], self._active()
        if current.answer is not None:
            return
        try:
            if not current.signed and self._may_sign(current, adder):
                current.signed = True
                members = adder.held() if self._leads else current.proposed or ()
                self._tell_peers(("survive", number, adder.sign(members)), Kind.SHARE)
            if current.signed and not current.proof and adder.ready():
                self._publish(number, current, adder)
        except FedRayError as error:
            self._fail(f"{error}{self._absent(adder)}")

    def _absent(self, adder: ShareAdder) -> str:
        """Returns who of the owners was missing, and why, as the end of a message."""
        absent = [owner for owner in self._owners if owner not in adder.held()]
        late = f"no share within {self._timeout:g} s"
        listed = "; ".join(f"{owner!r}: {self._gone.get(owner, late)}" for owner in absent)
        return f" ({listed})" if listed else ""

    def _may_sign(self, current: _Round, adder: ShareAdder) -> bool:
        held = set(adder.held())
        if not self._leads:
            return current.proposed is not None and set(current.proposed) <= held
        late = self._clock() >= current.deadline
        return bool(held) and (late or set(self._owners) - self._gone.keys() <= held)

    def _publish(self, number: Round, current: _Round, adder: ShareAdder) -> None:
        message = adder.publish()
        current.proof, current.members = adder.proof(number), adder.opened()
        call = f"sum of shares of round {number}"
        body = ("sum", self._session, number, message)
        sent = self._context.send(call, self._server, self._round_server, body, Kind.SHARE)
        threading.Thread(target=self._conclude, args=(number, sent), name="fedray-sum", daemon=True).start()

    def _conclude(self, number: Round, sent: Ref) -> None:
        """Waits for the server's answer and wakes who waits for it here."""
        try:
            answer: Answer = self._context.get(sent, None)
        except FedRayError as error:
            answer = Answer("aborted", reason=str(error))
        with self._changed:
            current = self._rounds.get(number)
            if current is not None and current.answer is None:
                current.answer = answer
            self._changed.notify_all()

    def _expire(self) -> None:
        now = self._clock()
        for number, current in list(self._rounds.items()):
            if current.answer is not None or now < current.deadline:
                continue
            if self._leads and not current.signed:
                self._move(number)
            elif now >= current.deadline + self._timeout / 2 and not current.proof:
                awaited = ", ".join(self._active().awaited()) or "nobody"
                self._fail(f"round {number}: no signature from {awaited} within {1.5 * self._timeout:g} s")

    def _fail(self, reason: str, tell: Sequence[PartyName] | None = None) -> None:
        self._error = self._error or reason
        if self._adder is not None:
            self._adder.fail()
        for number, current in self._rounds.items():
            if current.answer is None:
                current.answer = Answer("aborted", reason=self._error)
                if tell is None:
                    self._tell_peers(("failed", number, self._session, self._error), Kind.ERROR)
        self._changed.notify_all()

    def _tell_peers(self, message: tuple[Any, ...], kind: Kind) -> None:
        for party, key in self._peers.items():
            self._context.send(f"{message[0]} round {message[1]}", party, key, message, kind)

    def _check_open(self) -> None:
        if self._error:
            raise ProtocolError(f"the segment has ended: {self._error}")

    def _active(self) -> ShareAdder:
        if self._adder is None:
            raise ProtocolError(f"compute party {self._context.name!r} has no session yet")
        return self._adder

    def _invited(self) -> Joining[SharingShield]:
        if self._joining is None:
            raise ProtocolError(f"compute party {self._context.name!r} is not joining a session: hello comes first")
        return self._joining


def register(context: PartyContext, round_server: Key, shield: SharingShield) -> None:
    """Leaves a party's new share adder for its `ComputeParty` of the same aggregator."""
    if shield.adder is not None:
        context.state.setdefault(_ADDERS, {})[round_server] = shield.adder
