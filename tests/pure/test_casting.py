# SPDX-License-Identifier: Apache-2.0
"""A conversion gives NumPy's numbers, all of them the same as before, or it is refused by party and column."""

from __future__ import annotations

import numpy as np
import pytest

from fedray.data.casting import cast
from fedray.errors import DataError

NAN, INF = np.nan, np.inf
I64, U64 = np.iinfo(np.int64), np.iinfo(np.uint64)

LOSES = [
    ([0.37], "float64", "int64"),
    ([NAN], "float64", "int64"),
    ([INF], "float32", "int32"),
    ([-INF], "float16", "int64"),
    ([2.0**63], "float64", "int64"),
    ([2.0**64], "float64", "uint64"),
    ([-1.0], "float64", "uint8"),
    ([128.0], "float32", "int8"),
    ([2**24 + 1], "int64", "float32"),
    ([2**53 + 1], "int64", "float64"),
    ([I64.max], "int64", "float64"),
    ([U64.max], "uint64", "float64"),
    ([2049], "int16", "float16"),
    ([70_000], "int32", "float16"),
    ([300], "int64", "uint8"),
    ([-1], "int8", "uint8"),
    ([-1], "int64", "uint64"),
    ([2**63], "uint64", "int64"),
    ([1e300], "float64", "float32"),
    ([2], "int64", "bool"),
    ([0.5], "float64", "bool"),
    ([NAN], "float64", "bool"),
]

KEEPS = [
    ([0.1, NAN, INF, -INF, 1e-60], "float64", "float32"),
    ([-(2.0**63), 2.0**62, -0.0], "float64", "int64"),
    ([2.0**63], "float64", "uint64"),
    ([127.0, -128.0], "float16", "int8"),
    ([2**24, -(2**24), 2**40], "int64", "float32"),
    ([I64.min], "int64", "float64"),
    ([255, 0], "int64", "uint8"),
    ([2**63 - 1], "uint64", "int64"),
    ([True, False], "bool", "float16"),
    ([0, 1], "int64", "bool"),
    ([0.0, 1.0], "float64", "bool"),
    ([1.5, NAN], "float32", "float64"),
    ([], "float64", "int8"),
]


@pytest.mark.parametrize(("values", "source", "target"), LOSES)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast", "ignore:overflow encountered in cast")
def test_what_would_change_is_refused(values: list[float], source: str, target: str) -> None:
    array = np.array([0, *values, 1], dtype=source)
    with pytest.raises(DataError, match=rf"^party 'bob': a cast from {source} to {target} would change .*'unsafe'$"):
        cast(array, target, "party 'bob'")
    assert np.array_equal(cast(array, target, "party 'bob'", casting="unsafe"), array.astype(target))


@pytest.mark.parametrize(("values", "source", "target"), KEEPS)
def test_what_stays_is_what_numpy_gives(values: list[float], source: str, target: str) -> None:
    array = np.array(values, dtype=source)
    found = cast(array, target, "party 'bob'")
    assert found.dtype == target
    assert np.array_equal(found, array.astype(target), equal_nan=found.dtype.kind == "f")


def test_the_same_type_is_the_same_object() -> None:
    array = np.array([NAN])
    assert cast(array, "float64", "party 'bob'") is array


def test_columns_are_named() -> None:
    table = np.array([[1, 0.25, 2, 0.5, 0.75, 0.125, 3]])
    names = [*"abcdefg"]
    with pytest.raises(DataError, match="'bob': column 'b', 'd', 'e' and 1 more: a cast"):
        cast(table, "int8", "party 'bob'", names)
    with pytest.raises(DataError, match="'bob': column 1, 3, 4 and 1 more: a cast"):
        cast(table, "int8", "party 'bob'")
