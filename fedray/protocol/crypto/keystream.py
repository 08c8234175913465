# SPDX-License-Identifier: Apache-2.0
"""Keystreams added to, and taken from, a vector of ring words, in place, and the check that goes with it.

Knows AES-256 in counter mode and how to keep the work in cache. Does not know rounds or parties; whoever calls makes
sure that a key is used for one stream only.

The stream of a key is counter mode with the first block 00000000 00000000 00000000 00000002. That is also what GCM adds
to zeros under a zero nonce, so the faster of the two is taken; which one that is depends on the processor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedray.errors import EncodingError
from fedray.protocol.crypto.field import ELEMENT_BYTES, PRIME, element
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.messages import Words

CHUNK_BYTES = 1 << 18
"""Bytes worked on at a time: the words, their scratch and the keystream stay in a core's cache together."""

MOST_BITS = 1 << 38
"""Bits of keystream under one key: within what one nonce of GCM is good for."""

_ZEROS = bytes(CHUNK_BYTES)
_SLACK = 16  # `update_into` wants room for one more block than it writes


def _counter_mode(key: bytes) -> Any:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(15) + b"\x02")).encryptor()


def _galois_mode(key: bytes) -> Any:
    return Cipher(algorithms.AES(key), modes.GCM(bytes(12))).encryptor()


CIPHERS: dict[str, Callable[[bytes], Any]] = {"ctr": _counter_mode, "gcm": _galois_mode}


def fastest() -> str:
    """Returns the name of the cipher that makes keystream faster here, after a measurement of about a millisecond."""
    # Measured, not guessed: which of the two is faster depends on what the processor has in hardware.
    target = bytearray(CHUNK_BYTES + _SLACK)
    times = {}
    for name, make in CIPHERS.items():
        stream = make(os.urandom(32))
        stream.update_into(_ZEROS, target)
        samples = []
        for _ in range(5):
            start = time.perf_counter_ns()
            stream.update_into(_ZEROS, target)
            samples.append(time.perf_counter_ns() - start)
        times[name] = min(samples)
    return min(times, key=lambda name: times[name])


CIPHER = fastest()


class Keystream(Guarded):
    """The words of one key, from the first on; each call takes the next ones."""

    def __init__(self, key: bytes) -> None:
        """Begins at the first word.

        Raises:
            EncodingError: The key has not 32 bytes.
        """
        if len(key) != 32:
            raise EncodingError(f"a keystream's key has 32 bytes, found {len(key)}")
        self._stream = CIPHERS[CIPHER](key)

    def fill(self, target: NDArray[np.uint8], count: int) -> None:
        """Writes the next `count` bytes, at most `CHUNK_BYTES`, to the start of a buffer from `scratch`."""
        # A view of the constant: a slice would copy it, as much work again as the cipher's.
        zeros = _ZEROS if count == CHUNK_BYTES else memoryview(_ZEROS)[:count]
        self._stream.update_into(zeros, target)

    def read(self, count: int) -> bytes:
        """Returns the next `count` bytes."""
        found: bytes = self._stream.update(bytes(count))
        return found


def scratch() -> NDArray[np.uint8]:
    """Returns a buffer for `Keystream.fill`."""
    return np.empty(CHUNK_BYTES + _SLACK, np.uint8)


class Pad(Guarded):
    """The sum of several keystreams, some taken away, laid over the words of one vector from the first to the last."""

    def __init__(self, plus: Sequence[bytes], minus: Sequence[bytes]) -> None:
        self._plus = [Keystream(key) for key in plus]
        self._minus = [Keystream(key) for key in minus]
        self._scratch = scratch()
        self._bits = 0
        self._over = False

    def apply(self, words: Words, start: int) -> None:
        """Adds the next stretch of the pad to the words, in place; a pad is used for one vector only.

        Args:
            words: uint32[m] or uint64[m], little-endian: the next m words of the vector, at most `CHUNK_BYTES` of them.
            start: Place of the first one in the vector.

        Raises:
            EncodingError: The stretch is too long or not the next one, or the stream would be longer than one key may
                make. The words are as they were.
        """
        if self._over or words.nbytes > CHUNK_BYTES or start * words.itemsize * 8 != self._bits:
            # After a stretch left out or taken twice, the rest would no longer meet what the others' pads meet.
            raise EncodingError(f"a pad goes over one stretch of a vector after another, found one at word {start}")
        if self._bits + (words.nbytes + ELEMENT_BYTES) * 8 > MOST_BITS:
            raise EncodingError(f"a vector of more than 2^{MOST_BITS.bit_length() - 1} bits needs another key")
        self._bits += words.nbytes * 8
        stream: Any = self._scratch[: words.nbytes].view(words.dtype)
        for key in self._plus:
            key.fill(self._scratch, words.nbytes)
            np.add(words, stream, out=words)
        for key in self._minus:
            key.fill(self._scratch, words.nbytes)
            np.subtract(words, stream, out=words)

    def cover(self, check: int) -> int:
        """Returns a check with the next 16 bytes of every keystream added or taken away, mod p: the end of the pad.

        Args:
            check: Of the vector that the pad was laid over, 0 to p - 1.

        Raises:
            EncodingError: The pad has covered a check before.
        """
        if self._over:
            raise EncodingError("a pad covers one check, behind the last word of its vector")
        self._over = True
        for sign, keys in ((1, self._plus), (-1, self._minus)):
            check += sign * sum(element(key.read(ELEMENT_BYTES)) for key in keys)
        return check % PRIME
