# SPDX-License-Identifier: Apache-2.0
"""Real numbers as rows of integers, so that their sum over parties is exact, however large or small they are.

A masked sum adds integers of 64 bits. Model weights fit into one each; a feature in dollars squared, or a variance of
1e-12, does not. So a number is cut into digits of 24 bits, from 2^143 down to 2^-144, and every digit is summed alone.
Which digits carried would tell a little about the addends; therefore every party adds random multiples of 2^24 to each
digit and takes them off the next one. They cancel in the number and, to about parties * 2^-26, hide the carries.

Pure NumPy. Knows neither parties nor masks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DIGITS = 12
DIGIT_BITS = 24
FRACTION_BITS = DIGITS * DIGIT_BITS // 2
BLIND_BITS = 30
"""A party's digit stays below 2^55, so the sums of 256 parties fit into 63 bits."""

LIMIT = 2.0 ** (FRACTION_BITS - 1)
"""Numbers from here on do not fit."""


def widen(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the blinded digits of each number, the lowest first.

    Args:
        values: float64[...], finite and smaller than `LIMIT` in absolute value. What lies below 2^-144 is cut off.

    Returns:
        int64[..., DIGITS], different at each call, with the same value.
    """
    digits = np.zeros((*values.shape, DIGITS), np.int64)
    rest = np.array(values, dtype=np.float64)
    # From the highest digit down: each takes off what it holds, and the rest is smaller than its unit.
    for place in reversed(range(DIGITS)):
        unit = 2.0 ** (place * DIGIT_BITS - FRACTION_BITS)
        digit = np.trunc(rest / unit)  # exact, as is all here: units are powers of two
        rest -= digit * unit
        digits[..., place] = digit
    return _blinded(digits)


def widen_integers(numbers: Sequence[int]) -> NDArray[np.int64]:
    """Returns the blinded digits of numbers that are given exactly, as whole multiples of 2^-144.

    Args:
        numbers: Python's integers, smaller than `LIMIT` * 2^144 in absolute value.

    Returns:
        int64[n, DIGITS], as `widen` returns them.
    """
    digits = np.zeros((len(numbers), DIGITS), np.int64)
    mask = (1 << DIGIT_BITS) - 1
    for row, number in zip(digits, numbers, strict=True):
        # The digits of the absolute value, since a shift of a negative integer rounds away from zero.
        sign, rest = (-1 if number < 0 else 1), abs(number)
        row[:] = [sign * (rest >> place * DIGIT_BITS & mask) for place in range(DIGITS)]
    return _blinded(digits)


def integers(digits: NDArray[np.int64]) -> list[int]:
    """Returns the numbers that summed digits stand for, exactly, as whole multiples of 2^-144.

    Args:
        digits: int64[..., DIGITS], the sum of any number of `widen`'s results.
    """
    # Python's integers: the sum of digits has up to 300 bits.
    rows = digits.reshape(-1, DIGITS).tolist()
    return [sum(digit << (place * DIGIT_BITS) for place, digit in enumerate(row)) for row in rows]


def quotient(digits: NDArray[np.int64], divisor: int) -> NDArray[np.float64]:
    """Returns the numbers that summed digits stand for, divided by `divisor` and rounded once.

    Args:
        digits: int64[..., DIGITS], the sum of any number of `widen`'s results.
        divisor: A positive integer.

    Returns:
        float64[...].
    """
    scale = divisor << FRACTION_BITS
    # One true division of integers rounds once.
    numbers = [number / scale for number in integers(digits)]
    return np.array(numbers, dtype=np.float64).reshape(digits.shape[:-1])


def _blinded(digits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the digits with what is added to one taken off the next: the number is the same, its digits are not."""
    blinds = _random((*digits.shape[:-1], DIGITS - 1))
    digits[..., :-1] += blinds << DIGIT_BITS
    digits[..., 1:] -= blinds
    return digits


def _random(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Returns uniform integers in [0, 2^BLIND_BITS) from the operating system."""
    # The system's randomness, as for masks: these blinds hide something, so a seed must not tell them.
    words = np.frombuffer(os.urandom(4 * int(np.prod(shape, dtype=np.int64))), dtype=np.uint32)
    return (words >> (32 - BLIND_BITS)).astype(np.int64).reshape(shape)
