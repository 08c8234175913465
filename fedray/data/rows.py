# SPDX-License-Identifier: Apache-2.0
"""Which party holds which row: the arithmetic behind indexing and reductions.

Rows are numbered over all parties in partition order: the first party's rows come first. This file is pure integer
arithmetic. It knows no party, no device and no array.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from types import EllipsisType
from typing import TypeAlias

import numpy as np

from fedray.errors import PlanError

Rest: TypeAlias = tuple[int | slice | EllipsisType | None, ...]
"""What an index says about the axes after the rows, e.g. `(Ellipsis, None)`."""


def local_ranges(sizes: Sequence[int], rows: slice) -> tuple[range, ...]:
    """Returns each party's own row numbers within a global slice, with NumPy's rules for bounds and steps.

    With a positive step, the parties' pieces end to end are the slice. With a negative one, so are the pieces taken
    from the last party to the first.

    Args:
        sizes: Rows of each party, in partition order.
        rows: Slice over the rows of all parties.

    Returns:
        One range per party, counted from that party's first row; empty where the slice does not touch the party.

    Raises:
        PlanError: The step is zero, or a bound is not an integer.
    """
    try:
        # Python's own arithmetic of slices, with all its rules for missing and negative bounds.
        chosen = range(sum(sizes))[rows]
    except (TypeError, ValueError) as error:
        raise PlanError(f"rows {rows}: expected integers and a step other than 0: {error}") from None
    starts = [0, *accumulate(sizes)]
    return tuple(_within(chosen, start, start + size) for start, size in zip(starts, sizes, strict=False))


def _within(chosen: range, low: int, high: int) -> range:
    """Returns the members of `chosen` in `[low, high)`, counted from `low`."""
    step = chosen.step
    first, last = (low, high) if step > 0 else (high - 1, low - 1)
    # Index of the first member at or past each bound, seen in the direction of the step.
    begin, end = (min(max(-((chosen.start - bound) // step), 0), len(chosen)) for bound in (first, last))
    inside = chosen[begin:end]
    return range(inside.start - low, inside.stop - low, step) if len(inside) else range(0)


def as_slice(rows: range) -> slice:
    """Returns the slice that picks exactly these rows, also where a downward range ends below zero."""
    if not len(rows):
        return slice(0, 0)
    # A stop of -1 would mean the last element in a slice, where a range means "down to the first".
    return slice(rows.start, rows.stop if rows.stop >= 0 else None, rows.step)


def locate(sizes: Sequence[int], row: int) -> tuple[int, int]:
    """Returns (position of the party, row within the party) of one global row; negative rows count from the end.

    Raises:
        PlanError: There is no such row.
    """
    total = sum(sizes)
    if not -total <= row < total:
        raise PlanError(f"row {row}: expected -{total} <= row < {total}; the parties hold {total} rows together")
    ends = list(accumulate(sizes))
    # `bisect_right` passes over parties without rows, whose end is that of the party before.
    position = bisect_right(ends, row % total)
    return position, row % total - (ends[position] - sizes[position])


def split_key(key: object) -> tuple[int | slice, Rest]:
    """Returns (rows, index of the other axes) of an index expression `array[key]`.

    Args:
        key: An integer, a slice, `...`, or a tuple that begins with one of them and goes on with integers, slices,
            `...` and `None` (a new axis).

    Raises:
        PlanError: Anything else: index arrays, masks, a new axis in front of the rows.
    """
    items = key if isinstance(key, tuple) else (key,)
    for item in items:
        # `item is Ellipsis`, not `==`, which an array would answer with an array.
        if not (item is None or item is Ellipsis or is_integer(item) or isinstance(item, slice)):
            raise PlanError(
                f"index of type {type(item).__name__}: expected integers, slices, ... or None. Rows picked by a list "
                "or a mask may interleave the parties; pick them inside each party instead, with "
                "party(fn)(x.partitions[party])"
            )
    if not items:
        return slice(None), ()
    rows, rest = items[0], items[1:]
    # The dots stay in the rest: x[..., 0] means the last axis and not the second.
    if rows is Ellipsis:
        return slice(None), items
    if rows is None:
        raise PlanError("index None in front: expected the rows first; new axes may follow, as in x[..., None]")
    return (rows if isinstance(rows, slice) else int(rows)), rest


def is_integer(item: object) -> bool:
    """Returns whether this is a Python or NumPy integer; True and False are not."""
    return isinstance(item, int | np.integer) and not isinstance(item, bool)


def row_axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...] | None:
    """Returns the axes of a reduction over rows, sorted and counted from 0; `None` for all axes.

    Raises:
        PlanError: An axis does not exist, is named twice, or the rows are not among them.
    """
    if axis is None:
        return None
    axes = axis if isinstance(axis, tuple) else (axis,)
    if any(not is_integer(item) or not -ndim <= item < ndim for item in axes):
        raise PlanError(f"axis={axis!r}: expected None or integers from {-ndim} to {ndim - 1}")
    found = tuple(sorted(item % ndim for item in axes))
    if len(set(found)) != len(found):
        raise PlanError(f"axis={axis!r}: an axis is named twice")
    if 0 not in found:
        raise PlanError(
            f"axis={axis!r}: expected axis 0, the rows, to be among the axes. A result per row stays with its party: "
            "compute it there, e.g. alice(np.mean)(x.partitions[alice], axis=1)"
        )
    return found
