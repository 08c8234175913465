# SPDX-License-Identifier: Apache-2.0
"""RoundServer: the server's side of one model or of one aggregator's sums. Rounds, and the strategy's server half.

Every party's delivery is answered with what came of its round: one exchange a round. It sees protected
messages and opened sums, never one party's contribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedray.errors import ProtocolError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.records import Answer, Expect, KeyMessage, ModelMessage, ModelRequest, RoundMessage, unknown
from fedray.party.rounds.announced import OnOpened
from fedray.party.rounds.server_rounds import ServerRounds
from fedray.party.rounds.waiting_room import WaitingRoom
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.scales import Room, Scales
from fedray.protocol.scheme import Opened
from fedray.strategies import Strategy, make_strategy
from fedray.strategies.halves import ServerState, advance, first_reaches
from fedray.types import PartyName

WATCH_SECONDS = 0.25
"""How long one `watch` waits for news: what a progress bar needs."""


class RoundServer:
    """Sums rounds for one aggregator.

    Args:
        context: The party this service lives in.
        strategy: Name and parameters of the one whose server half turns a mean into the next global vector; None for
            sums of the users' own values.
        round_timeout: Seconds that one exchange of a round may take after its first message.
    """

    def __init__(
        self, context: PartyContext, strategy: tuple[str, dict[str, float]] | None, round_timeout: float
    ) -> None:
        self._context = context
        self._strategy: Strategy | None = make_strategy(*strategy) if strategy else None
        self._rounds = ServerRounds(round_timeout)
        self._waiting = WaitingRoom(self._rounds.barrier)
        self._model: ServerState | None = None
        self._scales: Scales | None = None
        self._order: Expect | None = None
        self._room = Room(0, 0)

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
        self._room = Room.of(agreed.encoding, agreed.contributors)
        self._waiting.note(lambda now: self._rounds.begin(number, agreed, roster, hellos, confirms, now))

    def expect(self, order: Expect) -> None:
        """Announces the rounds of a segment.

        Raises:
            ProtocolError: It trains a model that the server was not sent.
        """
        finish: OnOpened = _as_opened
        if order.purpose == "train":
            weights, scales = self._own_model.weights, self._scales
            if scales is None:
                scales = Scales(first_reaches(order.manifest, order.trainable, weights))
            self._scales, finish = scales.abandoned(), self._applied
            order = replace(order, manifest=order.manifest.reaching(scales.reaches))
        self._order = order
        self._waiting.note(lambda now: self._rounds.expect(order, finish, now))

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
            message: A `RoundMessage`, `KeyMessage`, `ModelMessage` or `ModelRequest`.

        Raises:
            ProtocolError: The message is none of these, is wrong, or does not belong to the round under way.
        """
        match message:
            case RoundMessage(int(session), int(number), bytes() | np.ndarray() as body):
                answer: Answer = self._waiting.deliver(
                    lambda ticket, now: self._rounds.take(ticket, sender, session, number, body, now)
                )
                if answer.verdict == "missed":
                    # The model as it is now, however many rounds were missed; gradients would be those of one only.
                    if self._keeps_model and self._model is not None:
                        answer = replace(answer, values=self._model.weights, known=self._model.known)
                    answer = replace(answer, reaches=self._reaches)
                return Reply(Kind.AGGREGATE, answer)
            case KeyMessage(int(session), int(batch), bytes(body)):
                answer = self._waiting.deliver(
                    lambda ticket, now: self._rounds.set_up(ticket, sender, session, batch, body, now)
                )
                return Reply(Kind.HELLO, answer)
            case ModelMessage(np.ndarray() as values, tuple(reaches)):
                # The strategy's state goes on: the same model is published again whenever a new session begins.
                self._model = ServerState(values) if self._model is None else replace(self._model, weights=values)
                # By the party whose model it is: it knows the last answer, which the server may have given to nobody.
                self._scales = Scales(reaches) if reaches else None
                return None
            case ModelRequest():
                model, answer = self._model, Answer("opened", reaches=self._reaches)
                if model is not None:
                    answer = replace(answer, values=model.weights, known=model.known)
                return Reply(Kind.AGGREGATE, answer)
        raise unknown(sender, message, "the server", RoundMessage, KeyMessage, ModelMessage, ModelRequest)

    def forget(self) -> None:
        """Forgets what the strategy has remembered: it belongs to weights that others replace."""
        self._model = self._scales = None

    def _applied(self, opened: Opened, repeats: bool) -> Answer:
        strategy, model, scales, order = self._strategy, self._own_model, self._scales, self._order
        if strategy is None or scales is None or order is None:
            raise ProtocolError("no rounds of training were announced")
        before = scales if repeats else scales.abandoned()
        self._scales = scales = before.after(order.manifest, opened.extents, self._room)
        if scales.again:
            return Answer("again", reaches=scales.reaches)
        new = advance(strategy, model, order.trainable, opened.values.astype(np.float64, copy=False))
        # A gradient is no model: what it was applied to, only the parties know.
        self._model = new if self._keeps_model else replace(new, weights=model.weights)
        return Answer("opened", new.weights, opened.metrics, known=new.known, reaches=scales.reaches)

    @property
    def _own_model(self) -> ServerState:
        if self._model is None:
            raise ProtocolError("the server has no model yet: the first party has not sent its initial vector")
        return self._model

    @property
    def _reaches(self) -> tuple[int, ...]:
        """How far every tensor may reach in the next round; empty before the first one."""
        return () if self._scales is None else self._scales.reaches

    @property
    def _keeps_model(self) -> bool:
        """Whether the server has the model, and not only the gradients of its last round."""
        return self._strategy is not None and self._strategy.local == "train"


def _as_opened(opened: Opened, repeats: bool) -> Answer:
    del repeats  # nothing of a user's own values is cut off: what is beyond its bound is refused
    return Answer("opened", opened.values, opened.metrics)
