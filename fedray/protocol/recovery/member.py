# SPDX-License-Identifier: Apache-2.0
"""Where a party stands in a session: what its batches, rounds and promises all refer to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.protocol.crypto.keys import Guarded, Roster
from fedray.protocol.recovery.thresholds import Thresholds
from fedray.types import PartyName

DecisionLog: TypeAlias = Callable[[bytes], None]
"""Takes one decision before it is acted upon. Where it raises, nothing is signed and nothing is released."""


class Member(Guarded):
    """One party in one session.

    Attributes:
        sid: Session id.
        index: The party's place in the roster.
        roster: All parties.
        identity: The party's signing key.
        thresholds: What a set of survivors must satisfy.
        journal: Takes each decision before it is acted upon.
    """

    def __init__(
        self,
        sid: bytes,
        index: int,
        roster: Roster,
        identity: Ed25519PrivateKey,
        thresholds: Thresholds,
        journal: DecisionLog,
    ) -> None:
        self.sid, self.index, self.roster = sid, index, roster
        self.identity, self.thresholds, self.journal = identity, thresholds, journal

    @property
    def name(self) -> PartyName:
        """The party's name."""
        return self.roster.names[self.index]

    def names(self, indices: tuple[int, ...]) -> tuple[PartyName, ...]:
        """Returns the names of places in the roster."""
        return tuple(self.roster.names[i] for i in indices)
