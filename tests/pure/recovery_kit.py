# SPDX-License-Identifier: Apache-2.0
"""Four parties of recovery with a round under way, for the tests of lies and decisions."""

from __future__ import annotations

import secrets

import numpy as np

from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster, sign
from fedray.protocol.manifest import ExactTotal, Manifest, Tensor
from fedray.protocol.recovery.collector import RecoveryCollector
from fedray.protocol.recovery.key_batch import KeyBatch
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.recovery.round_messages import Quorum, Survivors
from fedray.protocol.recovery.shield import RecoveryShield
from fedray.protocol.recovery.thresholds import propose
from fedray.protocol.scheme import Contribution, RoundContext

MANIFEST = Manifest((Tensor("kernel", (7,), "float32"),), (ExactTotal("loss"),))
ENCODING = Encoding(weight_bound=5)
ALL = ("p0000", "p0001", "p0002", "p0003")


def propose_small(roster: Roster) -> Config:
    return propose(roster, ["server"], ENCODING, batch=4)


def context(number: int, model: bytes = b"", settings: bytes = b"settings") -> RoundContext:
    return RoundContext(number, model or secrets.token_bytes(32), settings, MANIFEST)


def contribution(seed: int = 0, weight: int = 1) -> Contribution:
    values = np.random.default_rng(seed).normal(size=MANIFEST.size).astype(np.float32)
    return Contribution(values, weight, np.ones(1))


def inputs(but: str = "") -> dict[str, Contribution]:
    return {name: contribution(i) for i, name in enumerate(ALL) if name != but}


def covered(shield: RecoveryShield) -> int:
    """Returns how many rounds, from the next one on, have keys."""
    batches = shield._batches
    return sum(number >= batches.next for batch in batches._ready for number in batch.directory.rounds)


def held(batch: KeyBatch, number: int) -> tuple[int, ...]:
    """Returns whose shares of a round a party holds."""
    return tuple(sorted(batch._shares.get(number, ())))


class Stage:
    """Four parties with a batch of four rounds, one of which is under way."""

    def __init__(self) -> None:
        self.rehearsal = Rehearsal(4, propose_small)
        self.shields = self.rehearsal.shields
        self.rehearsal.prepare(0)
        self.number = -1

    def begin(self, but: str = "") -> RecoveryCollector:
        self.number += 1
        if self.number and self.number % 4 == 0:
            self.rehearsal.prepare(self.number)
        self.collector = self.rehearsal.begin(context(self.number), inputs(but))
        return self.collector

    def survivors(self, but: str = "") -> Survivors:
        """Begins a round and returns what the coordinator would send honestly."""
        self.begin(but)
        broadcast = self.collector.advance()
        assert broadcast is not None
        return Survivors.decode(broadcast)

    def signatures(self, survivors: Survivors) -> dict[int, bytes]:
        names = [ALL[i] for i in survivors.members]
        return {ALL.index(n): sign(self.rehearsal.identities[n], survivors.statement) for n in names}

    def quorum(self, survivors: Survivors, signed: dict[int, bytes] | None = None) -> bytes:
        found = self.signatures(survivors) if signed is None else signed
        return Quorum(survivors, tuple(sorted(found)), tuple(found[i] for i in sorted(found))).encode()
