# SPDX-License-Identifier: Apache-2.0
"""A vector of ring words as shares that add up to it.

Knows sums mod 2^32 and 2^64 and where randomness comes from. Does not know what the words mean or who gets a share.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from fedray.errors import PlanError
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.crypto.keystream import Pad
from fedray.protocol.messages import Words
from fedray.protocol.pipeline import run
from fedray.protocol.sharing.sealing import SEED_BYTES


class Splitter(Guarded):
    """Takes random shares from a vector in place, stretch by stretch; what is left of it is the last share.

    Attributes:
        shares: The random ones: seeds of 32 bytes whose keystreams they are, or words as many as the vector has.
    """

    def __init__(self, count: int, words: Words, compress: bool, entropy: Callable[[int], bytes] = os.urandom) -> None:
        """Draws the seeds, or makes room for the words.

        Args:
            count: How many random shares.
            words: uint32[L] or uint64[L], little-endian: the vector, for its length and type.
            compress: Seeds, which hide under AES; otherwise words from `entropy`, which hide unconditionally.
            entropy: Source of randomness, bytes by count.

        Raises:
            PlanError: No random share is asked for: the one left would be the vector itself.
        """
        if count < 1:
            raise PlanError(f"a vector is split into at least two shares, found {count + 1}")
        self._entropy = entropy
        self.shares: list[bytes | Words]
        self._pad: Pad | None = None
        if compress:
            # One keystream per seed, all taken away in one pass over the stretch.
            seeds = [entropy(SEED_BYTES) for _ in range(count)]
            self.shares, self._pad = list(seeds), Pad((), seeds)
        else:
            self.shares = [np.empty_like(words) for _ in range(count)]

    def take(self, words: Words, start: int) -> None:
        """Takes the random shares from one stretch, in place: a stage of a pipeline.

        Args:
            words: uint32[m] or uint64[m]: the next m words of the vector.
            start: Place of the first one.
        """
        if self._pad is not None:
            self._pad.apply(words, start)
            return
        for share in self.shares:
            if isinstance(share, np.ndarray):
                random = share[start : start + len(words)]
                random[:] = np.frombuffer(self._entropy(words.nbytes), words.dtype)
                np.subtract(words, random, out=words)


def add_share(total: Words, share: bytes | Words) -> None:
    """Adds a share to a sum, in place.

    Args:
        total: uint32[L] or uint64[L], little-endian.
        share: A seed of 32 bytes, or as many words.
    """
    if isinstance(share, bytes):
        run(total, Pad([share], ()).apply)
    else:

        def add(part: Words, start: int) -> None:
            np.add(part, share[start : start + len(part)], out=part)

        run(total, add)


def remove_seed(total: Words, seed: bytes) -> None:
    """Takes the share that a seed stands for out of a sum, in place."""
    run(total, Pad((), [seed]).apply)


def words_of(share: bytes, bits: int) -> Words:
    """Returns the words that some bytes spell, uint32[L] or uint64[L]."""
    words: Words = np.frombuffer(share, f"<u{bits // 8}")
    return words
