# SPDX-License-Identifier: Apache-2.0
"""ShareOwner: the owner's half of a sum of shares. One message per compute party, then it waits for the outcome.

Knows an owner's shield and where the compute parties are. Knows no model, and of the shares only where they go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from fedray.errors import ProtocolError, ServerFault
from fedray.party.context import PartyContext
from fedray.party.door.egress import Kind
from fedray.party.records import Answer, RoundOutcome, ShareMessage
from fedray.party.rounds.compute_party import ComputeParty, register
from fedray.party.rounds.told import outcome
from fedray.protocol.scheme import Contribution, RoundContext
from fedray.protocol.sharing import SharingShield
from fedray.types import Key, Message, PartyName, Ref


class ShareOwner:
    """One owner in one session.

    Args:
        context: The party this end lives in.
        shield: Its shield, after set-up.
        compute: Compute party -> key of its `ComputeParty`.
        server: The party that opens.
        round_server: Key of the server's `RoundServer`, which names the aggregator.
    """

    def __init__(
        self,
        context: PartyContext,
        shield: SharingShield,
        compute: Mapping[PartyName, Key],
        server: PartyName,
        round_server: Key,
    ) -> None:
        self._context, self._shield, self._compute, self._server = context, shield, dict(compute), server
        register(context, round_server, shield)

    def exchange(
        self, call: str, context: RoundContext, contribution: Contribution
    ) -> tuple[Answer, tuple[PartyName, ...]]:
        """Shares one contribution and returns the round's answer, and whose inputs were opened as was signed.

        Whether the answer's sum is over these is left to the caller, who knows the server.

        Args:
            call: The round in words, for the ledger.
            context: What the round is about.
            contribution: This party's part.

        Raises:
            ProtocolError: The round was given up or opened without this party, or not all compute parties signed it.
            ServerFault: The server has its sum, and does not say that it was opened.
            EncodingError: A value is not finite or exceeds its bound.
            PartyLost: A compute party has ended.
        """
        number = context.number
        messages = dict(self._shield.protect(context, contribution))
        home, last = messages.popitem()  # the one long message; the others may be seeds of 32 bytes
        # Every message of it: any of them may be the one that arrives.
        send = partial(self._send, call, self._context.commitments.of(context, contribution))
        acknowledged = [send(to, ShareMessage(number, message, False)) for to, message in messages.items()]
        told = self._at_home(send, home, number, last, acknowledged)
        answer = told.answer
        # Whatever the server says of it: a sum that it was sent is one that it has.
        members = self._shield.certify(told.proof) if told.proof else ()
        if members and answer.verdict not in ("opened", "aborted"):
            raise ServerFault(
                f"server {self._server!r} said {answer.verdict!r} of round {number}, whose sum it was sent; nothing "
                "further is sent"
            )
        if answer.verdict == "abandoned":
            self._shield.give_up(number)
            return answer, self._shield.owners
        if answer.verdict != "opened" or not members:
            raise ProtocolError(f"round {number} was given up: {answer.reason}")
        self._shield.drop_cache()  # nobody asks again for the messages of a round that is over
        return answer, members

    def _at_home(
        self,
        send: Callable[[PartyName, ShareMessage], Ref],
        home: PartyName,
        number: int,
        message: Message,
        others: list[Ref],
    ) -> RoundOutcome:
        """Hands the long share to the compute party that answers this owner: itself, if it is one."""
        if home == self._context.name:
            end: ComputeParty = self._context.value(self._compute[home])
            end.take(home, number, message)
            self._confirm(others)  # before waiting: if a compute party refused its share, nothing may come
            return outcome(home, end.wait(home, number))
        ref = send(home, ShareMessage(number, message, True))
        self._confirm(others)
        return outcome(home, self._context.get(ref, None))

    def _confirm(self, refs: list[Ref]) -> None:
        for ref in refs:
            self._context.get(ref, None)

    def _send(self, call: str, commitment: str, to: PartyName, message: ShareMessage) -> Ref:
        return self._context.send(call, to, self._compute[to], message, Kind.SHARE, commitment)
