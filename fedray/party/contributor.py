# SPDX-License-Identifier: Apache-2.0
"""Contributor: one party's end of an aggregator's private sums, set-up and rounds. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence

from fedray.errors import ProtocolError
from fedray.party.context import PartyContext, Reply
from fedray.party.egress import Kind
from fedray.party.orders import Answer
from fedray.protocol.config import Config
from fedray.protocol.keys import Roster
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import Contribution, RoundContext, Shield
from fedray.protocol.schemes import SCHEMES
from fedray.types import Key, Message, PartyName


class Contributor:
    """Joins sessions and takes part in their rounds.

    Args:
        context: The party this end lives in.
        server: The party that sums.
        combiner: Key of the server's `Combiner`.
    """

    def __init__(self, context: PartyContext, server: PartyName, combiner: Key) -> None:
        self._context = context
        self._server = server
        self._combiner = combiner
        self._shield: Shield | None = None
        self._kind = Kind.MASKED

    def hello(self, config: bytes, names: Sequence[PartyName]) -> Reply:
        """Checks a proposed Config against this party's own policy and roster, and returns the signed Hello.

        Args:
            config: The Config's bytes.
            names: The contributing parties; their keys come from this party's own roster.

        Raises:
            ProtocolError: The Config asks for less protection than this party's policy demands.
        """
        roster = Roster.of({name: self._context.roster[name] for name in names})
        shared = self._context.state
        memory = shared.setdefault("model memory", ModelMemory())
        proposed = Config.decode(config)
        scheme = SCHEMES[proposed.part]
        self._kind = Kind.MASKED if scheme.protected else Kind.RAW
        self._shield = scheme.shield(proposed, self._context.name, self._context.identity, roster, Policy(), memory)
        return Reply(Kind.HELLO, self._shield.hello())

    def confirm(self, hellos: Sequence[bytes]) -> Reply:
        """Checks everybody's Hello and returns the signed Confirm."""
        return Reply(Kind.HELLO, self._active().confirm(hellos))

    def start(self, confirms: Sequence[bytes]) -> None:
        """Checks everybody's Confirm; the session's rounds may begin."""
        self._active().start(confirms)

    def exchange(self, call: str, context: RoundContext, contribution: Contribution) -> Answer:
        """Sends one round's protected contribution to the server and returns its answer.

        Raises:
            ProtocolError: The round or the whole segment was given up.
            EncodingError: A value is not finite or exceeds its bound.
        """
        shield = self._active()
        (message,) = shield.protect(context, contribution).values()
        answer = self._deliver(call, context.number, message)
        while answer.verdict == "next":
            answer = self._deliver(call, context.number, shield.reply(answer.broadcast))
        if answer.verdict == "aborted":
            raise ProtocolError(f"round {context.number} was given up: {answer.reason}")
        if answer.view is not None:
            shield.join(answer.view)
        return answer

    def _deliver(self, call: str, number: int, message: Message) -> Answer:
        ref = self._context.send(call, self._server, self._combiner, ("sum", number, message), self._kind)
        answer: Answer = self._context.get(ref, timeout=None)
        return answer

    def _active(self) -> Shield:
        if self._shield is None:
            raise ProtocolError(f"party {self._context.name!r} has no session yet: hello comes first")
        return self._shield
