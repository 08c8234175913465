# SPDX-License-Identifier: Apache-2.0
"""Dealer: one party's sealed channels to the compute parties of an SPU, and the shares of its values that go through.

Knows a session's channel keys and how values are split. Does not know where shares are kept or how messages travel.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.handshake import Handshake, Introduced
from fedray.protocol.memory import ModelMemory
from fedray.protocol.messages import digest
from fedray.protocol.policy import Policy
from fedray.protocol.sharing.roles import Roles
from fedray.protocol.sharing.sealing import ShareHeader, header_of, seal, unseal
from fedray.protocol.spu.form import Form, Layout, encode
from fedray.protocol.spu.ring import Elements
from fedray.protocol.spu.secret import Secret, expand, held, split
from fedray.types import Key, Message, PartyName


class Dealer(Introduced):
    """One party's end of the channels: deals its own values, and receives others' where it is a compute party.

    Set-up is `hello`, `confirm`, `start`, as for a `Shield`.

    Attributes:
        place: The party's number among the compute parties; None where it is none.
    """

    def __init__(
        self,
        config: Config,
        name: PartyName,
        identity: Ed25519PrivateKey,
        roster: Roster,
        policy: Policy,
        memory: ModelMemory,
        layout: Layout,
    ) -> None:
        """Checks the Config against the party's policy and draws this session's secrets.

        Raises:
            ProtocolError: The Config is refused, or is not for part C.
        """
        self._roles = Roles.of(config, roster)
        self._handshake = Handshake(config, name, identity, roster, policy, memory)
        self._config, self._roster, self._layout = config, roster, layout
        self._index = roster.index(name)
        self.place = self._roles.nodes.index(self._index) if self._index in self._roles.nodes else None
        self._sending: dict[int, bytes] = {}
        self._receiving: dict[int, bytes] = {}
        self._count = 0
        self._lock = threading.Lock()

    def start(self, confirms: Sequence[bytes]) -> None:
        """Checks everybody's Confirm, in roster order; values may be dealt from here on."""
        keys, own = self._handshake.start(confirms), os.urandom(32)
        self._sending = {**keys.sending, self._index: own}
        self._receiving = {**keys.receiving, self._index: own}

    def deal(self, key: Key, value: Any, bound: float | None) -> tuple[Form, dict[PartyName, list[Message]]]:
        """Splits a value and returns its form and, for each compute party, the shares sealed for it.

        Args:
            key: What the value is called at the compute parties; a share is good for this name only.
            value: An array or number.
            bound: Largest absolute number in it; None for the layout's default.

        Raises:
            EncodingError: The value cannot be shared, or a number is not finite or beyond the bound.
        """
        form, elements = encode(self._layout, value, bound)
        home = self._roles.home(self._index)
        shares = split(self._layout, elements, home, self._config.compress)
        return form, {
            name: [self._seal(m, key, form, shares[j]) for j in self._layout.components(m)]
            for m, name in enumerate(self._config.receivers)
        }

    def receive(self, owner: PartyName, key: Key, form: Form, messages: Sequence[Message]) -> Secret:
        """Returns this compute party's shares of an owner's value.

        Raises:
            ProtocolError: They are not from this owner, not for this party, or for another value.
            EncodingError: They are no shares of a value of this form.
        """
        if self.place is None or len(messages) != len(self._layout.components(self.place)):
            raise ProtocolError(f"{owner}: {len(messages)} shares, which is not what this party holds of a value")
        return Secret(form, held(self._layout, [self._open(owner, key, form, m) for m in messages]))

    def _seal(self, node: int, key: Key, form: Form, share: bytes | Elements) -> NDArray[np.uint8]:
        with self._lock:  # a number is the nonce: it serves one message
            number, self._count = self._count, self._count + 1
        header = self._header(number, self._index, node, key, form, seed=isinstance(share, bytes))
        flat = share if isinstance(share, bytes) else np.ascontiguousarray(share).reshape(-1)
        return seal(self._sending[self._roles.nodes[node]], header, flat)

    def _open(self, owner: PartyName, key: Key, form: Form, message: Message) -> Elements:
        found, sender = header_of(message), self._roster.index(owner)
        expected = self._header(found.number, sender, self.place or 0, key, form, seed=found.form == "seed")
        if found != expected:
            raise ProtocolError(f"{owner}: a share of another session or value, or for another compute party")
        share, ring = unseal(self._receiving[sender], message), self._layout.ring
        if form.combine != "add":
            raise EncodingError(f"{owner}: only sums are dealt, found shares for {form.combine!r}")
        return expand(share, ring.zeros(form.shape)) if found.form == "seed" else ring.read(share, form.shape)

    def _header(self, number: int, owner: int, node: int, key: Key, form: Form, *, seed: bool) -> ShareHeader:
        ring = self._layout.ring
        size = int(np.prod(form.shape, dtype=np.int64)) * (2 if ring.wide else 1)
        ctx = digest("secret", key, form.encode())
        bits = ring.word.itemsize * 8
        return ShareHeader(self._handshake.sid, number, owner, node, ctx, size, bits, "seed" if seed else "words")
