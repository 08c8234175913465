# SPDX-License-Identifier: Apache-2.0
"""What is public of one round with recovery before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.manifest import Manifest
from fedray.protocol.recovery.key_directory import Directory
from fedray.protocol.recovery.thresholds import Thresholds
from fedray.types import Round


@dataclass(frozen=True, slots=True)
class RoundPublic:
    """What is public of one round before it begins.

    Attributes:
        config: Agreed settings.
        thresholds: What a set of survivors must satisfy.
        roster: All parties.
        directory: Public keys of the batch.
        ring: The round's permutation.
        number: The round.
        manifest: What the words mean.
    """

    config: Config
    thresholds: Thresholds
    roster: Roster
    directory: Directory
    ring: tuple[int, ...]
    number: Round
    manifest: Manifest

    @property
    def sid(self) -> bytes:
        """Session id."""
        return self.directory.sid
