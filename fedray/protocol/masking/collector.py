# SPDX-License-Identifier: Apache-2.0
"""V4: adds one vector from each member of a view and opens the sum; for masked and for plain vectors alike.

Knows the frames of one round and their sum. Keeps no vector, and knows no key of a party: what was masked stays so
until the last one is added.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.buffers import BufferPool
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.manifest import Manifest
from fedray.protocol.masking.frame import Masked
from fedray.protocol.masking.rounds import view_id
from fedray.protocol.messages import Words
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scheme import View
from fedray.types import Message, PartyName, Round

ADD_BYTES = 1 << 20
"""Bytes of a vector added at a time: read once from memory, then summed and added while they are in cache."""


class ViewCollector:
    """The summing end of one round of one view."""

    def __init__(
        self, config: Config, view: View, number: Round, manifest: Manifest, memory: BufferPool | None = None
    ) -> None:
        """Prepares an empty sum.

        Args:
            config: Agreed settings.
            view: Whose vectors are awaited.
            number: The round.
            manifest: What the words mean.
            memory: What the sum's memory is taken from, the same from round to round.

        Raises:
            ProtocolError: The view has too few members.
        """
        if len(view.members) < config.least_members:
            raise ProtocolError(f"a view of {len(view.members)} parties is too small, {config.least_members} required")
        self._config, self._view, self._number = config, view, number
        self._size = manifest.words(config.contributors)
        self._headers: dict[PartyName, tuple[bytes, bytes, int, bytes]] = {}
        self._sums: dict[PartyName, tuple[int | None, ...]] = {}
        self._memory = memory or BufferPool()
        self._total: Words | None = None
        self._check = 0

    def add(self, sender: PartyName, message: Message) -> None:
        """Adds one member's vector; the same one again is ignored.

        Raises:
            ProtocolError: The sender is no member, the message does not fit the round, or it differs from the sender's
                first one. The sum is unchanged.
        """
        if sender not in self._view.members:
            raise ProtocolError(f"{sender} is not in view {self._view.counter} of {self._view.members}")
        masked = Masked.decode(message)
        config, words, bits = self._config, masked.words, self._config.encoding.ring
        if masked.number != self._number or len(words) != self._size or words.itemsize * 8 != bits:
            raise ProtocolError(
                f"{sender}: expected round {self._number} with {self._size} words of {bits} bits, found "
                f"round {masked.number} with {len(words)} of {words.itemsize * 8}"
            )
        if (masked.check is None) != (config.scheme == "plain"):
            raise ProtocolError(f"{sender}: expected words with{'out' if config.scheme == 'plain' else ''} a check")
        # Checked before it is added: a sum cannot be taken back, and half a vector would spoil it.
        known = self._sums.get(sender)
        if known is not None:
            if known != (masked.check, *self._take(words, add=False)):
                raise ProtocolError(f"{sender}: a second, different vector for round {self._number}")
            return
        self._headers[sender] = (masked.sid, masked.vid, masked.index, masked.ctx)
        self._sums[sender] = (masked.check, *self._take(words, add=True))
        self._check = (self._check + (masked.check or 0)) % PRIME

    def missing(self) -> frozenset[PartyName]:
        """Returns whose vector is still awaited."""
        return frozenset(self._view.members) - frozenset(self._sums)

    def sufficient(self) -> bool:
        """Returns whether all vectors are in: the sum of a view needs every one."""
        return not self.missing()

    def advance(self) -> bytes | None:
        """Returns None: one exchange is all."""
        return None

    def open(self) -> OpenedSum:
        """Returns the sum, once all vectors are in; it is handed out once.

        Raises:
            ProtocolError: A vector is missing, the vectors do not belong together, or the sum was opened before.
                Nothing is published.
        """
        if self.missing():
            raise ProtocolError(f"round {self._number}: no vector yet from {sorted(self.missing())}")
        self._check_headers()
        total, self._total = self._total, None
        if total is None:
            raise ProtocolError(f"round {self._number}: its sum was opened before")
        opened = OpenedSum(total, self._view.members, None if self._config.scheme == "plain" else self._check)
        opened.check_count()
        return opened

    def _check_headers(self) -> None:
        """Names who was told something else than the others, before the check word says that someone was."""
        for place, what in ((0, "session"), (1, "view"), (3, "model, settings or history")):
            found = {name: header[place] for name, header in self._headers.items()}
            if len(set(found.values())) > 1:
                usual, _ = Counter(found.values()).most_common(1)[0]
                others = sorted(name for name, value in found.items() if value != usual)
                raise ProtocolError(
                    f"round {self._number}: {', '.join(others)} took part with another {what} than the other parties; "
                    "nothing is published"
                )
        # The headers all agree by now; whether they speak of *this* view only its id can tell.
        indices = tuple(self._headers[name][2] for name in self._view.members)
        sid, vid = self._headers[self._view.members[0]][:2]
        if list(indices) != sorted(set(indices)) or vid != view_id(sid, self._view.counter, indices):
            raise ProtocolError(f"round {self._number}: the vectors belong to another view than {self._view.members}")

    def _take(self, words: Words, *, add: bool) -> tuple[int, ...]:
        """Returns the sums of the vector's chunks, and adds it to the total while a chunk is in cache.

        The sums tell a party's second, different vector from a repeated one. They are no hash: who makes two vectors
        with equal sums has its second one ignored, as it would be anyway.
        """
        step, first = ADD_BYTES // words.itemsize, self._total is None
        if add and first:
            self._total = self._memory.take(words.nbytes).view(words.dtype)
        sums = []
        for start in range(0, len(words), step):
            part = words[start : start + step]
            sums.append(int(np.add.reduce(part, dtype=part.dtype)))
            if add and self._total is not None:
                place = self._total[start : start + step]
                np.add(part, 0 if first else place, out=place)
        return tuple(sums)
