# SPDX-License-Identifier: Apache-2.0
"""Python's operators, written out once for arrays that are spread over parties.

Maps each operator to its NumPy function, and refuses what Python would take in silence. Knows no party and no row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np

from fedray.data.warned import of_zeros
from fedray.errors import PlanError


class Operators(ABC):
    """NumPy's elementwise operators for a class that says how to apply a function to one operand and to two."""

    __iter__ = None

    @abstractmethod
    def _binary(self, ufunc: np.ufunc, other: object, swapped: bool = False) -> Self:
        """Returns `ufunc(self, other)`, or `ufunc(other, self)` if swapped; NotImplemented for unknown operands."""

    @abstractmethod
    def _unary(self, ufunc: np.ufunc) -> Self:
        """Returns `ufunc(self)`."""

    def __bool__(self) -> bool:
        raise PlanError("the truth of many rows is not one truth; compute inside the parties, or compare x.mean()")

    def __add__(self, other: object) -> Self:
        return self._binary(np.add, other)

    def __radd__(self, other: object) -> Self:
        return self._binary(np.add, other, swapped=True)

    def __sub__(self, other: object) -> Self:
        return self._binary(np.subtract, other)

    def __rsub__(self, other: object) -> Self:
        return self._binary(np.subtract, other, swapped=True)

    def __mul__(self, other: object) -> Self:
        return self._binary(np.multiply, other)

    def __rmul__(self, other: object) -> Self:
        return self._binary(np.multiply, other, swapped=True)

    def __truediv__(self, other: object) -> Self:
        of_zeros(other)
        return self._binary(np.true_divide, other)

    def __rtruediv__(self, other: object) -> Self:
        return self._binary(np.true_divide, other, swapped=True)

    def __floordiv__(self, other: object) -> Self:
        return self._binary(np.floor_divide, other)

    def __rfloordiv__(self, other: object) -> Self:
        return self._binary(np.floor_divide, other, swapped=True)

    def __mod__(self, other: object) -> Self:
        return self._binary(np.remainder, other)

    def __rmod__(self, other: object) -> Self:
        return self._binary(np.remainder, other, swapped=True)

    def __pow__(self, other: object) -> Self:
        return self._binary(np.power, other)

    def __rpow__(self, other: object) -> Self:
        return self._binary(np.power, other, swapped=True)

    def __and__(self, other: object) -> Self:
        return self._binary(np.bitwise_and, other)

    def __rand__(self, other: object) -> Self:
        return self._binary(np.bitwise_and, other, swapped=True)

    def __or__(self, other: object) -> Self:
        return self._binary(np.bitwise_or, other)

    def __ror__(self, other: object) -> Self:
        return self._binary(np.bitwise_or, other, swapped=True)

    def __xor__(self, other: object) -> Self:
        return self._binary(np.bitwise_xor, other)

    def __rxor__(self, other: object) -> Self:
        return self._binary(np.bitwise_xor, other, swapped=True)

    # Comparisons are elementwise, as in NumPy. Python swaps them itself: 0 < x becomes x > 0.

    def __eq__(self, other: object) -> Self:  # type: ignore[override]
        return self._binary(np.equal, _number(other))

    def __ne__(self, other: object) -> Self:  # type: ignore[override]
        return self._binary(np.not_equal, _number(other))

    def __lt__(self, other: object) -> Self:
        return self._binary(np.less, other)

    def __le__(self, other: object) -> Self:
        return self._binary(np.less_equal, other)

    def __gt__(self, other: object) -> Self:
        return self._binary(np.greater, other)

    def __ge__(self, other: object) -> Self:
        return self._binary(np.greater_equal, other)

    def __neg__(self) -> Self:
        return self._unary(np.negative)

    def __pos__(self) -> Self:
        return self._unary(np.positive)

    def __abs__(self) -> Self:
        return self._unary(np.absolute)

    def __invert__(self) -> Self:
        return self._unary(np.invert)


def _number(other: object) -> object:
    """Returns what an array is compared with.

    Raises:
        PlanError: It is text or a list, of which Python would say in silence that it differs.
    """
    if isinstance(other, str | bytes | list | tuple | dict | set):
        raise PlanError(
            f"== and !=: expected a number or an array, found {type(other).__name__}; text becomes numbers where it is "
            "read, as in load({alice: lambda: pandas.read_csv(path)['sex'] == 'm', ...})"
        )
    return other
