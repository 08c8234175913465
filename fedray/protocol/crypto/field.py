# SPDX-License-Identifier: Apache-2.0
"""Integers mod p = 2^61 - 1, in which the checks of sums are (SECAGG section 16), drawn from streams of bytes.

Knows how 16 bytes become one of them. Does not know what it is for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PRIME_BITS = 61
PRIME = (1 << PRIME_BITS) - 1
"""p. Two sums whose words are below 2^60 differ by less than p, so that no difference of theirs is 0 mod p."""

ELEMENT_BYTES = 16
"""Bytes of randomness for one element: it is uniform to within 2^-67."""

_LOW = np.uint64(PRIME)
_PAST, _THREE, _HIGH = np.uint64(PRIME_BITS), np.uint64(3), np.uint64(PRIME_BITS - 3)


def element(data: bytes) -> int:
    """Returns the element that 16 random bytes stand for: the little-endian integer mod p."""
    return int.from_bytes(data, "little") % PRIME


def elements(data: bytes) -> NDArray[np.uint64]:
    """Returns uint64[m], the elements that 16 m random bytes stand for."""
    halves = np.frombuffer(data, "<u8").reshape(-1, 2)
    low, high = halves[:, 0], halves[:, 1]
    # 2^61 is 1 mod p, and so 2^64 is 8: both halves are cut at 61 bits, the high one three bits further up. The four
    # pieces together are below 2^63.
    found = (low & _LOW) + (low >> _PAST) + ((high << _THREE) & _LOW) + (high >> _HIGH)
    found = (found & _LOW) + (found >> _PAST)  # below 2 p
    smaller: NDArray[np.uint64] = np.minimum(found, found - _LOW)  # what is below p wraps around, and is the smaller
    return smaller
