# SPDX-License-Identifier: Apache-2.0
"""Sessions of part C in one process, for the tests."""

from dataclasses import dataclass, field, replace

import numpy as np
from pure.masking_kit import context_of, identities, manifest_of, plain_values, roster_of

from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.handshake import introduce
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import Opened, View
from fedray.protocol.sharing import SharingCoordinator, SharingShield


@dataclass
class Kit:
    """One session: `shields` of all parties and `nodes` of the compute parties, by name."""

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
    def nodes(self):
        return {name: self.shields[name].node for name in self.config.receivers}

    def start(self, policy, shield=SharingShield):
        for name in self.roster.names:
            memory = self.memories.setdefault(name, ModelMemory())
            self.shields[name] = shield(self.config, name, self.keys[name], self.roster, policy, memory)
        introduce([self.shields[name] for name in self.roster.names])
        self.hellos = [self.shields[name].hello() for name in self.roster.names]
        return self

    def again(self, policy=None):
        """Returns a new session of the same parties, with their memories."""
        return Kit(self.config, self.roster, self.keys, self.memories).start(policy or Policy())

    def collector(self, number, manifest):
        coordinator = SharingCoordinator(self.config, self.roster, self.hellos, [])
        return coordinator.collector(View(0, self.owners), number, manifest)

    def expect(self, manifest, first=0, count=100):
        for node in self.nodes.values():
            node.expect((range(first, first + count), manifest.words))

    def send(self, owner, context, contribution, to=None):
        for name, message in self.shields[owner].protect(context, contribution).items():
            if to is None or name in to:
                self.nodes[name].add(owner, message)

    def agree(self, members):
        """Lets every compute party sign the same owners and hear of it."""
        signed = {name: node.sign(members) for name, node in self.nodes.items()}
        for name, node in self.nodes.items():
            for other, message in signed.items():
                if other != name:
                    node.hear(other, message)

    def open(self, number, manifest) -> Opened:
        collector = self.collector(number, manifest)
        for name, node in self.nodes.items():
            collector.add(name, node.publish())
        return collector.open()

    def round(self, context, contributions, members=None) -> Opened:
        """Runs one round in which all of these contribute."""
        for owner, contribution in contributions.items():
            self.send(owner, context, contribution)
        self.agree(members or list(contributions))
        return self.open(context.number, context.manifest)


def session(owners=3, nodes=2, apart=0, *, encoding=None, policy=None, compress=True, shield=SharingShield, **roles):
    """Returns a started session.

    Args:
        owners: How many contribute.
        nodes: How many compute.
        apart: How many of the latter contribute nothing.
    """
    keys = identities(owners + apart)
    roster = roster_of(keys)
    names = roster.names
    receivers = [*names[owners:], *names[: nodes - apart]]
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


def ready(owners=4, nodes=3, apart=0, number=0, **roles):
    """A session in which everybody has sent its shares of round `number`."""
    kit = session(owners, nodes, apart, **roles)
    kit.expect(MANIFEST)
    for name in kit.owners:
        kit.send(name, context_of(number, MANIFEST), ONES)
    return kit


def message_of(kit, owner, node, number=0, settings=b""):
    return kit.shields[owner].protect(context_of(number, MANIFEST, settings=settings), ONES)[node]
