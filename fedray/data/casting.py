# SPDX-License-Identifier: Apache-2.0
"""Conversions that keep what the numbers say, and refuse where they cannot.

Runs inside a party, on its own array. Errors name party and column and never quote a value. Knows no file, no device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError, PlanError

Casting: TypeAlias = Literal["same_value", "unsafe"]
"""What a conversion may do. `"same_value"`: round a float to a shorter float, and nothing else that changes a number.
`"unsafe"`: whatever NumPy does, such as to cut off fractions."""


def checked_casting(casting: object) -> Casting:
    """Returns `casting`, if it is one.

    Raises:
        PlanError: It is none.
    """
    for known in get_args(Casting):
        if casting == known:
            found: Casting = known
            return found
    raise PlanError(f"casting={casting!r}: expected 'same_value', which refuses to lose values, or 'unsafe'")


def cast(
    array: NDArray[Any], dtype: str, where: str, columns: Sequence[str] | None = None, casting: Casting = "same_value"
) -> NDArray[Any]:
    """Returns `array` as `dtype`, the same object where it is that already.

    Args:
        array: Numbers or booleans.
        dtype: Name of the type to convert to.
        where: What to call the array in errors, beginning with the party's name.
        columns: Names of its columns, the second axis.
        casting: What the conversion may do.

    Raises:
        DataError: A number would become another one.
    """
    target = np.dtype(dtype)
    if array.dtype == target or casting == "unsafe":
        return array.astype(target, copy=False)
    # NumPy warns where a number does not fit; here that is an error of our own.
    with np.errstate(all="ignore"):
        converted = array.astype(target)
        lost = _lost(array, converted)
    if lost.any():
        raise DataError(
            f"{where}{_place(lost, columns)}: a cast from {array.dtype} to {target} would change numbers: "
            f"{_why(array.dtype, target)}; choose a wider type, mend the data, or say casting='unsafe'"
        )
    return converted


def _lost(array: NDArray[Any], converted: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns where a number has become another one."""
    source, target = array.dtype, converted.dtype
    found: NDArray[np.bool_]
    if source.kind == "f" and target.kind == "f":
        # Floats are made to be rounded, but not to infinity.
        found = np.isfinite(array) & ~np.isfinite(converted)
    elif source.kind == "f" and target.kind in "iu":
        limits = np.iinfo(target)
        # In float64, where the bounds are exact: a NumPy integer beside a float would be rounded.
        wide = array.astype(np.result_type(source, np.float64), copy=False)
        # The upper bound is a power of two, and the largest integer, one less, may not be a float. NaN is not equal to
        # anything.
        found = (np.trunc(wide) != wide) | (wide < float(limits.min)) | (wide >= 2.0 ** int(limits.max).bit_length())
    elif source.kind in "iu" and target.kind == "f":
        wide = converted.astype(np.result_type(target, np.float64), copy=False)
        # Before it is converted back: out of range, a machine may answer with what happens to be the same.
        beyond = ~np.isfinite(wide) | (wide >= 2.0 ** int(np.iinfo(source).max).bit_length())
        found = beyond | (converted.astype(source) != array)
    else:
        found = converted.astype(source) != array
        # -1 as uint64 is back at -1 as int64.
        if source.kind in "iu" and target.kind in "iu":
            found |= (converted < 0) != (array < 0)
    return found


def _place(lost: NDArray[np.bool_], columns: Sequence[str] | None) -> str:
    """Returns the columns of a table in which something is lost, in words; empty for other arrays."""
    if lost.ndim != 2:
        return ""
    positions = np.flatnonzero(lost.any(axis=0)).tolist()
    named = [repr(columns[p]) if columns is not None else str(p) for p in positions[:3]]
    more = f" and {len(positions) - 3} more" if len(positions) > 3 else ""
    return f": column {', '.join(named)}{more}"


def _why(source: np.dtype[Any], target: np.dtype[Any]) -> str:
    if target.kind == "b":
        return "a boolean holds 0 and 1 only"
    if target.kind in "iu":
        fractions = "fractions, NaN or infinity, or " if source.kind == "f" else ""
        return f"there are {fractions}numbers beyond the range of {target}"
    if source.kind == "f":
        return f"there are numbers beyond the range of {target}"
    return f"there are integers with more digits than {target} holds, {np.finfo(target).nmant + 1} bits"
