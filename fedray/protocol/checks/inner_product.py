# SPDX-License-Identifier: Apache-2.0
"""The inner product of a vector's words with secret coefficients, mod p = 2^61 - 1, exactly and at the speed of masks.

Word k = 512 row + column has the coefficient a_row * b_column. So the words of every row are multiplied by the same
columns, and that is a product of matrices. It is computed in float64, with limbs that are small enough: 32 bits of a
word, times 13 bits of a column with its sign, summed over 512 of them, stay within 2^53, where float64 holds every
integer. So it is exact, in whatever order they are added.

Knows words and coefficients. Does not know whose words they are, nor what the product is for.
"""

from __future__ import annotations

from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.crypto.keystream import CHUNK_BYTES
from fedray.protocol.messages import Words

COLUMNS = 512
"""Words in a row. With more of them sums would leave what float64 holds."""

_LIMBS, _LIMB_BITS = 5, 13
_HALVES, _HALF_BITS = 2, 32
_ROWS = 512  # rows that are multiplied by their own coefficients at once; as many as columns, for the same reason

_SHIFTS = _LIMB_BITS * np.arange(_LIMBS)
_MIDDLE = np.array([1 << (_LIMB_BITS - 1)] * (_LIMBS - 1) + [0])  # the highest digit is below 2^10 as it is
_RAISE = int((_MIDDLE << _SHIFTS).sum())
_WEIGHTS = [
    pow(2, _LIMB_BITS * (i + j) + _HALF_BITS * (half + part), PRIME)
    for i in range(_LIMBS)
    for half in range(_HALVES)
    for j in range(_LIMBS)
    for part in range(_HALVES)
]
"""What digit i of a row's coefficient counts, times a half of the sum over digit j of columns and a half of words."""


class InnerProduct(Guarded):
    """One inner product, taken stretch by stretch: `take` is a stage of a pipeline that only looks at the words."""

    def __init__(self, columns: NDArray[np.float64], rows: NDArray[np.float64]) -> None:
        """Begins with nothing.

        Args:
            columns: float64[512, 5], b for each column, as `limbs` makes of them.
            rows: float64[rows, 5], a for each row of the vector, likewise.
        """
        self._columns, self._coefficients, self._done = columns, rows, 0
        self._sums = np.zeros((_ROWS, _HALVES * _LIMBS))
        self._real = np.empty(0)
        self._rows = self._next = self._total = 0

    def take(self, words: Words, start: int) -> None:
        """Takes the next stretch.

        Args:
            words: uint32[m] or uint64[m], little-endian, read as signed integers; m is at most `CHUNK_BYTES` of them.
            start: Place of the first one in the vector.

        Raises:
            EncodingError: The stretch is too long or not the next one. Nothing was taken.
        """
        if words.nbytes > CHUNK_BYTES or start != self._next or start % COLUMNS:
            raise EncodingError(f"an inner product is of one stretch after another, found one at word {start}")
        rows = -(-len(words) // COLUMNS)
        if self._rows + rows > _ROWS:
            self._fold()
        if len(self._real) < rows * COLUMNS:
            self._real = np.empty(rows * COLUMNS)
        real, sums = self._real[: rows * COLUMNS], self._sums[self._rows : self._rows + rows]
        real[len(words) :] = 0
        for number, half in enumerate(_halves(words)):
            np.copyto(real[: len(words)], half)
            # About 160,000 products a stretch: too few for a library of matrices to begin threads of its own.
            target = sums[:, number * _LIMBS : (number + 1) * _LIMBS]
            np.matmul(real.reshape(rows, COLUMNS), self._columns, out=target)
        self._rows += rows
        self._next += len(words)

    def result(self) -> int:
        """Returns the inner product with what was taken, mod p."""
        self._fold()
        return self._total

    def _fold(self) -> None:
        """Multiplies the sums of the rows so far by their coefficients."""
        rows, self._rows = self._rows, 0
        if not rows:
            return
        own = self._coefficients[self._done : self._done + rows]
        self._done += rows
        whole = self._sums[:rows].astype("<i8")
        parts = np.empty((rows, 2 * whole.shape[1]))
        for number, half in enumerate(_halves(whole.view("<u8"))):
            parts[:, number::2] = half
        products = (own.T @ parts).astype(np.int64).ravel().tolist()
        self._total = (self._total + sum(map(mul, products, _WEIGHTS))) % PRIME


def _halves(words: NDArray[Any]) -> list[NDArray[Any]]:
    """Returns views of what words are made of, each below 2^32: the low halves, unsigned, and the signed high ones."""
    if words.itemsize == 4:
        return [words.view("<i4")]
    return [words.view("<u4")[..., 0::2], words.view("<i4")[..., 1::2]]


def limbs(values: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Returns float64[m, 5]: digits of each value to the base 2^13, from -2^12 to 2^12 - 1, the lowest first."""
    raised = (values.astype(np.int64) + _RAISE)[:, None]
    found: NDArray[np.float64] = (((raised >> _SHIFTS) & ((1 << _LIMB_BITS) - 1)) - _MIDDLE).astype(np.float64)
    return found
