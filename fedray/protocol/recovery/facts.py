# SPDX-License-Identifier: Apache-2.0
"""What is public of one round with recovery before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from fedray.protocol.config import Config
from fedray.protocol.keys import Roster
from fedray.protocol.recovery.directory import Directory
from fedray.protocol.recovery.terms import Terms
from fedray.protocol.scheme import Manifest
from fedray.types import Round


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """What is public of one round before it begins.

    Attributes:
        config: Agreed settings.
        terms: What a set of survivors must satisfy.
        roster: All parties.
        directory: Public keys of the batch.
        ring: The round's permutation.
        number: The round.
        manifest: What the words mean.
    """

    config: Config
    terms: Terms
    roster: Roster
    directory: Directory
    ring: tuple[int, ...]
    number: Round
    manifest: Manifest

    @property
    def sid(self) -> bytes:
        """Session id."""
        return self.directory.sid
