# SPDX-License-Identifier: Apache-2.0
"""A vector of ring words as shares that add up to it.

Knows sums mod 2^32 and 2^64 and where randomness comes from. Does not know what the words mean or who gets a share.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from fedray.errors import PlanError
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.crypto.keystream import CHUNK_BYTES, Pad
from fedray.protocol.messages import Words
from fedray.protocol.sharing.sealing import SEED_BYTES


class Splitter(Guarded):
    """Takes `count` random shares from a vector in place, stretch by stretch; what is left of it is the last share.

    Attributes:
        shares: The random ones: seeds of 32 bytes whose keystreams they are, or words as many as the vector has.
    """

    def __init__(self, count: int, words: Words, compress: bool, entropy: Callable[[int], bytes] = os.urandom) -> None:
        """Draws the seeds, or makes room for the words.

        Args:
            count: How many random shares.
            words: uint32[L] or uint64[L], little-endian; changed by `take`.
            compress: Seeds, which hide under AES; otherwise words from `entropy`, which hide unconditionally.
            entropy: Source of randomness, bytes by count.

        Raises:
            PlanError: No random share is asked for: the one left would be the vector itself.
        """
        if count < 1:
            raise PlanError(f"a vector is split into at least two shares, found {count + 1}")
        self._words, self._entropy = words, entropy
        self.shares: list[bytes | Words]
        self._pad: Pad | None = None
        if compress:
            seeds = [entropy(SEED_BYTES) for _ in range(count)]
            self.shares, self._pad = list(seeds), Pad((), seeds)
        else:
            self.shares = [np.empty_like(words) for _ in range(count)]

    def take(self, start: int, stop: int) -> None:
        """Splits the words from `start` to before `stop`; stretches follow one another without a gap."""
        part = self._words[start:stop]
        if self._pad is not None:
            self._pad.apply(part)
            return
        for share in self.shares:
            if isinstance(share, np.ndarray):
                share[start:stop] = np.frombuffer(self._entropy(part.nbytes), part.dtype)
                np.subtract(part, share[start:stop], out=part)


def add_share(total: Words, share: bytes | Words) -> None:
    """Adds a share to a sum, in place.

    Args:
        total: uint32[L] or uint64[L], little-endian.
        share: A seed of 32 bytes, or as many words.
    """
    if isinstance(share, bytes):
        Pad([share], ()).apply(total)
    else:
        _each(np.add, total, share)


def remove_seed(total: Words, seed: bytes) -> None:
    """Takes the share that a seed stands for out of a sum, in place."""
    Pad((), [seed]).apply(total)


def _each(operation: Any, total: Words, other: Words) -> None:
    step = CHUNK_BYTES // total.itemsize
    for start in range(0, len(total), step):
        part = total[start : start + step]
        operation(part, other[start : start + step], out=part)


def words_of(share: bytes, bits: int) -> Words:
    """Returns the words that some bytes spell, uint32[L] or uint64[L]."""
    words: Words = np.frombuffer(share, f"<u{bits // 8}")
    return words
