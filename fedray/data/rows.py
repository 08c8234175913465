# SPDX-License-Identifier: Apache-2.0
"""Which party holds which row: the arithmetic behind slices, partitions and splits.

Rows are numbered over all parties in partition order: the first party's rows come first. This file is pure integer
arithmetic. It knows no party, no device and no array.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from types import EllipsisType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

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
        if not (item is None or item is Ellipsis or _is_int(item) or isinstance(item, slice)):
            raise PlanError(
                f"index of type {type(item).__name__}: expected integers, slices, ... or None. Rows picked by a list "
                "or a mask may interleave the parties; pick them inside each party instead, with "
                "party(fn)(x.partitions[party])"
            )
    if not items:
        return slice(None), ()
    rows, rest = items[0], items[1:]
    if rows is Ellipsis:
        return slice(None), items
    if rows is None:
        raise PlanError("index None in front: expected the rows first; new axes may follow, as in x[..., None]")
    return (rows if isinstance(rows, slice) else int(rows)), rest


def _is_int(item: object) -> bool:
    return isinstance(item, int | np.integer) and not isinstance(item, bool)


def even_ranges(total: int, parts: int) -> tuple[range, ...]:
    """Returns `parts` consecutive ranges over `total` rows; the first `total % parts` are one row longer."""
    base, longer = divmod(total, parts)
    ends = [0, *accumulate(base + (position < longer) for position in range(parts))]
    return tuple(range(start, stop) for start, stop in pairwise(ends))


def fraction_ranges(total: int, fractions: Sequence[float]) -> tuple[range, ...]:
    """Returns consecutive ranges that hold these fractions of `total` rows, each bound rounded to the nearest row.

    Raises:
        PlanError: A fraction is not in (0, 1], or they add up to more than 1.
    """
    if any(not 0 < fraction <= 1 for fraction in fractions):
        raise PlanError(f"fractions {list(fractions)}: expected each to be above 0 and at most 1")
    bounds = [0.0, *accumulate(fractions)]
    if bounds[-1] > 1 + 1e-9:
        raise PlanError(f"fractions {list(fractions)}: expected a sum of at most 1, found {bounds[-1]:g}")
    ends = [min(round(bound * total), total) for bound in bounds]
    return tuple(range(start, stop) for start, stop in pairwise(ends))


def apportion(count: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Returns `count` rows dealt to the parties in proportion to their sizes (largest remainder; ties to the first).

    Args:
        count: Rows to deal, at most the sum of `sizes`.
        sizes: Rows of each party.

    Returns:
        One number per party, no more than its size, less than one row from its exact share; they add up to `count`.

    Raises:
        PlanError: `count` is negative or above the sum of `sizes`.
    """
    total = sum(sizes)
    if not 0 <= count <= total:
        raise PlanError(f"{count} rows: expected between 0 and the {total} rows that the parties hold")
    if not total:
        return (0,) * len(sizes)
    shares = [divmod(count * size, total) for size in sizes]
    short = count - sum(whole for whole, _ in shares)
    by_remainder = sorted(range(len(sizes)), key=lambda position: -shares[position][1])
    favoured = set(by_remainder[:short])
    return tuple(whole + (position in favoured) for position, (whole, _) in enumerate(shares))


def split_rows(
    count: int, test: int, *, seed: int, party: str, shuffle: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns (training rows, test rows) of one party: every row once, in one of the two.

    The order depends on the seed, the party's name and nothing else, so arrays split alike stay aligned row by row.

    Args:
        count: Rows of the party.
        test: How many of them go to the test set.
        seed: Any integer.
        party: The party's name.
        shuffle: Whether to draw at random; otherwise the last `test` rows are the test set.

    Returns:
        Two arrays of row numbers, int64[count - test] and int64[test].
    """
    order = np.arange(count, dtype=np.int64)
    if shuffle:
        digest = hashlib.sha256(f"fedray/split/{seed}/{party}".encode()).digest()
        order = np.random.default_rng(int.from_bytes(digest)).permutation(order)
    return order[: count - test], order[count - test :]


def row_axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...] | None:
    """Returns the axes of a reduction over rows, sorted and counted from 0; `None` for all axes.

    Raises:
        PlanError: An axis does not exist, is named twice, or the rows are not among them.
    """
    if axis is None:
        return None
    axes = axis if isinstance(axis, tuple) else (axis,)
    if any(not _is_int(item) or not -ndim <= item < ndim for item in axes):
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
