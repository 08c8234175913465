# SPDX-License-Identifier: Apache-2.0
"""Contributor: one party's end of an aggregator's private sums, set-up and rounds. Knows no model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fedray.errors import FedRayError, ProtocolError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.records import Answer
from fedray.party.rounds.share_owner import ShareOwner
from fedray.protocol.config import Config
from fedray.protocol.scheme import BatchedShield, Contribution, RoundContext, Shield
from fedray.protocol.schemes import SCHEMES
from fedray.protocol.sharing import SharingShield
from fedray.types import Key, PartyName, Ref, Round


class Contributor:
    """Joins sessions and takes part in their rounds.

    Args:
        context: The party this end lives in.
        server: The party that sums.
        round_server: Key of the server's `RoundServer`.

    Attributes:
        server: The party that sums.
        members: Whose inputs the next round sums.
        verified: Whether this party knows for certain over whose inputs the last round was opened. Where it does not,
            what the round changed here is put back: parties that were told different things would keep it apart.
    """

    def __init__(self, context: PartyContext, server: PartyName, round_server: Key) -> None:
        self._context = context
        self.server = server
        self._round_server = round_server
        self.members: tuple[PartyName, ...] = ()
        self.verified = True
        self._shield: Shield | None = None
        self._batched: BatchedShield | None = None
        self._kind = Kind.MASKED
        self._batch_length = 0
        self._lock = threading.Lock()  # keys of later rounds are prepared beside the round under way
        self._key_supply = KeySupply(None, 0, self._lock, partial(self._relay, 0))
        self._session = 0
        self._compute: Mapping[PartyName, Key] = {}
        self._share_owner: ShareOwner | None = None

    def hello(self, config: bytes, names: Sequence[PartyName], compute: Mapping[PartyName, Key]) -> Reply:
        """Checks a proposed Config against this party's own policy and roster, and returns the signed Hello.

        Args:
            config: The Config's bytes.
            names: The parties of the session; their keys come from this party's own roster.
            compute: Compute party -> key of its `ComputeParty`; empty where the server sums.

        Raises:
            ProtocolError: The Config asks for less protection than this party's policy demands.
        """
        context = self._context
        roster, proposed = context.roster_of(names), Config.decode(config)
        scheme = SCHEMES[proposed.scheme]
        self._kind = Kind.MASKED if scheme.protected else Kind.RAW
        self.members, self._batch_length = proposed.owners or roster.names, proposed.batch
        self._compute, self._share_owner = compute, None
        own = (context.name, context.identity, roster, context.policy, context.memory)
        self._shield = scheme.shield(proposed, *own)
        return Reply(Kind.HELLO, self._shield.hello())

    def confirm(self, hellos: Sequence[bytes]) -> Reply:
        """Checks everybody's Hello and returns the signed Confirm."""
        return Reply(Kind.HELLO, self._active().confirm(hellos))

    def start(self, confirms: Sequence[bytes], number: int) -> None:
        """Checks everybody's Confirm; the rounds of session `number` may begin."""
        shield = self._active()
        shield.start(confirms)
        self._batched = shield if isinstance(shield, BatchedShield) else None
        self._session = number
        self._key_supply = KeySupply(self._batched, self._batch_length, self._lock, partial(self._relay, number))
        if isinstance(shield, SharingShield):
            self._share_owner = ShareOwner(self._context, shield, self._compute, self._round_server)

    def _relay(self, session: int, batch: int, message: bytes) -> Answer:
        answer: Answer = self.ask_server(f"keys of batch {batch}", ("set up", session, batch, message), Kind.SHARE)
        return answer

    def exchange(self, call: str, context: RoundContext, contribution: Contribution) -> Answer:
        """Sends one round's protected contribution to the server and returns its answer.

        Args:
            call: The round in words, for the ledger.
            context: What the round is about.
            contribution: This party's part.

        Returns:
            An answer that is `"opened"`, `"abandoned"`, `"missed"` or `"renew"`.

        Raises:
            ProtocolError: The segment was given up, or the others went on without this party.
            EncodingError: A value is not finite or exceeds its bound.
        """
        if self._share_owner is not None:
            opened, self.members = self._share_owner.exchange(call, context, contribution)
            return opened
        shield = self._active()
        answer = self._key_supply.cover(context.number) or self._answered(shield, call, context, contribution)
        if answer.verdict in ("aborted", "left"):
            raise ProtocolError(f"round {context.number} was given up: {answer.reason}")
        if answer.view is not None:
            with self._lock:
                shield.join(answer.view)
            self.members = answer.view.members
        self.verified = self._batched is None or self._batched.survivors(context.number) is not None
        return answer

    def _answered(self, shield: Shield, call: str, context: RoundContext, contribution: Contribution) -> Answer:
        """Returns the server's last word on a round, after as many exchanges as the scheme has."""
        answer: Answer = self._context.get(self._contribute(shield, call, context, contribution), None)
        while answer.verdict == "next":
            with self._lock:
                reply = shield.reply(answer.broadcast)
            answer = self.ask_server(call, ("sum", self._session, context.number, reply), Kind.SHARE)
        return answer

    def _contribute(self, shield: Shield, call: str, context: RoundContext, contribution: Contribution) -> Ref:
        """Sends what hides the contribution; a large message is held by nobody here while the answer is awaited."""
        with self._lock:
            (message,) = shield.protect(context, contribution).values()
        return self._dispatch(call, ("sum", self._session, context.number, message), self._kind)

    def ask_server(self, call: str, message: tuple[Any, ...], kind: Kind) -> Any:
        """Sends the server a message and returns its answer.

        Args:
            call: What it is for in words, for the ledger.
            message: What the server's `deliver` takes.
            kind: What the message is, for the door.
        """
        return self._context.get(self._dispatch(call, message, kind), None)

    def _dispatch(self, call: str, message: tuple[Any, ...], kind: Kind) -> Ref:
        return self._context.send(call, self.server, self._round_server, message, kind)

    def _active(self) -> Shield:
        if self._shield is None:
            raise ProtocolError(f"party {self._context.name!r} has no session yet: hello comes first")
        return self._shield


