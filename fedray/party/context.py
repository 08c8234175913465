# SPDX-License-Identifier: Apache-2.0
"""What a service sees of the party it lives in. A service reaches other parties and the driver only through here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.party.door.commitment import Commitments
from fedray.party.door.egress import Egress, Kind
from fedray.party.table import ObjectTable
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.types import Failure, Key, PartyConfig, PartyName, Ref, Value


@dataclass(frozen=True, slots=True)
class Reply:
    """A service's answer: a value and what it is. It passes the door on its way out.

    Attributes:
        kind: What the value is.
        value: The value.
    """

    kind: Kind
    value: Value


class Calls(Protocol):
    """The part of a `fedray.types.Transport` that a party needs: calling others, and waiting for their answers."""

    def call(self, party: PartyName, method: str, *args: Any) -> Ref:
        """Calls a method of another party and returns at once; see `fedray.types.Transport.call`."""

    def get(self, refs: Sequence[Ref], timeout: float | None) -> list[Any]:
        """Returns the results in order, or raises what the first call to fail failed with."""


class Service(Protocol):
    """An object that the driver places in a party with `Session.serve(party, cls, *args)`.

    It is built as `cls(context, *args)`. Any of its public methods can be asked for in the command lane (`ask`) or the
    message lane (`tell`); each returns a `Reply` or None.
    """

    def deliver(self, sender: PartyName, message: Any) -> Reply | None:
        """Takes another party's message and answers it; may block.

        The answer is plain data: numbers, text, bytes, arrays, lists and tuples of them, or one of the records that
        parties answer each other with. Between parties on one node nothing else travels.
        """

    def watch(self, *args: Any) -> Reply:
        """Answers the driver when there is something to tell; may block."""


@dataclass(frozen=True)
class PartyContext:
    """One party, as its services see it.

    Attributes:
        config: What the party was told at its start.
        identity: The party's Ed25519 key, from its key folder, or made at its start.
        policy: What it accepts of sums.
        memory: Which model it served with whom, the same object for all its services.
        commitments: To what it contributes, for the ledger.
        roster: Public identity keys of all parties, in roster order; filled in before the first service is built.
        state: Shared by all services of this party process.
        folder: Its key folder, in which it keeps what is its own; None where it has none.
        parts: Where it keeps its parts of checkpoints; None where that is left to the driver.
    """

    config: PartyConfig
    identity: Ed25519PrivateKey
    policy: Policy
    memory: ModelMemory
    commitments: Commitments
    # Private, so that a service reaches the table and the door only by the methods below.
    _table: ObjectTable = field(repr=False)
    _egress: Egress = field(repr=False)
    _calls: Calls = field(repr=False)
    roster: dict[PartyName, bytes] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    parts: Path | None = None

    @property
    def name(self) -> PartyName:
        """The party's name."""
        return self.config.name

    def roster_of(self, names: Sequence[PartyName]) -> Roster:
        """Returns the roster of some of the parties, with the keys that this party knows them by.

        Raises:
            ProtocolError: It knows no key of one of them.
        """
        return Roster.of(self.roster).subset(names)

    def member(self, names: Sequence[PartyName]) -> Member:
        """Returns this party as a member of a session of these parties.

        Raises:
            ProtocolError: It knows no key of one of them, or is none of them.
        """
        return Member(self.name, self.identity, self.roster_of(names), self.policy, self.memory)

    def send(self, call: str, to: PartyName, key: Key, message: Any, kind: Kind, commitment: str | None = None) -> Ref:
        """Sends a message to the service `key` of another party and returns at once; the reference yields the answer.

        Args:
            call: The driver's statement that it belongs to, for both ledgers.
            to: The other party.
            key: The service there.
            message: Plain data, as in `Service.deliver`.
            kind: What the message is.
            commitment: Where it carries a contribution, what `commitments` makes of it.

        Raises:
            EgressDenied: The policy refuses.
        """
        # The door first: what it refuses must not be on its way already.
        self._egress.send(message, to=to, kind=kind, call=call, commitment=commitment)
        return self._calls.call(to, "deliver", call, key, self.name, message)

    def passing(
        self, call: str, to: Sequence[PartyName], kind: Kind, sent: Callable[[], Mapping[PartyName, int] | None]
    ) -> AbstractContextManager[None]:
        """Lets a library send messages of its own, which are counted; see `fedray.party.door.egress.Egress.passing`.

        Args:
            call: What asked for them.
            to: Whom they go to.
            kind: What they are.
            sent: Tells afterwards how many bytes went to whom.

        Raises:
            EgressDenied: The policy refuses.
        """
        return self._egress.passing(to, kind=kind, call=call, sent=sent)

    def get(self, ref: Ref, timeout: float | None) -> Any:
        """Waits for the answer to a message, at most `timeout` seconds.

        Raises:
            PartyLost: The other party's process ended.
            PartyTimeout: No answer in time.
            FedRayError: What the other party failed with.
        """
        return self._calls.get([ref], timeout)[0]

    def value(self, key: Key) -> Value:
        """Returns an object of this party.

        Raises:
            FedRayError: There is none, or the call that should have made it failed.
        """
        return self._table.get(key)

    def put(self, key: Key, value: Value | Failure) -> None:
        """Keeps an object of this party under a key that the driver has made, or the failure in its place."""
        self._table.put(key, value)

    def drop(self, keys: Sequence[Key]) -> None:
        """Forgets objects."""
        self._table.drop(keys)

    def failed(self, key: Key) -> bool:
        """Returns whether a failure is in the place of an object."""
        return self._table.failed(key)

    def holds(self, key: Key) -> bool:
        """Returns whether there is an object, or a failure in its place."""
        return self._table.arrives(key, 0.0)
