# SPDX-License-Identifier: Apache-2.0
"""The table of schemes: which Shield a Config stands for, and which Coordinator serves it at the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.manifest import Manifest
from fedray.protocol.masking.coordinator import ViewCoordinator
from fedray.protocol.masking.plain import PlainShield
from fedray.protocol.masking.shield import MaskingShield
from fedray.protocol.member import Member
from fedray.protocol.recovery import RecoveryCoordinator, RecoveryShield
from fedray.protocol.scheme import Collector, Joining, Shield, View
from fedray.protocol.sharing import SharingCoordinator, SharingShield
from fedray.types import PartyName, Round


class Coordinator(Protocol):
    """The server's side of one session: makes the collectors of its rounds.

    Attributes:
        recovers: Whether a round is opened without the parties that dropped out of it; otherwise it is abandoned.
    """

    recovers: bool

    def collector(self, view: View, number: Round, manifest: Manifest) -> Collector:
        """Returns the summing end of one round.

        Args:
            view: Whose inputs the round may sum.
            number: The round.
            manifest: What the words mean.
        """

    def check_view(self, members: Sequence[PartyName]) -> None:
        """Checks that these parties may go on without the others.

        Raises:
            ProtocolError: They are too few.
        """


@runtime_checkable
class BatchCoordinator(Coordinator, Protocol):
    """A coordinator that also relays the set-up of batches of rounds."""

    def set_up_stage(self, batch: int) -> int:
        """Returns how many exchanges of a batch's set-up are over."""

    def awaited(self, batch: int) -> frozenset[PartyName]:
        """Returns whose message of a batch's set-up is awaited."""

    def add_set_up(self, sender: PartyName, batch: int, message: bytes) -> None:
        """Takes one message of a batch's set-up.

        Args:
            sender: Whose message it is.
            batch: Number of the batch.
            message: Its bytes.

        Raises:
            ProtocolError: The message is wrong.
        """

    def set_up_answer(self, batch: int, stage: int, receiver: PartyName) -> bytes:
        """Returns what a party gets at the end of one exchange of a batch's set-up.

        Args:
            batch: Number of the batch.
            stage: Which exchange, counted from 0.
            receiver: Who asks.
        """


@dataclass(frozen=True, slots=True)
class Scheme:
    """The two ends of private sums under one Config.

    Attributes:
        join: Checks a proposed Config and begins a party's set-up, which ends in its `Shield`.
        coordinator: (config, roster, hellos, confirms) -> the server's end.
        protected: Whether what leaves a party hides its contribution.
    """

    join: Callable[[Config, Member], Joining[Shield]]
    coordinator: Callable[[Config, Roster, Sequence[bytes], Sequence[bytes]], Coordinator]
    protected: bool = True


SCHEMES: Mapping[str, Scheme] = {
    "masking": Scheme(MaskingShield.joining, ViewCoordinator),
    "plain": Scheme(PlainShield.joining, ViewCoordinator, protected=False),
    "recovery": Scheme(RecoveryShield.joining, RecoveryCoordinator),
    "sharing": Scheme(SharingShield.joining, SharingCoordinator),
}
