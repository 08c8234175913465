# SPDX-License-Identifier: Apache-2.0
"""ComputeParty: one compute party's part in sums of shares. Takes shares, agrees with its peers, tells the server.

Carries messages to its rounds and sends what they decide on. Knows no model, and no input.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from fedray.errors import FedRayError, ProtocolError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.records import (
    Answer,
    Expect,
    RoundFailure,
    RoundMessage,
    RoundOutcome,
    ShareMessage,
    SignatureMessage,
    unknown,
)
from fedray.party.rounds.compute_rounds import ComputeRoles, ComputeRounds
from fedray.party.rounds.waiting_room import WaitingRoom
from fedray.protocol.config import Config
from fedray.protocol.scheme import Fault, Joining
from fedray.protocol.sharing import ShareAdder, SharingShield
from fedray.types import Key, Message, PartyName, Ref, Round

WATCH_SECONDS = 1.0
"""How long the driver waits at a compute party, to learn whether it has ended."""

_ADDERS = "share adders"


class ComputeParty:
    """One compute party of one aggregator.

    Args:
        context: The party this service lives in.
        server: The party that opens.
        round_server: Key of its `RoundServer`.
        timeout: Seconds that a round waits for owners after its first message.
    """

    def __init__(self, context: PartyContext, server: PartyName, round_server: Key, timeout: float) -> None:
        self._context, self._server, self._round_server = context, server, round_server
        self._rounds = ComputeRounds(context.name, timeout, self._tell_signature, self._publish, self._tell_failure)
        self._room = WaitingRoom(self._rounds.barrier)
        self._joining: Joining[SharingShield] | None = None
        self._peers: dict[PartyName, Key] = {}

    # Set-up. A compute party that owns inputs, too, is introduced by its owner's end.

    def hello(self, config: bytes, names: Sequence[PartyName], compute: Mapping[PartyName, Key]) -> Reply:
        """Checks a proposed Config against this party's policy and roster, and returns the signed Hello.

        Args:
            config: The Config's bytes.
            names: Owners and compute parties of the session.
            compute: As owners get it; not needed here.

        Raises:
            ProtocolError: The Config asks for less protection than this party's policy demands.
        """
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
        agreed, own = Config.decode(config), self._context.name
        # Left there by whatever introduced this party to the session: its owner's end, or `start` above.
        adder: ShareAdder = self._context.state[_ADDERS].pop(self._round_server)
        leader = agreed.receivers[0]
        roles = ComputeRoles(number, adder, agreed.owners or tuple(names), leader, leader == own)
        self._joining = None

        def start(now: float) -> None:
            self._peers = {name: key for name, key in compute.items() if name != own}
            self._rounds.begin(roles, now)

        self._room.note(start)

    # The driver's words.

    def expect(self, order: Expect, spare: int) -> None:
        """Announces the rounds of a segment, and `spare` further ones that carry metrics alone."""
        self._room.note(lambda now: self._rounds.expect(order, spare, now))

    def lost(self, party: PartyName, reason: str) -> None:
        """Waits no longer for an owner that is known to be gone."""
        self._room.note(lambda now: self._rounds.barrier.lost(party, reason, now))

    def abort(self, reason: str) -> None:
        """Ends the segment at once: whoever waits is told why, and nothing more is published."""
        self._room.note(lambda now: self._rounds.abort(reason, now))

    def watch(self) -> Reply:
        """Returns after a second, or when asked again: as long as it does, this party lives. Deadlines are kept.

        Returns:
            What parties did wrong so far: a tuple of `Fault`.
        """
        return _reply(self._room.deliver(lambda ticket, now: self._rounds.watch(ticket, WATCH_SECONDS, now)))

    def faults(self) -> Reply:
        """Returns what parties did wrong so far, at once."""
        return _reply(self._room.note(lambda _: self._rounds.faults))

    # Messages of owners and of peers.

    def deliver(self, sender: PartyName, message: object) -> Reply | None:
        """Takes a message of an owner or of another compute party.

        Args:
            sender: Who sent it, as the transport names it.
            message: A `ShareMessage`, or a peer's `SignatureMessage` or `RoundFailure`.

        Raises:
            ProtocolError: The message is none of these, is wrong, or is not for the round under way.
        """
        match message:
            case ShareMessage(int(number), bytes() | np.ndarray() as body, bool(waits)):
                self.take(sender, number, body)
                return Reply(Kind.AGGREGATE, self.wait(sender, number)) if waits else None
            case SignatureMessage(int(number), bytes(body)):
                self._room.note(lambda now: self._rounds.hear(sender, number, body, now))
                return None
            case RoundFailure(int(session), int(number), str(reason), bool(void)) if sender in self._peers:
                if void:
                    self._room.note(lambda now: self._rounds.voided(session, sender, number, now))
                else:
                    self._room.note(lambda now: self._rounds.failed(session, number, reason, now))
                return None
        receiver = f"compute party {self._context.name!r}"
        raise unknown(sender, message, receiver, ShareMessage, SignatureMessage, RoundFailure)

    def take(self, owner: PartyName, number: Round, body: Message) -> None:
        """Takes an owner's share.

        Args:
            owner: Who sent it.
            number: The round.
            body: The protocol message.

        Raises:
            ProtocolError: As in `ShareAdder.add`; or the segment has ended.
        """
        self._room.note(lambda now: self._rounds.take(owner, number, body, now))

    def wait(self, owner: PartyName, number: Round) -> RoundOutcome:
        """Returns what came of a round, when it is over."""
        outcome: RoundOutcome = self._room.deliver(lambda ticket, _: self._rounds.await_outcome(ticket, owner, number))
        return outcome

    # What the rounds have sent. All of this runs under the room's lock, but for the wait for the server's answer.

    def _tell_signature(self, number: Round, signature: bytes) -> None:
        self._tell_peers(f"survive round {number}", SignatureMessage(number, signature), Kind.SHARE)

    def _tell_failure(self, number: Round, reason: str, void: bool) -> None:
        failure = RoundFailure(self._rounds.roles.session, number, reason, void)
        self._tell_peers(f"failed round {number}", failure, Kind.ERROR)

    def _tell_peers(self, call: str, message: SignatureMessage | RoundFailure, kind: Kind) -> None:
        for party, key in self._peers.items():
            self._context.send(call, party, key, message, kind)

    def _publish(self, number: Round, message: Message, repeats: bool, void: int) -> None:
        body = RoundMessage(self._rounds.roles.session, number, message, repeats, void)
        sent = self._context.send(
            f"sum of shares of round {number}", self._server, self._round_server, body, Kind.SHARE
        )
        # The answer comes when the other compute parties have published, too: meanwhile messages must be taken here.
        threading.Thread(
            target=self._conclude, args=(self._rounds.roles.session, number, sent), name="fedray-sum", daemon=True
        ).start()

    def _conclude(self, session: int, number: Round, sent: Ref) -> None:
        """Waits for the server's answer, and passes it on to who waits for it here."""
        try:
            answer: Answer = self._context.get(sent, None)
        except FedRayError as error:
            answer = Answer("aborted", reason=str(error))
        self._room.note(lambda now: self._rounds.answered(session, number, answer, now))

    def _invited(self) -> Joining[SharingShield]:
        if self._joining is None:
            raise ProtocolError(f"compute party {self._context.name!r} is not joining a session: hello comes first")
        return self._joining


def _reply(faults: tuple[Fault, ...]) -> Reply:
    """Returns what parties did wrong, as errors are; where there is nothing it is a sign of life, as it mostly is."""
    return Reply(Kind.ERROR if faults else Kind.SHAPE, faults)


def register(context: PartyContext, round_server: Key, shield: SharingShield) -> None:
    """Leaves a compute party's new share adder for its `ComputeParty` of the same aggregator.

    Args:
        context: The party.
        round_server: Key of the server's `RoundServer`, which names the aggregator.
        shield: What has agreed on the session's keys; it has an adder where the party computes.
    """
    if shield.adder is not None:
        context.state.setdefault(_ADDERS, {})[round_server] = shield.adder
