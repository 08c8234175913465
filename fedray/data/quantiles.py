# SPDX-License-Identifier: Apache-2.0
"""Quantiles by bisection: numbers in an order in which each has a key, and the search that needs counts alone.

How many elements are at most as large as a threshold is a sum over parties, under masks. Halving the keys, not the
numbers, finds a number of any size in as many steps as its type has bits. Pure. Knows neither parties nor masks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ROUNDS = 40
"""Most counts of a search. All numbers of up to 32 bits are found exactly; longer ones to 2^-28 of themselves."""

_Keys = NDArray[np.uint64]


class Bisection:
    """The search for order statistics of numbers of one type, all at once.

    Ask for counts of elements that are not above `thresholds()` and hand them to `narrow`, until `done`.

    Args:
        dtypes: Types of the parties' arrays.
        shape: Shape of the result.
        rank: Which element in order, from 1.
    """

    def __init__(self, dtypes: Iterable[str], shape: tuple[int, ...], rank: int) -> None:
        self._order = _Order(np.result_type(*(np.dtype(dtype) for dtype in dtypes)))
        self._rank, self._rounds = rank, 0
        least, most = self._order.ends
        # The key wanted is above `low` and at most `high`.
        self._low = np.full(shape, least - 1, np.uint64)
        self._high = np.full(shape, most, np.uint64)

    @property
    def done(self) -> bool:
        """Whether the number is found, or as near as it will be."""
        return self._rounds == MOST_ROUNDS or bool(np.all(self._high - self._low <= 1))

    def thresholds(self) -> NDArray[Any]:
        """Returns what to compare with: numbers in the middle of what is left, in the shape of the result."""
        return self._order.numbers(self._middle())

    def narrow(self, counts: NDArray[np.int64]) -> None:
        """Halves what is left.

        Args:
            counts: How many elements are at most as large as `thresholds()`, int64 in the shape of the result.
        """
        middle, enough = self._middle(), counts >= self._rank
        self._high = np.where(enough, middle, self._high)
        self._low = np.where(enough, self._low, middle)
        self._rounds += 1

    def found(self) -> NDArray[Any]:
        """Returns the numbers, in the dtype of the parties' arrays: the roundest of what is left.

        So whole numbers come out whole, where several numbers are too near for the counts to tell them apart.
        """
        return self._order.result(self._order.roundest(self._low, self._high))

    def _middle(self) -> _Keys:
        # At least one above `low`, so that each step halves; and no overflow, as in (low + high) / 2.
        step: _Keys = np.maximum((self._high - self._low) // np.uint64(2), np.uint64(1))
        return self._low + step


def rank_of(q: float, count: int) -> int:
    """Returns which of `count` elements in order is the quantile `q`: the first that has `q` of all up to it."""
    # A number such as 0.07 * 100 is a little above 7.
    return min(max(math.ceil(q * count - 1e-9), 1), count)


class _Order:
    """Numbers of one type and their keys: unsigned integers from 1 on, in the same order."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._given = dtype
        self._dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype
        # Long integers are compared as floats: bisecting them as they are would take 64 counts.
        self._compared = np.dtype(np.float64) if self._dtype.kind in "iu" and dtype.itemsize == 8 else self._dtype
        self._bits = np.dtype(f"u{self._compared.itemsize}")
        if self._compared.kind == "f":
            # In the bits of a float, those below zero count downwards from half of the range.
            self._sign = int(1 << (8 * self._compared.itemsize - 1))
            self._least = 0
            infinity = np.array([-np.inf, np.inf], self._compared)
            self.ends = (int(self.keys(infinity)[0]), int(self.keys(infinity)[1]))
        else:
            ends = np.iinfo(self._compared.name)
            self._sign, self._least = 0, int(ends.min)
            self.ends = (1, int(ends.max) - self._least + 1)

    def keys(self, numbers: NDArray[Any]) -> _Keys:
        bits = numbers.view(self._bits).astype(np.uint64)
        below = bits & np.uint64(self._sign) != 0
        full = np.uint64(2 * self._sign - 1)
        return np.where(below, bits ^ full, bits | np.uint64(self._sign))

    def numbers(self, keys: _Keys) -> NDArray[Any]:
        if not self._sign:
            return (keys.astype(np.int64) - 1 + self._least).astype(self._compared)
        above = keys & np.uint64(self._sign) != 0
        full = np.uint64(2 * self._sign - 1)
        bits = np.where(above, keys ^ np.uint64(self._sign), keys ^ full)
        return bits.astype(self._bits).view(self._compared)

    def result(self, keys: _Keys) -> NDArray[Any]:
        found = self.numbers(keys)
        if found.dtype == self._dtype:
            # Zero has two keys, and the first is that of -0.
            return np.asarray(found + found.dtype.type(0) if self._sign else found.astype(self._given))
        ends = np.iinfo(self._dtype.name)
        # 2^63 - 1 itself is no float; the nearest one is outside.
        inside = np.clip(found, float(ends.min), np.nextafter(float(ends.max), 0.0))
        return np.asarray(np.rint(inside).astype(self._dtype))

    def roundest(self, low: _Keys, high: _Keys) -> _Keys:
        """Returns the key above `low` and up to `high` whose number has the fewest digits in binary."""
        found = _roundest(low, high)
        if not self._sign:
            return found
        # Below zero, keys run against the bits of the number: seen from the other end, they run with them.
        full, zero = np.uint64(2 * self._sign - 1), np.uint64(self._sign)
        found = np.where(high < zero, full - _roundest(full - high - np.uint64(1), full - low - np.uint64(1)), found)
        found = np.where((low < zero) & (high >= zero), zero, found)
        # Where every count said "not above", the number is the first of all.
        return np.where(low < np.uint64(self.ends[0]), np.uint64(self.ends[0]), found)


def _roundest(low: _Keys, high: _Keys) -> _Keys:
    """Returns the key above `low` and up to `high` that ends with the most zeros in binary."""
    # Up to the highest bit in which the two differ, `high` keeps its bits; behind it come zeros.
    differing, mask = low ^ high, np.zeros_like(low)
    for shift in range(64):
        mask = np.where(differing >> np.uint64(shift) != 0, (mask << np.uint64(1)) | np.uint64(1), mask)
    return high & ~(mask >> np.uint64(1))
