# SPDX-License-Identifier: Apache-2.0
"""What runs inside a party where a function of NumPy's, or of the user's, is applied to its rows.

Whatever it is, the party's rows stay as many as they were: each row of the result stands for the row of that number.
Errors name the party and give shapes, never values. Knows no device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.data.warned import named
from fedray.errors import DataError

Array = NDArray[Any]
Shape = tuple[int, ...]


def mapped(party: str, name: str, fn: Callable[[Array], Any], mine: Array, columns: int | None = None) -> Array:
    """Returns `fn(mine)`, an array with a row for each row of `mine`.

    Args:
        party: The party's name, for errors.
        name: What `fn` is called, for errors.
        fn: The user's function.
        mine: The party's array.
        columns: How many columns the result has, as its names say; None where they have no names.

    Raises:
        DataError: It has other rows or columns.
    """
    found = _checked(party, name, mine, fn(mine))
    if columns is not None and found.shape[1:] != (columns,):
        raise DataError(
            f"party {party!r}: {name}: expected {columns} columns, as there are names, found shape {found.shape}"
        )
    return found


def applied(
    party: str,
    fn: Callable[..., Any],
    parts: Sequence[Array],
    foreign: Sequence[Shape],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Array:
    """Returns `fn(*args, **kwargs)`, in which each row is made of the same rows of this party's arrays.

    Args:
        party: The party's name, for errors.
        fn: A function of NumPy's that works element by element and stretches what is smaller.
        parts: Those of the arguments that are this party's parts of arrays.
        foreign: Shapes of those that are the same for all parties.
        args: All arguments, the parts among them.
        kwargs: The same, by name.

    Raises:
        DataError: The arguments do not go together row by row.
    """
    first, name = parts[0], getattr(fn, "__name__", "function")
    # NumPy would stretch what happens to fit: one number per row over the columns of a table with as many.
    if any(part.ndim != first.ndim or len(part) != len(first) for part in parts):
        found = ", ".join(str(part.shape) for part in parts)
        raise DataError(
            f"party {party!r}: {name}: expected the same rows and the same number of axes, found shapes {found}; add "
            "axes with y[..., None]"
        )
    if any(len(shape) > first.ndim or (len(shape) == first.ndim and shape[0] != 1) for shape in foreign):
        raise DataError(
            f"party {party!r}: {name}: expected numbers or arrays that are the same for every row of shape "
            f"{first.shape[1:]}, found shape {max(foreign, key=len)}; an array with rows of its own is placed with "
            "load({...}) first"
        )
    return side_by_side(party, fn, parts, args, kwargs)


def side_by_side(
    party: str, fn: Callable[..., Any], parts: Sequence[Array], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Array:
    """Returns `fn(*args, **kwargs)`, which keeps the rows, such as `np.concatenate([a, b], axis=1)`.

    Args:
        party: The party's name, for errors.
        fn: A function of NumPy's.
        parts: Those of the arguments that are this party's parts of arrays.
        args: All arguments.
        kwargs: The same, by name.

    Raises:
        DataError: The arguments do not go together, or the result has other rows.
    """
    name = getattr(fn, "__name__", "function")
    try:
        with named(party, name):
            found = fn(*args, **kwargs)
    except (ValueError, TypeError):  # worded anew: NumPy's text may quote a value
        shapes = ", ".join(f"{part.shape} {part.dtype}" for part in parts)
        raise DataError(f"party {party!r}: {name} does not work on {shapes}") from None
    return _checked(party, name, parts[0], found)


def reshaped(mine: Array, rest: Shape) -> Array:
    """Returns `mine` with each of its rows in another shape; shape (rows, *rest)."""
    return mine.reshape((len(mine), *rest))


def turned(mine: Array, axes: Shape) -> Array:
    """Returns `mine` with its axes in another order, the rows first as before."""
    return mine.transpose(axes)


def _checked(party: str, name: str, mine: Array, found: Any) -> Array:
    if np.ma.is_masked(found):
        raise DataError(
            f"party {party!r}: {name}: expected an array, found a masked one, whose masked values would count as "
            "numbers; fill them, e.g. with .filled(np.nan)"
        )
    array = np.asarray(found)
    if array.shape[:1] != mine.shape[:1]:
        raise DataError(
            f"party {party!r}: {name}: expected a row for each of its {len(mine)} rows, found shape {array.shape}; "
            f"anything else stays with {party}, as {party}(fn)(x.partitions[{party}])"
        )
    return array
