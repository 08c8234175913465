# SPDX-License-Identifier: Apache-2.0
"""Sessions of sharing in one process, for the tests."""

from dataclasses import dataclass, field, replace

import numpy as np
from pure.masking_kit import context_of, identities, manifest_of, plain_values, roster_of

from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.fixed_point import decode
from fedray.protocol.handshake import introduce
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import Opened, View
from fedray.protocol.sharing import SharingCoordinator, SharingShield


@dataclass
class Kit:
    """One session: `shields` of all parties and `adders` of the compute parties, by name."""

    config: Config
    roster: Roster
    keys: dict
    memories: dict = field(default_factory=dict)
    shields: dict = field(default_factory=dict)
    hellos: list = field(default_factory=list)

    @property
    def owners(self):
        return self.config.owners or self.roster.names

    @property
    def adders(self):
        return {name: self.shields[name].adder for name in self.config.receivers}

    def start(self, policy, shield=SharingShield):
        joinings = []
        for name in self.roster.names:
            memory = self.memories.setdefault(name, ModelMemory())
            joinings.append(shield.joining(self.config, Member(name, self.keys[name], self.roster, policy, memory)))
        self.shields |= zip(self.roster.names, introduce(joinings), strict=True)
        self.hellos = [joining.hello() for joining in joinings]
        return self

    def again(self, policy=None):
        """Returns a new session of the same parties, with their memories."""
        return Kit(self.config, self.roster, self.keys, self.memories).start(policy or Policy())

    def collector(self, number, manifest):
        coordinator = SharingCoordinator(self.config, self.roster, self.hellos, [])
        return coordinator.collector(View(0, self.owners), number, manifest)

    def expect(self, manifest, first=0, count=100):
        for adder in self.adders.values():
            adder.expect((range(first, first + count), manifest.words(len(self.owners))))

    def send(self, owner, context, contribution, to=None):
        for name, message in self.shields[owner].protect(context, contribution).items():
            if to is None or name in to:
                self.adders[name].add(owner, message)

    def agree(self, members):
        """Lets every compute party sign the same owners and hear of it."""
        signed = {name: adder.sign(members) for name, adder in self.adders.items()}
        for name, adder in self.adders.items():
            for other, message in signed.items():
                if other != name:
                    adder.hear(other, message)

    def open(self, number, manifest) -> Opened:
        collector = self.collector(number, manifest)
        for name, adder in self.adders.items():
            collector.add(name, adder.publish())
        return self.read(collector.open(), manifest)

    def read(self, opened, manifest) -> Opened:
        """Returns what a sum says."""
        return decode(self.config.encoding, self.config.contributors, manifest, opened)

    def round(self, context, contributions, members=None) -> Opened:
        """Runs one round in which all of these contribute."""
        for owner, contribution in contributions.items():
            self.send(owner, context, contribution)
        self.agree(members or list(contributions))
        return self.open(context.number, context.manifest)


def session(
    owners=3, computing=2, apart=0, *, encoding=None, policy=None, compress=True, shield=SharingShield, **roles
):
    """Returns a started session.

    Args:
        owners: How many contribute.
        computing: How many compute.
        apart: How many of the latter contribute nothing.
    """
    keys = identities(owners + apart)
    roster = roster_of(keys)
    names = roster.names
    receivers = [*names[owners:], *names[: computing - apart]]
    given = names[:owners] if apart else ()
    config = Config.propose(
        "sharing", roster, receivers, encoding or Encoding(), owners=given, compress=compress, **roles
    )
    return Kit(config, roster, keys).start(policy or Policy(), shield)


def with_policy(policy, **changes):
    return replace(policy, **changes)


def words_of(message_share):
    return np.frombuffer(message_share, "<u8")


MANIFEST = manifest_of(4, weighted=False)
ONES = plain_values(np.ones(4))


def ready(owners=4, computing=3, apart=0, number=0, **roles):
    """A session in which everybody has sent its shares of round `number`."""
    kit = session(owners, computing, apart, **roles)
    kit.expect(MANIFEST)
    for name in kit.owners:
        kit.send(name, context_of(number, MANIFEST), ONES)
    return kit


def message_of(kit, owner, receiver, number=0, settings=b""):
    return kit.shields[owner].protect(context_of(number, MANIFEST, settings=settings), ONES)[receiver]
