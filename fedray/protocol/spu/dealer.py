# SPDX-License-Identifier: Apache-2.0
"""Dealer: one party's sealed channels to the compute parties of an SPU, and the shares of its values that go through.

Knows a session's channel keys and how values are split. Does not know where shares are kept or how messages travel.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.handshake import Handshake, SessionKeys
from fedray.protocol.member import Member
from fedray.protocol.messages import digest
from fedray.protocol.sharing.roles import Roles
from fedray.protocol.sharing.sealing import ShareHeader, header_of, seal, unseal
from fedray.protocol.spu.form import Form, Layout, encode
from fedray.protocol.spu.ring import Elements
from fedray.protocol.spu.secret import Secret, expand, held, split
from fedray.types import Key, Message, PartyName

MOST_NUMBERS = 1 << 26
"""Most numbers of a value that is dealt. A seed of 32 bytes stands for a share of any length, which takes memory."""


class Dealer(Guarded):
    """One party's end of the channels: deals its own values, and receives others' where it is a compute party.

    Attributes:
        number: The party's number among the compute parties; None where it is none.
    """

    def __init__(self, config: Config, member: Member, layout: Layout, keys: SessionKeys) -> None:
        """Begins with the channels to and from the compute parties.

        Args:
            config: Agreed settings.
            member: The party.
            layout: How the SPU's shares lie.
            keys: What set-up has agreed.

        Raises:
            ProtocolError: The Config is not for scheme sharing or does not fit the roster.
        """
        self._roles = Roles.of(config, member.roster)
        self._config, self._member, self._layout, self._sid = config, member, layout, keys.sid
        computing, own = self._roles.compute_parties, os.urandom(32)
        self.number = computing.index(member.index) if member.index in computing else None
        self._sending = {**keys.sending, member.index: own}
        self._receiving = {**keys.receiving, member.index: own}
        self._count = 0
        self._lock = threading.Lock()

    @classmethod
    def joining(cls, config: Config, member: Member, layout: Layout) -> Handshake[Dealer]:
        """Checks the Config against the party's roster and policy and begins set-up, which ends in this dealer.

        Args:
            config: What the driver proposes.
            member: The party.
            layout: How the SPU's shares lie.

        Raises:
            ProtocolError: The Config is refused, or is not for scheme sharing.
        """
        Roles.of(config, member.roster)
        return Handshake(config, member, partial(cls, config, member, layout))

    def deal(self, key: Key, value: Any, bound: float | None) -> tuple[Form, dict[PartyName, list[Message]]]:
        """Splits a value and returns its form and, for each compute party, the shares sealed for it.

        Args:
            key: What the value is called at the compute parties; a share is good for this name only.
            value: An array or number.
            bound: Largest absolute number in it; None for the layout's default.

        Raises:
            EncodingError: The value cannot be shared, or a number is not finite or beyond the bound.
        """
        _check_size(self._member.name, np.shape(value))
        form, elements = encode(self._layout, value, bound)
        home = self._roles.home(self._member.index)
        shares = split(self._layout, elements, home, self._config.compress)
        return form, {
            name: [self._seal(m, key, form, shares[j]) for j in self._layout.components(m)]
            for m, name in enumerate(self._config.receivers)
        }

    def receive(self, owner: PartyName, key: Key, form: Form, messages: Sequence[Message]) -> Secret:
        """Returns this compute party's shares of an owner's value.

        Args:
            owner: Who dealt it.
            key: What the value is called here.
            form: What its shares mean.
            messages: One sealed share for each that this party holds.

        Raises:
            ProtocolError: They are not from this owner, not for this party, or for another value.
            EncodingError: They are no shares of a value of this form.
        """
        if self.number is None or len(messages) != len(self._layout.components(self.number)):
            raise ProtocolError(f"{owner}: {len(messages)} shares, which is not what this party holds of a value")
        _check_size(owner, form.shape)
        return Secret(form, held(self._layout, [self._open(owner, key, form, m) for m in messages]))

    def _seal(self, receiver: int, key: Key, form: Form, share: bytes | Elements) -> NDArray[np.uint8]:
        with self._lock:  # a number is the nonce: it serves one message
            number, self._count = self._count, self._count + 1
        header = self._header(number, self._member.index, receiver, key, form, seed=isinstance(share, bytes))
        flat = share if isinstance(share, bytes) else np.ascontiguousarray(share).reshape(-1)
        return seal(self._sending[self._roles.compute_parties[receiver]], header, flat)

    def _open(self, owner: PartyName, key: Key, form: Form, message: Message) -> Elements:
        found, sender = header_of(message), self._member.roster.index(owner)
        expected = self._header(found.number, sender, self.number or 0, key, form, seed=found.form == "seed")
        # Every field: a share replayed for another value, form or party has another header.
        if found != expected:
            raise ProtocolError(f"{owner}: a share of another session or value, or for another compute party")
        share, ring = unseal(self._receiving[sender], message), self._layout.ring
        if form.combine != "add":
            raise EncodingError(f"{owner}: only sums are dealt, found shares for {form.combine!r}")
        return expand(share, ring.zeros(form.shape)) if found.form == "seed" else ring.read(share, form.shape)

    def _header(self, number: int, owner: int, receiver: int, key: Key, form: Form, *, seed: bool) -> ShareHeader:
        ring = self._layout.ring
        size = int(np.prod(form.shape, dtype=np.int64)) * (2 if ring.wide else 1)
        ctx = digest("secret", key, form.encode())
        bits = ring.word.itemsize * 8
        return ShareHeader(self._sid, number, owner, receiver, ctx, size, bits, "seed" if seed else "bare")


def _check_size(owner: PartyName, shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    if size > MOST_NUMBERS:
        raise EncodingError(
            f"{owner}: a value that is shared has at most {MOST_NUMBERS} numbers, found {size}; share it in parts"
        )
