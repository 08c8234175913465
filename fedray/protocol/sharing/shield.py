# SPDX-License-Identifier: Apache-2.0
"""Part C, the owner's end: one sealed share for every compute party, and no more to do.

Knows a party's session and the order of its rounds. Does not know how messages travel, what time it is, or what the
numbers mean. A compute party's shield also makes its `ShareAdder`. Not safe for use from several threads at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.crypto.keystream import CHUNK_BYTES
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.handshake import Handshake, Introduced
from fedray.protocol.masking.rounds import MOST_STEPS, context_hash
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import Contribution, RoundContext, View
from fedray.protocol.sharing.adder import ShareAdder
from fedray.protocol.sharing.agreement import Proof
from fedray.protocol.sharing.roles import Roles, names_of
from fedray.protocol.sharing.sealing import ShareForm, ShareHeader, seal
from fedray.protocol.sharing.split import Splitter
from fedray.types import Message, PartyName, Round


class SharingShield(Introduced):
    """The contributing party's end of part C.

    Attributes:
        node: This party's end as a compute party, after `start`; None where it is none.
        clipped: Share of the last contribution's values that were beyond the clip bound, 0 to 1.
    """

    def __init__(
        self,
        config: Config,
        name: PartyName,
        identity: Ed25519PrivateKey,
        roster: Roster,
        policy: Policy,
        memory: ModelMemory,
        *,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Checks the Config against the policy and draws this session's secrets.

        Args:
            config: What the coordinator proposes.
            name: The party's own name.
            identity: Its identity key.
            roster: Its own copy of the roster: owners and compute parties.
            policy: What it accepts.
            memory: The process's memory of models, the same object for all its shields.
            entropy: Source of shares and seeds, bytes by count.

        Raises:
            ProtocolError: The Config is refused, or is not for part C.
        """
        self._roles = Roles.of(config, roster)
        self._handshake = Handshake(config, name, identity, roster, policy, memory)
        self._config, self._name, self._roster, self._policy = config, name, roster, policy
        self._identity, self._memory, self._entropy = identity, memory, entropy
        self._index = roster.index(name)
        self._channels: Mapping[int, bytes] | None = None
        self._next: Round = 0
        self._sent: tuple[Round, bytes] | None = None
        self._messages: dict[PartyName, Message] = {}
        self.node: ShareAdder | None = None
        self.clipped = 0.0

    def __repr__(self) -> str:
        """Shows the party and the round, nothing secret."""
        state = f"round {self._next}" if self._channels is not None else "not started"
        return f"<SharingShield of {self._name}: {state}>"

    def start(self, confirms: Sequence[bytes]) -> None:
        """Checks everybody's Confirm, in roster order; the session's rounds may begin.

        Raises:
            ProtocolError: A Confirm is wrong.
        """
        keys = self._handshake.start(confirms)
        own = os.urandom(32)  # of the channel from this party's owner end to its compute end
        self._channels = {**keys.sending, self._index: own}
        if self._index in self._roles.nodes:
            receiving = {**keys.receiving, self._index: own}
            self.node = ShareAdder(self._config, self._name, self._identity, self._roster, keys.sid, receiving)
        keys.roots = {}

    def join(self, view: View) -> None:
        """Accepts all owners only: whose inputs a round opens is agreed among the compute parties.

        Raises:
            ProtocolError: The view is another one.
        """
        owners = names_of(self._roles.owners, self._roster)
        if view.members != owners:
            raise self._fault(f"shared sums have one view, all owners {owners}, found {view.members}")

    def protect(self, context: RoundContext, contribution: Contribution) -> Mapping[PartyName, Message]:
        """Returns one message per compute party, the long one last; a repeated request gets the identical bytes.

        Raises:
            ProtocolError: This party owns no input, the round is over or too far ahead, or the model may not be used.
            EncodingError: The contribution cannot be encoded; the round is given up.
        """
        ctx = context_hash(self._config, self._handshake.sid, b"", context)
        if context.number < self._next:
            return self._again(context.number, ctx)
        self._admit(context)
        self._next = context.number + 1  # whatever happens, no second input for this round
        self._sent, self._messages = None, {}
        messages = self._split(context, ctx, contribution)
        self._memory.record(self._handshake.sid, context.model, context.purpose, self._members)
        self._sent, self._messages = (context.number, ctx), messages
        return dict(messages)

    def verify(self, proof: bytes) -> tuple[PartyName, ...]:
        """Returns whose inputs the last round opened, as all compute parties signed it.

        What the round changed locally may be kept only after this: the inputs of others were computed on the same
        model, settings and manifest, and this party's own one is among them.

        Raises:
            ProtocolError: A signature is missing, or it is for another round, another context, or without this party.
        """
        found = Proof.decode(proof)
        agreed = found.agreement
        found.check([self._roster.keys[i] for i in self._roles.nodes])
        if agreed.sid != self._handshake.sid or (agreed.number, agreed.ctx) != self._sent:
            raise self._fault(f"the compute parties agreed on another round or context than this party's {self._sent}")
        self._roles.check_members(agreed.members, self._roster)
        if self._index not in agreed.members:
            raise self._fault(f"round {agreed.number} was opened without its input; what the round changed is put back")
        return names_of(agreed.members, self._roster)

    def reply(self, broadcast: bytes) -> bytes:
        """Refuses: one exchange is all.

        Raises:
            ProtocolError: Always.
        """
        raise self._fault(f"shared sums have one exchange a round, found a further one of {len(broadcast)} bytes")

    def drop_cache(self) -> None:
        """Forgets the last messages; a repeated request is then refused."""
        self._messages = {}

    @property
    def _members(self) -> tuple[PartyName, ...]:
        return names_of(self._roles.owners, self._roster)

    def _again(self, number: Round, ctx: bytes) -> Mapping[PartyName, Message]:
        if self._sent == (number, ctx) and self._messages:
            return dict(self._messages)
        raise self._fault(
            f"round {number} is over: one input is sent per round, and the next round is {self._next} or later"
        )

    def _admit(self, context: RoundContext) -> None:
        if self._channels is None:
            raise self._fault("set-up is not finished")
        if self._index not in self._roles.owners:
            raise self._fault(f"it only computes: the inputs of this session are owned by {self._members}")
        if context.number - self._next >= MOST_STEPS:
            raise self._fault(f"round {context.number} is more than {MOST_STEPS} ahead of round {self._next}")
        limit = self._policy.rounds_for(context.purpose)
        sid, others = self._handshake.sid, self._policy.allow_other_members
        try:
            self._memory.check(sid, context.model, context.purpose, self._members, limit, allow_other_members=others)
        except ProtocolError as error:
            raise self._fault(str(error)) from None

    def _split(self, context: RoundContext, ctx: bytes, contribution: Contribution) -> dict[PartyName, Message]:
        """Encodes and splits stretch by stretch while it is in cache, and seals."""
        config, manifest, roles = self._config, context.manifest, self._roles
        encoder = Encoder(
            config.encoding,
            config.contributors,
            manifest,
            contribution,
            owner=self._name,
            refuse_overflow=self._policy.refuse_overflow,
        )
        bits, home = config.encoding.ring, roles.home(self._index)
        words: NDArray[Any] = np.empty(manifest.words, f"<u{bits // 8}")
        splitter = Splitter(len(roles.nodes) - 1, words, config.compress, self._entropy)
        step = CHUNK_BYTES // words.itemsize
        for start in range(0, len(words), step):
            encoder.encode(words[start : start + step], start)
            splitter.take(start, start + step)
        self.clipped = encoder.clipped / manifest.size if manifest.size else 0.0
        others = [m for m in range(len(roles.nodes)) if m != home]
        messages: dict[PartyName, Message] = {}
        # The long share leaves last: whoever ends half-way has sent seeds only, which nodes can take out of their sums.
        for m, share in zip([*others, home], [*splitter.shares, words], strict=True):
            form: ShareForm = "seed" if isinstance(share, bytes) else "words"
            place = (self._handshake.sid, context.number, self._index, m, ctx)
            header = ShareHeader(*place, len(words), bits, form)
            messages[config.receivers[m]] = seal(self._channel(roles.nodes[m]), header, share)
        return messages

    def _channel(self, node: int) -> bytes:
        if self._channels is None:
            raise self._fault("set-up is not finished")
        return self._channels[node]

    def _fault(self, message: str) -> ProtocolError:
        return ProtocolError(f"{self._name}: {message}")
