# SPDX-License-Identifier: Apache-2.0
"""Arrays over the integers mod 2^32, 2^64 and 2^128, with what can be done to shares without interaction.

Knows words and carries. Does not know what the numbers mean. An element of 128 bits is two words of 64, the lower one
first, on a last axis of its own; an element of 32 or 64 bits is one word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError, PlanError

Elements: TypeAlias = NDArray[Any]
"""uint32[...] or uint64[...], or uint64[..., 2] where an element has 128 bits; little-endian."""

_wrapping = np.errstate(over="ignore")
"""NumPy warns where single numbers wrap around, which is what they are here to do."""

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Ring:
    """The integers mod 2^bits, read as signed where they are opened.

    Attributes:
        bits: 32, 64 or 128.
    """

    bits: Literal[32, 64, 128]

    def __post_init__(self) -> None:
        if self.bits not in (32, 64, 128):
            raise PlanError(f"a ring has 32, 64 or 128 bits, found {self.bits!r}")

    @property
    def wide(self) -> bool:
        """Whether an element has two words."""
        return self.bits == 128

    @property
    def word(self) -> np.dtype[Any]:
        """Type of a word."""
        return np.dtype("<u4" if self.bits == 32 else "<u8")

    def zeros(self, shape: Sequence[int]) -> Elements:
        """Returns zeros."""
        return np.zeros((*shape, 2) if self.wide else tuple(shape), self.word)

    def read(self, data: bytes | bytearray, shape: Sequence[int]) -> Elements:
        """Returns the elements that some bytes spell.

        Raises:
            EncodingError: They are too many or too few.
        """
        whole = (*shape, 2) if self.wide else tuple(shape)
        flat: Elements = np.frombuffer(data, self.word)
        if flat.size != int(np.prod(whole, dtype=np.int64)):
            raise EncodingError(
                f"expected elements of {self.bits} bits in shape {tuple(shape)}, found {len(data)} bytes"
            )
        return flat.reshape(whole)

    def of(self, integers: NDArray[np.int64]) -> Elements:
        """Returns integers as elements; int64[...]."""
        if not self.wide:
            return integers.astype(np.int32 if self.bits == 32 else np.int64).view(self.word)
        found = self.zeros(integers.shape)
        found[..., 0] = integers.view(np.uint64)
        found[..., 1] = (integers >> 63).view(np.uint64)
        return found

    def signed(self, elements: Elements) -> NDArray[np.float64] | NDArray[np.int64]:
        """Returns elements as signed integers: int64[...], or float64[...] where one is beyond its range."""
        if not self.wide:
            return elements.view(np.int32 if self.bits == 32 else np.int64).astype(np.int64)
        negative = elements[..., 1] >> np.uint64(63) == 1
        size = np.where(negative[..., None], self.negative(elements), elements)
        if not size[..., 1].any() and not (size[..., 0] >> np.uint64(63)).any():
            whole = size[..., 0].astype(np.int64)
            return np.where(negative, -whole, whole)
        real = np.ldexp(size[..., 1].astype(np.float64), 64) + size[..., 0].astype(np.float64)
        return np.where(negative, -real, real)

    @_wrapping
    def add(self, a: Elements, b: Elements) -> Elements:
        """Returns a + b; shapes are broadcast."""
        if not self.wide:
            return a + b
        low = a[..., 0] + b[..., 0]
        # A sum of words below one of them has wrapped around: that is the carry.
        high = a[..., 1] + b[..., 1] + (low < a[..., 0]).astype(np.uint64)
        return np.stack([low, high], axis=-1)

    @_wrapping
    def negative(self, a: Elements) -> Elements:
        """Returns -a."""
        if not self.wide:
            return np.negative(a)
        low = np.negative(a[..., 0])
        return np.stack([low, ~a[..., 1] + (low == 0).astype(np.uint64)], axis=-1)

    @_wrapping
    def subtract(self, a: Elements, b: Elements) -> Elements:
        """Returns a - b; shapes are broadcast."""
        return a - b if not self.wide else self.add(a, self.negative(b))

    @_wrapping
    def times(self, a: Elements, factor: NDArray[np.int64]) -> Elements:
        """Returns a times integers, int64[...]; shapes of elements are broadcast."""
        if not self.wide:
            return a * self.of(factor)
        size = np.abs(factor).view(np.uint64)
        product = _times_128(a[..., 0], a[..., 1], size)
        return np.where((factor < 0)[..., None], self.negative(product), product)

    def total(self, a: Elements, axes: tuple[int, ...]) -> Elements:
        """Returns the sum over axes, counted from the first, of at most 2^32 elements."""
        if not self.wide:
            return np.asarray(np.sum(a, axis=axes, dtype=self.word))
        low, high = a[..., 0], a[..., 1]
        # By halves: 2^32 of them fit a word, so carries are counted once, at the end.
        first = np.sum(low & _LOW, axis=axes)
        second = np.sum(low >> _HALF, axis=axes) + (first >> _HALF)
        whole = np.sum(high, axis=axes) + (second >> _HALF)
        return np.stack([(first & _LOW) | (second << _HALF), whole], axis=-1)


def _times_128(low: Elements, high: Elements, factor: NDArray[np.uint64]) -> Elements:
    """Returns (high, low) times words of 64 bits mod 2^128, by halves of words."""
    a0, a1, b0, b1 = low & _LOW, low >> _HALF, factor & _LOW, factor >> _HALF
    first, middle, other = a0 * b0, a0 * b1, a1 * b0
    carry = (first >> _HALF) + (middle & _LOW) + (other & _LOW)
    upper = a1 * b1 + (middle >> _HALF) + (other >> _HALF) + (carry >> _HALF) + high * factor
    return np.stack([(first & _LOW) | (carry << _HALF), upper], axis=-1)
