# SPDX-License-Identifier: Apache-2.0
"""The inner product of a vector's words with secret coefficients, mod p = 2^61 - 1, exactly and at the speed of masks.

Word k = 512 row + column has the coefficient a_row * b_column. So the words of every row are multiplied by the same
columns, and that is a product of matrices. It is computed in float64, with limbs that are small enough: 32 bits of a
word, times 13 bits of a column with its sign, summed over 512 of them, stay within 2^53, where float64 holds every
integer. So it is exact, in whatever order they are added.

Knows words and coefficients. Does not know whose words they are, nor what the product is for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError
from fedray.protocol.crypto.field import ELEMENT_BYTES, PRIME, elements
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.crypto.keystream import CHUNK_BYTES, Keystream
from fedray.protocol.messages import Words

COLUMNS = 512
"""Words in a row. With more of them sums would leave what float64 holds."""

_LIMB_BITS = 13
_LIMBS = 5  # 65 bits: an element and its sign
_HALF_BITS = 32
_ROWS = 512  # rows that are multiplied by their own coefficients at once; as many as columns, for the same reason


class InnerProduct(Guarded):
    """One inner product, taken stretch by stretch: `take` is a stage of a pipeline that only looks at the words."""

    def __init__(self, coefficients: Keystream) -> None:
        """Begins with nothing.

        Args:
            coefficients: Gives b for each column, then a for one row after another, 16 bytes each.
        """
        self._stream = coefficients
        self._columns = _limbs(elements(coefficients.read(COLUMNS * ELEMENT_BYTES)))
        self._halves = [np.empty((_ROWS, _LIMBS)) for _ in range(2)]
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
        real = self._real[: rows * COLUMNS]
        real[len(words) :] = 0
        for half, sums in zip(_halves(words), self._halves, strict=False):
            np.copyto(real[: len(words)], half)
            # About 160,000 products a stretch: too few for a library of matrices to begin threads of its own.
            np.matmul(real.reshape(rows, COLUMNS), self._columns, out=sums[self._rows : self._rows + rows])
        for sums in self._halves[1 if words.itemsize == 4 else 2 :]:
            sums[self._rows : self._rows + rows] = 0
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
        own = _limbs(elements(self._stream.read(rows * ELEMENT_BYTES)))
        for high, sums in enumerate(self._halves):
            whole = sums[:rows].astype("<i8")
            for higher, half in enumerate(_halves(whole.view("<u8").reshape(-1))):
                products = own.T @ np.ascontiguousarray(half, np.float64).reshape(rows, _LIMBS)
                for (i, j), product in np.ndenumerate(products):
                    self._total += int(product) << (_LIMB_BITS * (i + j) + _HALF_BITS * (high + higher))
        self._total %= PRIME


def _halves(words: Words) -> list[NDArray[Any]]:
    """Returns views of what a word is made of, each less than 2^32: the low half, unsigned, and the signed high one."""
    if words.itemsize == 4:
        return [words.view("<i4")]
    return [words.view("<u4")[0::2], words.view("<i4")[1::2]]


def _limbs(values: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Returns float64[m, 5]: digits of each value to the base 2^13, from -2^12 to 2^12 - 1, the lowest first."""
    rest, top = values.astype("<i8"), 1 << (_LIMB_BITS - 1)
    found = np.empty((len(values), _LIMBS))
    for limb in range(_LIMBS):
        digit = ((rest + top) & (2 * top - 1)) - top
        found[:, limb] = digit
        rest = (rest - digit) >> _LIMB_BITS
    return found
