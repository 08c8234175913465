# SPDX-License-Identifier: Apache-2.0
"""Scheme recovery, the coordinator's side of one session: relays set-ups of batches, makes each round's collector.

Knows what every party knows in public. Holds no key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.manifest import Manifest
from fedray.protocol.messages import Confirm, Hello, digest
from fedray.protocol.recovery.collector import RecoveryCollector
from fedray.protocol.recovery.key_relay import KeyRelay
from fedray.protocol.recovery.round_public import RoundPublic
from fedray.protocol.recovery.thresholds import Thresholds, ring_of
from fedray.protocol.scheme import View
from fedray.types import PartyName, Round

KEPT = 3
"""Set-ups that are kept: those of the batch in use and of the next, and one under way."""


class RecoveryCoordinator:
    """One session at the coordinator.

    Attributes:
        recovers: A round is opened without the parties that dropped out of it.
        sid: Session id.
    """

    recovers = True

    def __init__(self, config: Config, roster: Roster, hellos: Sequence[bytes], confirms: Sequence[bytes]) -> None:
        """Computes what the parties computed; checking it is up to them.

        Args:
            config: Agreed settings.
            roster: All parties.
            hellos: Wire bytes of all Hellos, in roster order.
            confirms: Wire bytes of all Confirms, in roster order.

        Raises:
            EncodingError: A Hello or Confirm does not decode.
        """
        statements = [Hello.decode(data).statement for data in hellos]
        reveals = [Confirm.decode(data).reveal for data in confirms]
        self.sid = digest("sid", config.encode(), *statements)
        self._gseed = digest("graph", self.sid, *reveals)
        self._config, self._roster, self._thresholds = config, roster, Thresholds.of(config)
        self._relays: dict[int, KeyRelay] = {}
        self._answers: dict[int, list[Mapping[PartyName, bytes]]] = {}

    def collector(self, view: View, number: Round, manifest: Manifest) -> RecoveryCollector:
        """Returns the summing end of one round.

        Args:
            view: The whole roster.
            number: The round.
            manifest: What the words mean.

        Raises:
            ProtocolError: No batch with keys for the round is ready, or the view is not the whole roster.
        """
        if view.members != self._roster.names:
            raise ProtocolError(f"sums that survive dropouts have one view, the whole roster, found {view.members}")
        for relay in self._relays.values():
            directory = relay.directory
            if relay.done and directory is not None and number in directory.rounds:
                ring = ring_of(self._thresholds.graph, self._gseed, self.sid, number)
                public = RoundPublic(self._config, self._thresholds, self._roster, directory, ring, number, manifest)
                return RecoveryCollector(public)
        raise ProtocolError(f"round {number} has no keys: prepare a batch first")

    def check_view(self, members: Sequence[PartyName]) -> None:
        """Checks that a round may be opened without the others.

        Raises:
            ProtocolError: They are too few.
        """
        least = max(self._thresholds.least_members, self._config.parties - self._config.dropouts)
        if len(members) < least:
            found = ", ".join(members) or "nobody"
            raise ProtocolError(f"{found} cannot go on without the others: a sum needs at least {least} parties here")

    def set_up_stage(self, batch: int) -> int:
        """Returns how many of the three exchanges of a batch's set-up are over."""
        return len(self._answers.get(batch, ()))

    def awaited(self, batch: int) -> frozenset[PartyName]:
        """Returns whose message of a batch's set-up is awaited."""
        relay = self._relays.get(batch)
        return frozenset(self._roster.names) if relay is None else relay.missing()

    def add_set_up(self, sender: PartyName, batch: int, message: bytes) -> None:
        """Takes one message of a batch's set-up; with the last one of an exchange, that exchange is over.

        Args:
            sender: Whose message it is, as the transport names it.
            batch: Number of the batch.
            message: Its bytes.

        Raises:
            ProtocolError: The message is wrong, or the batch is not one of the latest.
        """
        if batch not in self._relays:
            if self._relays and batch < max(self._relays):
                raise ProtocolError(
                    f"{sender}: batch {batch} is not under way: batch {max(self._relays)} came after it"
                )
            self._relays[batch], self._answers[batch] = KeyRelay(self._roster, self.sid, batch), []
            # Parties that are behind may still ask for the last answers of the batch before.
            for old in sorted(self._relays)[:-KEPT]:
                del self._relays[old], self._answers[old]
        relay = self._relays[batch]
        relay.add(sender, message)
        if not relay.missing() and not relay.done:
            self._answers[batch].append(relay.advance())

    def set_up_answer(self, batch: int, stage: int, receiver: PartyName) -> bytes:
        """Returns what a party gets at the end of one exchange of a batch's set-up, counted from 0.

        Args:
            batch: Number of the batch.
            stage: Which exchange, counted from 0.
            receiver: Who asks.

        Raises:
            ProtocolError: That exchange is not over, or long ago.
        """
        answers = self._answers.get(batch, [])
        if stage >= len(answers):
            raise ProtocolError(f"exchange {stage} of the set-up of batch {batch} is not over, or long ago")
        return answers[stage][receiver]
