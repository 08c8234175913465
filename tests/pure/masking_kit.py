# SPDX-License-Identifier: Apache-2.0
"""Sessions of masking and of the plain sum in one process, for the tests."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster, generate_identity, public_bytes
from fedray.protocol.fixed_point import Encoder, decode
from fedray.protocol.handshake import introduce
from fedray.protocol.manifest import ExactTotal, Manifest, Tensor
from fedray.protocol.masking.collector import ViewCollector
from fedray.protocol.masking.plain import PlainShield
from fedray.protocol.masking.shield import MaskingShield
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.pipeline import run
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import Contribution, Opened, RoundContext, View

ENDS = {"masking": MaskingShield, "plain": PlainShield}
NO_METRICS = np.empty(0)


def identities(parties):
    return {f"p{i:02}": generate_identity() for i in range(parties)}


def roster_of(keys):
    return Roster.of({name: public_bytes(key) for name, key in keys.items()})


def manifest_of(size, metrics=(), weighted=True, dtype="float64", counts=()):
    """Returns a manifest of one tensor, with totals by name, and counts by name behind them."""
    totals = (*map(ExactTotal, metrics), *(ExactTotal(name, whole=True) for name in counts))
    return Manifest((Tensor("w", (size,), dtype),), totals, weighted)


def context_of(number, manifest, model=None, settings=b"", purpose="train"):
    name = hashlib.sha256(f"model {number}".encode()).digest() if model is None else model
    return RoundContext(number, name, settings, manifest, purpose)


def plain_values(values, weight=1, metrics=NO_METRICS):
    return Contribution(np.asarray(values), weight, None if metrics is None else np.asarray(metrics, np.float64))


def encode(encoding, parties, manifest, contribution):
    """Returns all words of one contribution."""
    encoder = Encoder(encoding, parties, manifest, contribution)
    words = np.empty(manifest.words(parties), f"<u{encoding.ring // 8}")
    run(words, encoder.encode)
    return words


@dataclass
class Kit:
    """One session; `shields` by name."""

    config: Config
    roster: Roster
    keys: dict
    shields: dict = field(default_factory=dict)
    memories: dict = field(default_factory=dict)

    @property
    def names(self):
        return self.roster.names

    def start(self, policy):
        ends = introduce([self.joining(name, policy) for name in self.names])
        self.shields |= zip(self.names, ends, strict=True)
        return self

    def joining(self, name, policy=None):
        """Returns one party's way into the session."""
        memory = self.memories.setdefault(name, ModelMemory())
        member = Member(name, self.keys[name], self.roster, policy or Policy(), memory)
        return ENDS[self.config.scheme].joining(self.config, member)

    def again(self, policy=None):
        """Returns a new session of the same parties, with their memories."""
        return Kit(self.config, self.roster, self.keys, memories=self.memories).start(policy or Policy())

    def collector(self, number, manifest, view=None):
        return ViewCollector(self.config, view or View(0, self.names), number, manifest)

    def send(self, name, context, contribution):
        (message,) = self.shields[name].protect(context, contribution).values()
        return message

    def round(self, context, contributions, view=None) -> Opened:
        """Runs one round over a view whose members all send."""
        collector = self.collector(context.number, context.manifest, view)
        for name, contribution in contributions.items():
            collector.add(name, self.send(name, context, contribution))
        return self.read(collector.open(), context.manifest)

    def read(self, opened, manifest) -> Opened:
        """Returns what a sum says."""
        return decode(self.config.encoding, self.config.contributors, manifest, opened)

    def join(self, view, names: Sequence[str] | None = None):
        for name in names or view.members:
            self.shields[name].join(view)


def session(parties, scheme="masking", encoding=None, policy=None, keys=None, memories=None, **thresholds) -> Kit:
    """Returns a started session."""
    keys = keys or identities(parties)
    roster = roster_of(keys)
    config = Config.propose(scheme, roster, ["server"], encoding or Encoding(), **thresholds)
    return Kit(config, roster, keys, memories=memories if memories is not None else {}).start(policy or Policy())
