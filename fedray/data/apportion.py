# SPDX-License-Identifier: Apache-2.0
"""How many rows, and which, each party gets: even and uneven shares, and splits into training and test rows.

Pure arithmetic. Knows no device and no array but of row numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from fedray.data.rows import is_integer
from fedray.errors import PlanError


def even_ranges(total: int, parts: int) -> tuple[range, ...]:
    """Returns `parts` consecutive ranges over `total` rows; the first `total % parts` are one row longer."""
    base, longer = divmod(total, parts)
    # The first parties get the extra rows, as np.array_split does.
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
    # Ten times 0.1 is a little more than 1.
    if bounds[-1] > 1 + 1e-9:
        raise PlanError(f"fractions {list(fractions)}: expected a sum of at most 1, found {bounds[-1]:g}")
    # Bounds are rounded, not sizes, so that pieces meet: no row is lost or dealt twice.
    ends = [min(round(bound * total), total) for bound in bounds]
    return tuple(range(start, stop) for start, stop in pairwise(ends))


def share_bounds(start: float, end: float, total: int) -> tuple[float, float]:
    """Returns a share from `start` to `end` as two fractions of the whole.

    Args:
        start: First row of `total` if both are integers; otherwise a fraction.
        end: One past the last row, or a fraction.
        total: How many rows the whole has.

    Raises:
        PlanError: The bounds are not in order, or not within the whole.
    """
    # By type, since 1 and 1.0 differ here: (0, 1) is the first row, (0.0, 1.0) is everything.
    in_rows = is_integer(start) and is_integer(end)
    limit = total if in_rows else 1
    if not all(is_integer(bound) or isinstance(bound, float | np.floating) for bound in (start, end)) or not (
        0 <= start < end <= limit
    ):
        what = f"integers from 0 to {total}, which are rows, or numbers from 0 to 1, which are fractions"
        raise PlanError(f"share ({start!r}, {end!r}): expected start < end, both {what}")
    return start / limit, end / limit


def bounded_range(total: int, bounds: tuple[float, float]) -> range:
    """Returns the rows between two fractions of `total`, each rounded to the nearest row."""
    low, high = bounds
    return range(round(low * total), round(high * total))


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
    # In integers throughout: with floats, the sum of the shares could be one off.
    shares = [divmod(count * size, total) for size in sizes]
    short = count - sum(whole for whole, _ in shares)
    # Python's sort keeps the order of equal ones, so ties go to the first party on every machine.
    by_remainder = sorted(range(len(sizes)), key=lambda position: -shares[position][1])
    favoured = set(by_remainder[:short])
    return tuple(whole + (position in favoured) for position, (whole, _) in enumerate(shares))


def set_sizes(total: int, test_size: float | None, train_size: float | None) -> tuple[int, int]:
    """Returns (training rows, test rows) out of `total`, rounded as scikit-learn rounds them.

    Args:
        total: Rows of all parties.
        test_size: Fraction in (0, 1), or a number of rows; `None` for what the training set leaves, or a quarter.
        train_size: Likewise; `None` for what the test set leaves.

    Raises:
        PlanError: A size is not one of these, the two exceed `total`, or one of the sets would be empty.
    """
    if test_size is None and train_size is None:
        test_size = 0.25
    # Up for the test set, down for the training set: the two never overlap by rounding.
    test = None if test_size is None else _set_size("test_size", test_size, total, math.ceil)
    train = None if train_size is None else _set_size("train_size", train_size, total, math.floor)
    test = total - (train or 0) if test is None else test
    train = total - test if train is None else train
    if train < 1 or test < 1 or train + test > total:
        raise PlanError(
            f"test_size={test_size!r}, train_size={train_size!r}: expected at least one row in each set and no more "
            f"than the {total} rows that the parties hold, found {train} for training and {test} for the test"
        )
    return train, test


def _set_size(name: str, size: float, total: int, rounding: Callable[[float], int]) -> int:
    if is_integer(size):
        return int(size)
    if isinstance(size, float | np.floating) and 0 < size < 1:
        return rounding(float(size) * total)
    raise PlanError(f"{name}={size!r}: expected a fraction above 0 and below 1, or a number of rows")


def split_rows(
    count: int, train: int, test: int, *, seed: int, party: str, shuffle: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns (training rows, test rows) of one party: no row twice, and every row if `train + test == count`.

    The order depends on the seed, the party's name and nothing else, so arrays split alike stay aligned row by row.

    Args:
        count: Rows of the party.
        train: How many of them go to the training set.
        test: How many go to the test set.
        seed: Any integer.
        party: The party's name.
        shuffle: Whether to draw at random; otherwise the first rows are for training, the last for the test.

    Returns:
        Two arrays of row numbers, int64[train] and int64[test].
    """
    order = np.arange(count, dtype=np.int64)
    if shuffle:
        # A hash, since Python's own `hash` of a text differs from process to process. The party's name is in it:
        # parties must not draw the same row numbers.
        digest = hashlib.sha256(f"fedray/split/{seed}/{party}".encode()).digest()
        order = np.random.default_rng(int.from_bytes(digest)).permutation(order)
    # Not order[-test:], which for 0 is everything.
    return order[:train], order[count - test :]
