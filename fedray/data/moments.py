# SPDX-License-Identifier: Apache-2.0
"""The variance over parties from two sums, of values and of squares, that one round opens together.

In two rounds, the mean first and the squares around it after, a party might be in one of them and late for the other.
The textbook's formula for one round, squares less the squared mean, loses all digits where the spread is small beside
the mean. Here it loses none: every party squares around a centre of its own, in floats, and what that centre adds to
the sums is worked out in Python's integers, exactly. So are the sums over parties, and their difference.

Pure. Knows neither parties nor masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.protocol.limbs import FRACTION_BITS, LIMIT

CENTRE_BITS = FRACTION_BITS // 2
"""A centre is a multiple of 2^-80, so that its square is one of 2^-160 and nothing of it is cut off."""

SMALLEST_SQUARE_BITS = 128
"""A mean square below 2^-128 is refused."""


def elements(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> int:
    """Returns how many elements of an array of this shape enter one number of a reduction over `axes`."""
    return math.prod(shape if axes is None else (shape[axis] for axis in axes))


def power_sums(values: NDArray[Any], axes: tuple[int, ...] | None) -> list[int] | None:
    """Returns the sums over `axes` of the values and then of their squares, as whole multiples of 2^-160.

    Args:
        values: Numbers or booleans.
        axes: The axes to sum over; `None` for all.

    Returns:
        2n integers for a result of n numbers; None where a value is not finite or a sum is above 2^160.
    """
    count = elements(values.shape, axes)
    if not count:
        return [0] * (2 * np.sum(values, axis=axes).size)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.mean(values, axis=axes, dtype=np.float64, keepdims=True)
        # Any centre will do that is near the values, so it may be rounded.
        centre = np.ldexp(np.rint(np.ldexp(mean, CENTRE_BITS)), -CENTRE_BITS)
        # Makes a new array, which the square below may overwrite; the party's own is left alone.
        distance = values - centre
        rest = np.sum(distance, axis=axes)
        square = np.sum(np.square(distance, out=distance), axis=axes)
    # This way round, so that NaN, which is not smaller than anything, is found as well.
    if not np.all(np.abs(centre) < LIMIT) or not np.all(square < LIMIT):
        return None
    # What is too small for its square to be seen must not look like zeros: see `too_small`.
    least = np.asarray(np.any(values, axis=axes), np.int64).ravel().tolist()
    sums, squares = list[int](), list[int]()
    columns = (np.asarray(a, np.float64).ravel().tolist() for a in (centre, rest, square))
    for c, r, s, some in zip(*columns, least, strict=True):
        c, r, s = _units(c, CENTRE_BITS), _units(r, FRACTION_BITS), _units(s, FRACTION_BITS)
        sums.append((count * c << CENTRE_BITS) + r)
        # (centre + distance)^2, summed over `count` values.
        squares.append(max(count * c * c + (2 * c * r >> CENTRE_BITS) + s, some))
    if max(map(abs, (*sums, *squares)), default=0) >= _units(LIMIT, FRACTION_BITS):
        return None
    return [*sums, *squares]


def too_small(sums: Sequence[int], count: int) -> bool:
    """Returns whether some numbers are so small, and not all 0, that a deviation of theirs would lose digits.

    That is where the root of their mean square is below 2^-64, about 5e-20: of a square of 2^-128, 32 bits are left.
    It is asked of all parties' numbers together: those of one party may be as small as they like beside the others'.

    Args:
        sums: As for `variance`.
        count: How many values are in each.
    """
    return any(0 < square < count << FRACTION_BITS - SMALLEST_SQUARE_BITS for square in sums[len(sums) // 2 :])


def variance(sums: Sequence[int], count: int, ddof: int) -> NDArray[np.float64]:
    """Returns the variance, the square of the standard deviation.

    Args:
        sums: 2n integers, the sums over parties of their `power_sums`.
        count: How many values are in each.
        ddof: The divisor is `count` less this.

    Returns:
        float64[n].
    """
    divisor = count * (count - ddof) << 2 * FRACTION_BITS
    pairs = zip(sums[: len(sums) // 2], sums[len(sums) // 2 :], strict=True)
    # What is cut off below 2^-160 may leave a little less than nothing for values that are all alike.
    squares = [max((square << FRACTION_BITS) * count - total * total, 0) for total, square in pairs]
    return np.array([number / divisor for number in squares], dtype=np.float64)


def _units(value: float, bits: int) -> int:
    """Returns `value` as a whole number of 2^-`bits`, rounded towards zero."""
    return int(math.ldexp(value, bits))
