# SPDX-License-Identifier: Apache-2.0
"""What runs inside a party when a `FedNdarray` is computed with.

Plain NumPy on the party's own array. Errors name the party and give shapes and dtypes, never values. Knows no device.
"""

from __future__ import annotations

from collections.abc import Callable
from os import urandom
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.data.apportion import split_rows
from fedray.data.casting import Casting, cast
from fedray.data.columns import Names
from fedray.data.moments import power_sums
from fedray.data.rows import Rest
from fedray.data.warned import named
from fedray.errors import DataError
from fedray.party.parcel import dtype_of
from fedray.protocol.limbs import LEAST, LIMIT, spread, spread_integers

Array = NDArray[Any]

_LARGEST_INTEGER = 2.0**55
"""Largest integer that a party may add, so that the sums of 256 parties fit into 63 bits."""


def combine(party: str, ufunc: np.ufunc, mine: Array, other: Any, *, rowwise: bool, swapped: bool) -> Array:
    """Returns `ufunc(mine, other)`, which has the rows of `mine`.

    Args:
        party: The party's name, for errors.
        ufunc: An elementwise operation on two arrays.
        mine: The party's array.
        other: The party's part of another such array if `rowwise`; otherwise a number or an array that is the same
            for all rows of all parties.
        rowwise: Whether `other` has a row for each row of `mine`.
        swapped: Whether to compute `ufunc(other, mine)`.

    Raises:
        DataError: The two do not fit, or the operation does not know these dtypes.
    """
    theirs = np.shape(other)
    # NumPy would stretch a party's single row over all of the other's, and only at parties of that size.
    if rowwise and (len(theirs) != mine.ndim or theirs[:1] != mine.shape[:1]):
        raise DataError(
            f"party {party!r}: {ufunc.__name__}: expected the same rows and the same number of axes, found shapes "
            f"{mine.shape} and {theirs}; add axes with y[..., None]"
        )
    if not rowwise and (len(theirs) > mine.ndim or (len(theirs) == mine.ndim and theirs[:1] != (1,))):
        raise DataError(
            f"party {party!r}: {ufunc.__name__}: expected a number or an array that is the same for every row of shape "
            f"{mine.shape[1:]}, found shape {theirs}; an array with rows of its own is placed with load({{...}}) first"
        )
    try:
        with named(party, ufunc.__name__):
            # asarray, since NumPy turns an array without axes into a number.
            return np.asarray(ufunc(other, mine) if swapped else ufunc(mine, other))
    except OverflowError:  # a number of Python's beside an array of short integers
        raise DataError(
            f"party {party!r}: {ufunc.__name__}: the number is beyond what {dtype_of(mine)} holds; convert the array "
            "first, with x.astype('int64')"
        ) from None
    except (ValueError, TypeError):  # worded anew: NumPy's text may quote a value
        found = f"{mine.shape} {dtype_of(mine)} and {theirs} {dtype_of(np.asarray(other))}"
        raise DataError(f"party {party!r}: {ufunc.__name__} does not work on {found}") from None


def transform(party: str, ufunc: np.ufunc, mine: Array) -> Array:
    """Returns `ufunc(mine)`.

    Args:
        party: The party's name, for errors.
        ufunc: An elementwise operation on one array.
        mine: The party's array.

    Raises:
        DataError: The operation does not know this dtype.
    """
    try:
        with named(party, ufunc.__name__):
            return np.asarray(ufunc(mine))
    except TypeError:
        raise DataError(f"party {party!r}: {ufunc.__name__} does not work on {mine.shape} {dtype_of(mine)}") from None


def take(party: str, mine: Array, rows: int | slice, rest: Rest) -> Array:
    """Returns `mine[rows, *rest]`, a view where NumPy gives one.

    Args:
        party: The party's name, for errors.
        mine: The party's array.
        rows: Which of its rows; an integer gives one row without its axis.
        rest: Indices of the other axes.

    Raises:
        DataError: The array has no such axis or element.
    """
    try:
        return np.asarray(mine[(rows, *rest)])
    except IndexError as error:
        raise DataError(f"party {party!r}: an array of shape {mine.shape}: {error}") from None


def take_columns(mine: Array, order: list[int]) -> Array:
    """Returns the columns of a table in another order."""
    return mine[:, order]


def convert(party: str, mine: Array, dtype: str, casting: Casting, columns: Names | None) -> Array:
    """Returns `mine` as `dtype`; see `fedray.data.casting.cast`.

    Args:
        party: The party's name, for errors.
        mine: The party's array.
        dtype: Name of the type.
        casting: What the conversion may do.
        columns: Names of the columns, for errors.

    Raises:
        DataError: A number would become another one.
    """
    return cast(mine, dtype, f"party {party!r}", columns, casting)


def split(party: str, mine: Array, train: int, test: int, seed: int, shuffle: bool) -> tuple[Array, Array]:
    """Returns (training rows, test rows) of `mine`, the same rows for every array split with the same arguments.

    Args:
        party: The party's name, which enters the draw.
        mine: The party's array.
        train: How many of its rows go to the training set.
        test: How many go to the test set.
        seed: Seed of the draw.
        shuffle: Whether to draw at random.
    """
    train_rows, test_rows = split_rows(len(mine), train, test, seed=seed, party=party, shuffle=shuffle)
    return mine[train_rows], mine[test_rows]


