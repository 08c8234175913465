# SPDX-License-Identifier: Apache-2.0
"""V2: the keys that a party shares with each other member of its view, and the pad of one round that they make.

Knows how keys step from round to round. Does not know which round a party may still contribute to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Guarded, kdf
from fedray.protocol.crypto.keystream import Pad
from fedray.protocol.messages import enc
from fedray.types import Round


class PairKeys(Guarded):
    """One party's pair keys of the next round; those of earlier rounds cannot be computed from them.

    Attributes:
        next: The round whose keys these are.
    """

    def __init__(self, sid: bytes, index: int, roots: Mapping[int, bytes]) -> None:
        """Begins with the keys of round 0.

        Args:
            sid: Session id.
            index: The party's own place in the roster.
            roots: Per other place, the secret that both ends share.
        """
        self.next: Round = 0
        self._sid, self._index, self._keys = sid, index, dict(roots)

    def keep(self, members: Collection[int]) -> None:
        """Forgets the keys shared with everybody who is not among these places."""
        self._keys = {j: key for j, key in self._keys.items() if j in members}

    def pad(self, vid: bytes, number: Round, ctx: bytes, size: int, bits: int) -> Pad:
        """Returns what hides one party's words of one round; the lower place adds what the higher one takes away.

        Args:
            vid: Id of the view.
            number: The round.
            ctx: Hash of all that the input depends on.
            size: Words L of the vector.
            bits: Bits l of a word.

        Raises:
            ProtocolError: The keys of the round are gone.
        """
        if number < self.next:
            raise ProtocolError(f"the keys of round {number} are gone")
        self.step_to(number)
        own = self._index
        # All that the words depend on is in the key: who was told something else has another pad, and nothing cancels.
        infos = {j: enc("viewpair", vid, number, min(own, j), max(own, j), ctx, size, bits) for j in self._keys}
        keys = {j: kdf(key, self._sid, infos[j]) for j, key in self._keys.items()}
        return Pad([key for j, key in keys.items() if j > own], [key for j, key in keys.items() if j < own])

    def step_to(self, number: Round) -> None:
        """Steps all keys forward to a round; there is no way back."""
        for at in range(self.next, number):
            # By the round alone: both ends get here whatever they did in the rounds between.
            info = enc("ratchet", at)
            self._keys = {j: kdf(key, self._sid, info) for j, key in self._keys.items()}
        self.next = max(self.next, number)
