# SPDX-License-Identifier: Apache-2.0
"""RoundServer: the server's side of one model or of one aggregator's sums. It adds, and hands the sums out.

Every party's delivery is answered with what came of its round: one exchange a round. It sees protected messages and
opened sums, never one party's contribution. It computes no model: each party does, from the sum that it was handed. The
model with which all begin it passes on from one party to the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.records import (
    Answer,
    Expect,
    KeyMessage,
    ModelMessage,
    ModelRequest,
    RoundMessage,
    SumsRequest,
    unknown,
)
from fedray.party.rounds.server_rounds import ServerRounds
from fedray.party.rounds.waiting_room import WaitingRoom
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.types import PartyName

WATCH_SECONDS = 0.25
"""How long one `watch` waits for news: what a progress bar needs."""


class RoundServer:
    """Sums rounds for one aggregator.

    Args:
        context: The party this service lives in.
        round_timeout: Seconds that one exchange of a round may take after its first message.
    """

    def __init__(self, context: PartyContext, round_timeout: float) -> None:
        self._context = context
        self._rounds = ServerRounds(round_timeout)
        self._waiting = WaitingRoom(self._rounds.barrier)
        self._published: dict[PartyName, ModelMessage] = {}

    def begin(
        self,
        number: int,
        config: bytes,
        names: Sequence[PartyName],
        hellos: Sequence[bytes],
        confirms: Sequence[bytes],
    ) -> None:
        """Starts a session.

        Args:
            number: Number of the session.
            config: The Config that every party has accepted.
            names: The contributing parties, in roster order.
            hellos: Their Hellos, in the same order.
            confirms: Their Confirms, in the same order.
        """
        roster = Roster.of({name: self._context.roster[name] for name in names})
        agreed = Config.decode(config)
        self._published = {}
        self._waiting.note(lambda now: self._rounds.begin(number, agreed, roster, hellos, confirms, now))

    def expect(self, order: Expect) -> None:
        """Announces the rounds of a segment."""
        self._waiting.note(lambda now: self._rounds.expect(order, now))

    def stop(self) -> None:
        """Ends the segment after the round under way, for every party alike."""
        self._waiting.note(lambda _: self._rounds.stop())

    def abort(self, reason: str) -> None:
        """Ends the segment at once: whoever waits is told why, and nothing more is opened."""
        self._waiting.note(lambda now: self._rounds.abort(reason, now))

    def lost(self, party: PartyName, reason: str) -> None:
        """Waits no longer for a party that the driver knows to be gone."""
        self._waiting.note(lambda now: self._rounds.lost(party, reason, now))

    def watch(self, seen: int) -> Reply:
        """Returns the `Progress` after a quarter of a second, or at the segment's end; see `ServerRounds.watch`."""
        progress = self._waiting.deliver(lambda ticket, now: self._rounds.watch(ticket, seen, WATCH_SECONDS, now))
        return Reply(Kind.AGGREGATE, progress)

    def progress(self) -> Reply:
        """Returns the `Progress` at once, whoever else watches."""
        return Reply(Kind.AGGREGATE, self._waiting.note(lambda _: self._rounds.progress()))

    def deliver(self, sender: PartyName, message: object) -> Reply | None:
        """Takes one message of a party and returns the answer, when there is one.

        Args:
            sender: Who sent it, as the transport names it.
            message: A `RoundMessage`, `SumsRequest`, `KeyMessage`, `ModelMessage` or `ModelRequest`.

        Raises:
            ProtocolError: The message is none of these, is wrong, or does not belong to the round under way.
        """
        match message:
            case RoundMessage(int(), int(), bytes() | np.ndarray(), bool(), int()):
                answer: Answer = self._waiting.deliver(
                    lambda ticket, now: self._rounds.take(ticket, sender, message, now)
                )
                return Reply(Kind.AGGREGATE, answer)
            case SumsRequest(int(), int()):
                answer = self._waiting.deliver(lambda ticket, now: self._rounds.await_sum(ticket, sender, message, now))
                return Reply(Kind.AGGREGATE, answer)
            case KeyMessage(int(session), int(batch), bytes(body)):
                answer = self._waiting.deliver(
                    lambda ticket, now: self._rounds.set_up(ticket, sender, session, batch, body, now)
                )
                return Reply(Kind.HELLO, answer)
            case ModelMessage(np.ndarray()):
                self._published[sender] = message
                return None
            case ModelRequest(str(publisher)):
                return Reply(Kind.AGGREGATE, self._published.get(publisher))
        taken = (RoundMessage, SumsRequest, KeyMessage, ModelMessage, ModelRequest)
        raise unknown(sender, message, "the server", *taken)