def marked(
    party: str,
    place: int,
    places: int,
    fn: Callable[[str, Array, tuple[int, ...] | None], NDArray[Any] | list[int]],
    mine: Array,
    axes: tuple[int, ...] | None,
) -> NDArray[np.int64]:
    """Returns the words of `fn`'s result, flat, and after them a mark that this party is in the sum.

    Integers are words as they are. Real numbers, and Python's integers, which stand for multiples of 2^-160, are spread
    over limbs, whose sums over parties are exact.

    The marks go under the same mask as the words: what opens says itself whose rows it is made of.

    Args:
        party: The party's name, for errors.
        place: Which of the marks is this party's.
        places: How many parties there are.
        fn: What the party adds, e.g. `real_sum`.
        mine: The party's array.
        axes: The axes to sum over, the rows among them; `None` for all.

    Returns:
        int64[n + places].
    """
    marks = np.zeros(places, np.int64)
    marks[place] = 1
    found = fn(party, mine, axes)
    if isinstance(found, list):
        words = spread_integers(found, places, urandom)
    elif found.dtype.kind == "f":
        words = spread(found.ravel(), places, urandom)
    else:
        words = found
    return np.concatenate([words.ravel(), marks])


def real_sum(party: str, mine: Array, axes: tuple[int, ...] | None) -> NDArray[np.float64]:
    """Returns the sum over `axes`, taken in float64.

    Args:
        party: The party's name, for errors.
        mine: The party's array.
        axes: The axes to sum over, the rows among them; `None` for all.

    Raises:
        DataError: The sum is not finite, or above 2^160; or all its terms are so small that it would lose digits.
    """
    found: NDArray[np.float64] = np.asarray(np.sum(mine, axis=axes, dtype=np.float64))
    # This way round, so that NaN, which is not smaller than anything, is found as well.
    if not np.all(np.abs(found) < LIMIT):
        raise DataError(_not_finite(party))
    small = (found != 0) & (np.abs(found) < LEAST)
    # Looked for where it may be so only, as it takes another pass over the rows. A sum that is small since its terms
    # cancel out is right as it is: what is lost of it is nothing beside them.
    if small.any() and np.any(small & (np.max(np.abs(mine), axis=axes) < LEAST)):
        raise DataError(
            f"party {party!r}: numbers that are all below 2^-128, about 3e-39, would lose digits in a sum, or count as "
            "0; sum them in a smaller unit, e.g. x.astype('float64') * 2.0**100, or set them to 0"
        )
    return found


def square_sums(party: str, mine: Array, axes: tuple[int, ...] | None) -> list[int]:
    """Returns the sums over `axes` of the numbers and of their squares; see `fedray.data.moments.power_sums`.

    Args:
        party: The party's name, for errors.
        mine: The party's array.
        axes: The axes to sum over, the rows among them; `None` for all.

    Raises:
        DataError: As `real_sum`.
    """
    sums = power_sums(mine, axes)
    if sums is None:
        raise DataError(_not_finite(party, ", or that of their squares is above 2^160, about 1e48"))
    return sums


def counts_up_to(party: str, mine: Array, axes: tuple[int, ...] | None, thresholds: NDArray[Any]) -> NDArray[np.int64]:
    """Returns how many elements are at most as large as a threshold, and behind these how many are no numbers.

    Args:
        party: The party's name, which is not needed.
        mine: The party's array.
        axes: The axes to count over, the rows among them; `None` for all.
        thresholds: One for each number of the result, in its shape.

    Returns:
        int64[2n].
    """
    del party
    across = thresholds if axes is None else np.expand_dims(thresholds, axes)
    found = np.sum(mine <= across, axis=axes, dtype=np.int64)
    return np.append(found, np.sum(np.isnan(mine), axis=axes, dtype=np.int64))


def integer_sum(party: str, mine: Array, axes: tuple[int, ...] | None) -> NDArray[np.int64]:
    """Returns the sum over `axes` of booleans or integers.

    Args:
        party: The party's name, for errors.
        mine: The party's array, of booleans or integers.
        axes: The axes to sum over, the rows among them; `None` for all.

    Raises:
        DataError: It does not fit.
    """
    # In float64, which cannot wrap round as int64 does.
    if np.any(np.abs(np.sum(mine, axis=axes, dtype=np.float64)) >= _LARGEST_INTEGER):
        raise DataError(f"party {party!r}: the integers' sum exceeds 2^55; sum them as x.astype('float64')")
    return np.asarray(np.sum(mine, axis=axes, dtype=np.int64))


def _not_finite(party: str, more: str = "") -> str:
    return (
        f"party {party!r}: the sum over its rows is not a number or not finite{more}; look for NaN and infinity, e.g. "
        f"with {party}(np.isfinite)(x.partitions[{party}])"
    )
