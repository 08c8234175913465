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

_LOW, _SHIFT = np.uint64(PRIME), np.uint64(PRIME_BITS)


def element(data: bytes) -> int:
    """Returns the element that 16 random bytes stand for: the little-endian integer mod p."""
    return int.from_bytes(data, "little") % PRIME


def elements(data: bytes) -> NDArray[np.uint64]:
    """Returns uint64[m], the elements that 16 m random bytes stand for."""
    halves = np.frombuffer(data, "<u8").reshape(-1, 2)
    low, high = _folded(halves[:, 0]), _folded(halves[:, 1])
    # 2^64 is 8 mod p. Folded twice a value is at most p, and 8 times that stays below 2^64.
    found = _folded(_folded(_folded(high) << np.uint64(3)) + low)
    return np.where(found >= _LOW, found - _LOW, found)


def _folded(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns values that are the same mod p, and at most p + 7."""
    folded: NDArray[np.uint64] = (values & _LOW) + (values >> _SHIFT)
    return folded
