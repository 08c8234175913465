# SPDX-License-Identifier: Apache-2.0
"""Part A: a masked sum in one exchange, over a view that may shrink.

Knows a party's session keys and what it may mask with them. Does not know how messages travel, what time it is, or what
the numbers mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster, kdf
from fedray.protocol.crypto.keystream import Pad
from fedray.protocol.handshake import Handshake, Introduced, SessionKeys
from fedray.protocol.masking.frame import RingShield
from fedray.protocol.masking.rounds import Rounds
from fedray.protocol.memory import ModelMemory
from fedray.protocol.messages import enc
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import Manifest, RoundContext, View
from fedray.types import PartyName, Round


class MaskingShield(Introduced, RingShield):
    """The contributing party's end of part A."""

    def __init__(
        self,
        config: Config,
        name: PartyName,
        identity: Ed25519PrivateKey,
        roster: Roster,
        policy: Policy,
        memory: ModelMemory,
    ) -> None:
        """Checks the Config against the policy and draws this session's secrets.

        Args:
            config: What the coordinator proposes.
            name: The party's own name.
            identity: Its identity key.
            roster: Its own copy of the roster.
            policy: What it accepts.
            memory: The process's memory of models, the same object for all its shields.

        Raises:
            ProtocolError: The Config is refused, or is not for part A.
        """
        if config.scheme != "masking":
            raise ProtocolError(f"{name}: expected a Config for scheme 'masking', found {config.scheme!r}")
        super().__init__(config, name, roster, refuse_overflow=policy.refuse_overflow)
        self._handshake = Handshake(config, name, identity, roster, policy, memory)
        self._policy, self._memory = policy, memory
        self._roots: dict[int, bytes] = {}
        self._at: Round = 0

    def start(self, confirms: Sequence[bytes]) -> None:
        """Checks everybody's Confirm, in roster order; the session begins in view 0, the whole roster.

        Raises:
            ProtocolError: A Confirm is wrong.
        """
        keys: SessionKeys = self._handshake.start(confirms)
        self._roots = keys.roots
        self._rounds = Rounds(self._config, self._name, self._roster, keys.sid, self._policy.views)

    def join(self, view: View) -> None:
        """Moves to a smaller view and forgets the keys shared with whom it leaves behind.

        Raises:
            ProtocolError: V1 forbids it.
        """
        super().join(view)
        members = set(self.rounds.members)
        self._roots = {j: root for j, root in self._roots.items() if j in members}

    @property
    def _sid(self) -> bytes:
        return self._handshake.sid

    def _check(self, context: RoundContext) -> None:
        if context.number < self._at:
            raise ProtocolError(f"{self._name}: the keys of round {context.number} are gone")
        limit = self._policy.rounds_for(context.purpose)
        members, others = self.view.members, self._policy.allow_other_members
        try:
            self._memory.check(self._sid, context.model, context.purpose, members, limit, allow_other_members=others)
        except ProtocolError as error:
            raise ProtocolError(f"{self._name}: {error}") from None

    def _record(self, context: RoundContext) -> None:
        self._memory.record(self._sid, context.model, context.purpose, self.view.members)

    def _pad(self, number: Round, ctx: bytes, manifest: Manifest) -> Pad:
        self._step_to(number)
        vid, size, bits, own = self.rounds.vid, manifest.words, self._config.encoding.ring, self._index
        keys = {
            j: kdf(root, self._sid, enc("viewpair", vid, number, min(own, j), max(own, j), ctx, size, bits))
            for j, root in self._roots.items()
        }
        return Pad([k for j, k in keys.items() if j > own], [k for j, k in keys.items() if j < own])

    def _close(self, number: Round) -> None:
        self._step_to(number + 1)

    def _step_to(self, number: Round) -> None:
        """Steps all pair keys forward; there is no way back."""
        for at in range(self._at, number):
            info = enc("ratchet", at)
            self._roots = {j: kdf(root, self._sid, info) for j, root in self._roots.items()}
        self._at = max(self._at, number)
