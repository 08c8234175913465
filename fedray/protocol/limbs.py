# SPDX-License-Identifier: Apache-2.0
"""Real numbers as rows of small integers, so that their sum over parties is exact, however large or small they are.

A number is a whole multiple of 2^-160, cut into limbs of `limb_bits`: every limb is summed alone, and the sum of a
number's limbs is put together and rounded once. Which limbs ran over would tell more than the sum, so every party adds
random multiples of 2^limb_bits to each limb and takes them off the next one. They cancel in the number.

Knows how many parties there may be. Does not know masks, nor what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

FRACTION_BITS = 160
"""What lies below 2^-160 is cut off. The square of a float32 of 1e-15, summed with all its bits, does not."""

NUMBER_BITS = 320
LIMIT = 2.0 ** (NUMBER_BITS - FRACTION_BITS)
"""Numbers from here on do not fit."""

CARRY_BITS = 40
ROOM_BITS = 59
"""Bits of a limb's sum over all parties: a ring of 64 bits, less the sign and what its check takes (section 16)."""

_MANTISSA_BITS = 53
LEAST = 2.0 ** (32 - FRACTION_BITS)
"""Of a smaller number, about 3e-39, less than 32 bits are kept, and of the smallest none: it would count as 0. No
float32 is smaller that has all its bits."""

_BLOCK = 4096  # numbers at a time, so that what is computed on the way stays in cache


def limb_bits(parties: int) -> int:
    """Returns the bits b of a limb: at most 16, and fewer where a sum over so many parties would not have room.

    Example:
        >>> from fedray.protocol.limbs import limb_bits
        >>> [limb_bits(parties) for parties in (1, 8, 9, 1000)]
        [16, 16, 15, 9]
    """
    return min(16, ROOM_BITS - CARRY_BITS - (parties - 1).bit_length())


def limb_count(parties: int) -> int:
    """Returns how many limbs a number has, 20 for up to eight parties."""
    return -(-NUMBER_BITS // limb_bits(parties))


def limb_bound(parties: int) -> int:
    """Returns the largest absolute value of one party's limb, with what is carried out of it and into it."""
    return 1 << (limb_bits(parties) + CARRY_BITS)


def spread(values: NDArray[np.float64], parties: int, entropy: Callable[[int], bytes]) -> NDArray[np.int64]:
    """Returns the limbs of each number, the lowest first.

    Args:
        values: float64[m], finite and below `LIMIT` in absolute value.
        parties: How many may add theirs.
        entropy: Source of randomness, bytes by count. Whoever can foresee it sees which limbs ran over.

    Returns:
        int64[m, limb_count], other ones at each call for the same numbers.
    """
    limbs = np.empty((len(values), limb_count(parties)), np.int64)
    for start in range(0, len(values), _BLOCK):
        block = limbs[start : start + _BLOCK]
        _cut(values[start : start + _BLOCK], limb_bits(parties), block)
        _carry(block, limb_bits(parties), entropy)
    return limbs


def spread_integers(numbers: Sequence[int], parties: int, entropy: Callable[[int], bytes]) -> NDArray[np.int64]:
    """Returns the limbs of numbers that are given exactly, as whole multiples of 2^-160; see `spread`.

    Args:
        numbers: Below 2^320 in absolute value.
        parties: How many may add theirs.
        entropy: Source of randomness, bytes by count.
    """
    bits, count = limb_bits(parties), limb_count(parties)
    limbs, mask = np.zeros((len(numbers), count), np.int64), (1 << bits) - 1
    for row, number in zip(limbs, numbers, strict=True):
        # The limbs of the absolute value, since a shift of a negative integer rounds away from zero.
        sign, rest = (-1 if number < 0 else 1), abs(number)
        row[:] = [sign * (rest >> place * bits & mask) for place in range(count)]
    _carry(limbs, bits, entropy)
    return limbs


def gather(limbs: NDArray[np.int64], parties: int) -> list[int]:
    """Returns the numbers that summed limbs stand for, exactly, as whole multiples of 2^-160.

    Args:
        limbs: int64[m, limb_count], the sum of some parties' limbs.
        parties: How many there may be, as in `spread`.
    """
    bits, numbers = limb_bits(parties), list[int]()
    for row in limbs.tolist():
        number = 0
        for limb in reversed(row):
            number = (number << bits) + limb
        numbers.append(number)
    return numbers


def rounded(numbers: Sequence[int], divisor: int = 1) -> NDArray[np.float64]:
    """Returns whole multiples of 2^-160, divided by a positive integer, as the nearest float64[m]."""
    scale = divisor << FRACTION_BITS
    # True division of integers rounds once, halves to the even side, whatever their size.
    return np.array([number / scale for number in numbers], np.float64)


def _cut(values: NDArray[np.float64], bits: int, limbs: NDArray[np.int64]) -> None:
    """Writes the limbs of some numbers, without carries."""
    fractions, exponents = np.frexp(values)
    whole = np.ldexp(np.abs(fractions), _MANTISSA_BITS).astype(np.int64)
    # The number is `whole` * 2^`place`, in units of 2^-160.
    place = exponents.astype(np.int64) + (FRACTION_BITS - _MANTISSA_BITS)
    whole >>= np.clip(-place, 0, 63)
    first, shift = np.divmod(np.maximum(place, 0), bits)
    # The mantissa lies in this many limbs at most, whichever bit of its first one it begins at.
    steps = np.arange(-(-(_MANTISSA_BITS + bits - 1) // bits))
    down = np.clip(steps * bits - shift[:, None], 0, 63)
    pieces = whole[:, None] >> down
    pieces[:, 0] = whole << shift  # bits that run over at the top are in the next pieces
    pieces &= (1 << bits) - 1
    pieces *= np.where(fractions < 0, -1, 1)[:, None]
    # Room for the empty pieces above the highest limb.
    wide = np.zeros((len(values), limbs.shape[1] + len(steps)), np.int64)
    np.put_along_axis(wide, first[:, None] + steps, pieces, axis=1)
    limbs[:] = wide[:, : limbs.shape[1]]


def _carry(limbs: NDArray[np.int64], bits: int, entropy: Callable[[int], bytes]) -> None:
    """Takes a random multiple of 2^bits off each limb but the last, and adds it to the next."""
    shape = (limbs.shape[0], limbs.shape[1] - 1)
    words = np.frombuffer(entropy(8 * shape[0] * shape[1]), "<u8").reshape(shape)
    carries = (words >> np.uint64(64 - CARRY_BITS)).astype(np.int64)
    limbs[:, :-1] -= carries << bits
    limbs[:, 1:] += carries