class KeySupply:
    """Prepares batches through the server, the first one in front of its round and the others behind earlier rounds.

    Args:
        shield: Whose rounds need keys; None where the scheme has no batches.
        length: Rounds in a batch.
        lock: Held while the shield is used.
        relay: (batch, message) -> the server's answer; blocks until everybody has answered.
    """

    def __init__(
        self,
        shield: BatchedShield | None,
        length: int,
        lock: threading.Lock,
        relay: Callable[[int, bytes], Answer],
    ) -> None:
        self._shield = shield
        self._length = length
        self._lock = lock
        self._relay = relay
        self._batch = 0
        self._ready: Round = 0
        self._ahead: threading.Thread | None = None
        self._refusal: Answer | None = None

    def cover(self, number: Round) -> Answer | None:
        """Waits until round `number` has keys.

        Returns:
            None when it has; else the server's word that there will be none.
        """
        if self._shield is None:
            return None
        if self._ahead is not None and (number >= self._ready or not self._ahead.is_alive()):
            self._ahead.join()
            self._ahead = None
        while self._refusal is None and number >= self._ready:  # round numbers may skip a whole batch
            self._prepare()
        if number >= self._ready:
            return self._refusal
        half_used = number >= self._ready - self._length // 2
        if half_used and self._ahead is None and self._refusal is None:
            self._ahead = threading.Thread(target=self._prepare, name="fedray-keys", daemon=True)
            self._ahead.start()
        return None

    def _prepare(self) -> None:
        shield = self._shield
        if shield is None:
            return
        batch, self._batch = self._batch, self._batch + 1
        try:
            with self._lock:
                message: bytes | None = shield.prepare(batch, self._ready)
            while message is not None:
                answer = self._relay(batch, message)
                if answer.verdict != "next":
                    self._refusal = answer
                    return
                with self._lock:
                    message = shield.absorb(answer.broadcast)
        except FedRayError as error:
            self._refusal = Answer("aborted", reason=str(error))
            return
        self._ready += self._length
