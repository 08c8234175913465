# SPDX-License-Identifier: Apache-2.0
"""One round at one compute party, while it lasts: sums per context, and what was signed.

Knows shares that were opened already. Does not know keys, names or rules about who may be summed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from fedray.errors import ProtocolError
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.messages import Words
from fedray.protocol.sharing.agreement import Agreement
from fedray.protocol.sharing.split import add_share, remove_seed
from fedray.types import Round


class Pile(Guarded):
    """The shares of all owners that computed on one context: their sum, and nothing of a long share.

    Attributes:
        total: uint32[L] or uint64[L].
        check: The sum of the shares of their checks, mod p.
        seeds: Owner's place -> its seed, or None where the share was long: that one cannot be taken out again.
        repeats: The round whose inputs they are once more; None for a round of its own.
    """

    def __init__(self, size: int, bits: int, repeats: Round | None) -> None:
        """Begins without a share.

        Args:
            size: Words of the vector.
            bits: Bits of a word.
            repeats: As in the attributes.
        """
        self.repeats = repeats
        self.total: Words = np.zeros(size, f"<u{bits // 8}")
        self.check = 0
        self.seeds: dict[int, bytes | None] = {}

    def add(self, owner: int, share: bytes | tuple[Words, int]) -> None:
        """Adds an owner's share."""
        self.check = (self.check + add_share(self.total, share)) % PRIME
        self.seeds[owner] = share if isinstance(share, bytes) else None

    def keep(self, members: Collection[int]) -> None:
        """Takes out everybody else's share.

        Raises:
            ProtocolError: One of them was long and is part of the sum for good.
        """
        # All are looked at before one is taken out: a refusal leaves the sum as it was.
        others = [owner for owner in self.seeds if owner not in members]
        for owner in others:
            seed = self.seeds[owner]
            if seed is None:
                raise ProtocolError(f"the share of the owner in place {owner} cannot be taken out of the sum again")
        for owner in others:
            seed = self.seeds.pop(owner)
            if seed is not None:
                self.check = (self.check + remove_seed(self.total, seed)) % PRIME


@dataclass(slots=True)
class RoundSums:
    """One round.

    Attributes:
        number: The round.
        piles: Context -> shares computed on it. Honest owners that were told the same are in one pile.
        digests: Owner's place -> SHA-256 of its message; one message per owner.
        signed: What this compute party has signed, for good.
        heard: Compute party -> (what it signed, its signature).
        whole: Places of the owners that allow a sum over all owners only.
    """

    number: Round
    piles: dict[bytes, Pile] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    signed: Agreement | None = None
    heard: dict[int, tuple[Agreement, bytes]] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)

    def largest(self) -> tuple[bytes, tuple[int, ...]]:
        """Returns the context that most owners computed on, and these owners; nobody where no share has come."""
        best = max(self.piles, key=lambda ctx: len(self.piles[ctx].seeds), default=b"")
        return best, tuple(sorted(self.piles[best].seeds)) if best else ()
