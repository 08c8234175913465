# SPDX-License-Identifier: Apache-2.0
"""A vector of ring words and its check as shares that add up to them.

Knows sums mod 2^32, 2^64 and p, and where randomness comes from. Does not know what the words mean or who gets a share.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from fedray.errors import EncodingError, PlanError
from fedray.protocol.crypto.field import ELEMENT_BYTES, PRIME, element
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.crypto.keystream import Pad
from fedray.protocol.messages import CHECK_BYTES, Words, put_check
from fedray.protocol.pipeline import run
from fedray.protocol.sharing.sealing import SEED_BYTES


class Splitter(Guarded):
    """Takes random shares from a vector in place, stretch by stretch; what is left of it is the last share.

    Attributes:
        shares: The random ones: seeds of 32 bytes whose keystreams they are, or words as many as the vector has, with
            room for a check.
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
        self.shares: list[bytes | Blank]
        self._pad: Pad | None = None
        if compress:
            # One keystream per seed, all taken away in one pass over the stretch.
            seeds = [entropy(SEED_BYTES) for _ in range(count)]
            self.shares, self._pad = list(seeds), Pad((), seeds)
        else:
            self.shares = [Blank(len(words), words.itemsize * 8) for _ in range(count)]

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
            if isinstance(share, Blank):
                random = share.words[start : start + len(words)]
                random[:] = np.frombuffer(self._entropy(words.nbytes), words.dtype)
                np.subtract(words, random, out=words)

    def cover(self, check: int) -> int:
        """Takes the random shares of the check from it, and returns what is left; see `take`, which is over."""
        if self._pad is not None:
            return self._pad.cover(check)
        for share in self.shares:
            if isinstance(share, Blank):
                random = element(self._entropy(ELEMENT_BYTES))
                put_check(share.data, random)
                check -= random
        return check % PRIME


class Blank(Guarded):
    """Memory for a share that is written out.

    Attributes:
        data: uint8[n], the words and behind them 8 bytes for the check.
        words: uint32[L] or uint64[L], little-endian; a view into `data`.
    """

    def __init__(self, size: int, bits: int) -> None:
        """Takes new memory for so many words of so many bits."""
        payload = size * bits // 8
        self.data = np.empty(payload + CHECK_BYTES, np.uint8)
        self.words: Words = self.data[:payload].view(f"<u{bits // 8}")


def add_share(total: Words, share: bytes | tuple[Words, int]) -> int:
    """Adds a share to a sum, in place, and returns the share of the check.

    Args:
        total: uint32[L] or uint64[L], little-endian.
        share: A seed of 32 bytes, or as many words with the share of the check.
    """
    if isinstance(share, bytes):
        pad = Pad([share], ())
        run(total, pad.apply)
        return pad.cover(0)
    words, check = share

    def add(part: Words, start: int) -> None:
        np.add(part, words[start : start + len(part)], out=part)

    run(total, add)
    return check


def remove_seed(total: Words, seed: bytes) -> int:
    """Takes the share that a seed stands for out of a sum, in place; returns what takes it out of the check's sum."""
    pad = Pad((), [seed])
    run(total, pad.apply)
    return pad.cover(0)


def words_of(share: bytes, bits: int) -> tuple[Words, int]:
    """Returns the words that some bytes spell, uint32[L] or uint64[L], and the share of the check behind them.

    Raises:
        EncodingError: The check is no number below 2^61 - 1.
    """
    check = int.from_bytes(share[-CHECK_BYTES:], "big")
    if check >= PRIME:
        raise EncodingError("share: expected a share of the check below 2^61 - 1 behind the words")
    words: Words = np.frombuffer(share, f"<u{bits // 8}", (len(share) - CHECK_BYTES) * 8 // bits)
    return words, check
