# SPDX-License-Identifier: Apache-2.0
"""Values that a party holds as one array of rows: a data frame of several types, and some columns of an array.

Runs inside a party, on its own value. Errors name party and column and never quote a value. Knows no file, no device.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.data.casting import Casting, cast
from fedray.data.columns import Names
from fedray.errors import DataError


def one_type(value: object, names: Names | None, where: str, dtype: str | None, casting: Casting) -> NDArray[Any]:
    """Returns a value as one array; columns of several types are brought to one that holds the numbers of all.

    Args:
        value: An array, a data frame, or what NumPy makes an array of.
        names: Names of its columns, for errors.
        where: What to call it in errors.
        dtype: Type to convert columns of several types to; None for one that holds them all.
        casting: What such a conversion may do.

    Raises:
        DataError: Some values are masked, which an array cannot say; or a column has integers that the others' type
            would round.
    """
    if np.ma.is_masked(value):
        raise DataError(
            f"{where}: expected numbers, found a masked array, whose masked values would count as numbers; fill them, "
            "e.g. with array.filled(np.nan)"
        )
    frame: Any = value
    if not hasattr(frame, "iloc") or getattr(frame, "ndim", 0) != 2 or len(set(frame.dtypes)) < 2:
        return np.asarray(value)
    columns = [np.asarray(frame.iloc[:, place]) for place in range(frame.shape[1])]
    if any(column.dtype.kind not in "biuf" for column in columns):
        return np.asarray(value)
    # One by one: pandas makes objects of booleans beside numbers, and rounds long integers beside floats in silence.
    common = dtype or np.result_type(*columns).name
    labels = names or tuple(map(str, range(len(columns))))
    cast_columns = [
        cast(column, common, f"{where}: column {label!r}", None, casting)
        for label, column in zip(labels, columns, strict=True)
    ]
    return np.stack(cast_columns, axis=1)


def columns_of(array: NDArray[Any], columns: str | int | Sequence[str | int] | None, where: str) -> NDArray[Any]:
    """Returns the wanted columns of an array, which have positions and no names.

    Args:
        array: Rows first.
        columns: As in `ReadOptions`.
        where: What to call it in errors.

    Raises:
        DataError: A column is asked for by a name, there is none at a position, or the array has no columns.
    """
    if columns is None:
        return array
    wanted = [columns] if isinstance(columns, str) or not isinstance(columns, Sequence) else list(columns)
    places = [int(column) for column in wanted if not isinstance(column, str)]
    if len(places) < len(wanted):
        raise DataError(f"{where}: columns={columns!r}: an array has no names of columns; choose by position, from 0")
    if array.ndim < 2 or not all(-array.shape[1] <= place < array.shape[1] for place in places):
        raise DataError(f"{where}: columns={columns!r}: expected positions of columns, found shape {array.shape}")
    found = array[:, np.array(places)]
    return found if isinstance(columns, Sequence) else found[:, 0]


def rounds_integers(texts: Sequence[str], read: Sequence[float]) -> bool:
    """Returns whether a text is that of a whole number, and was read as another one.

    Args:
        texts: Cells of a column.
        read: What they were read as.
    """
    whole = re.compile(r"[+-]?\d+")
    # What is larger than any float is infinite, which is no rounding and is found by whoever sums it.
    pairs = zip(texts, read, strict=True)
    return any(math.isfinite(b) and whole.fullmatch(a.strip()) and int(a) != int(b) for a, b in pairs)
