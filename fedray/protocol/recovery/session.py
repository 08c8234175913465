# SPDX-License-Identifier: Apache-2.0
"""One party in one session with recovery: what its batches of keys, its rounds and its decisions all refer to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.handshake import SessionKeys
from fedray.protocol.member import Member
from fedray.protocol.recovery.thresholds import Thresholds, ring_of
from fedray.types import Round

DecisionLog: TypeAlias = Callable[[bytes], None]
"""Takes one decision before it is acted upon. Where it raises, nothing is signed and nothing is released."""


class RecoverySession(Guarded):
    """What set-up left with one party.

    Attributes:
        member: The party.
        keys: The session's id and keys.
        thresholds: What a set of survivors must satisfy.
        journal: Takes each decision before it is acted upon.
    """

    def __init__(self, member: Member, keys: SessionKeys, thresholds: Thresholds, journal: DecisionLog) -> None:
        """Takes what set-up has agreed; see `RecoverySession`."""
        self.member, self.keys, self.thresholds, self.journal = member, keys, thresholds, journal

    def ring(self, number: Round) -> tuple[int, ...]:
        """Returns the permutation of a round's graph."""
        return ring_of(self.thresholds.graph, self.keys.gseed, self.keys.sid, number)
