# SPDX-License-Identifier: Apache-2.0
"""Columns of the same names come in one order, those of other names are told apart."""

from __future__ import annotations

import pytest

from fedray.data.columns import common_order, joined, kept, stretched
from fedray.errors import DataError

ABC = ("a", "b", "c")


def test_the_order_is_the_first_partys() -> None:
    found = {"alice": ABC, "bob": ("c", "a", "b"), "carol": ABC}
    assert common_order(found) == {"bob": [1, 2, 0]}
    assert common_order({"alice": ("a", "a"), "bob": ("a", "a")}) == {}


def test_the_difference_is_told_for_every_party() -> None:
    found = {"alice": ("Age", "weight", "id"), "bob": ("age ", "weight", "id"), "carol": ("x",), "dave": ("id", "Age")}
    with pytest.raises(DataError) as caught:
        common_order(found)
    assert str(caught.value) == (
        "party 'bob': expected the columns of 'alice', found missing 'Age', extra 'age ' (is 'age ' meant for 'Age'?); "
        "party 'carol': expected the columns of 'alice', found missing 'Age', 'weight', 'id', extra 'x'; "
        "party 'dave': expected the columns of 'alice', found missing 'weight'. Rename them, choose by name with "
        "columns=[...], or by position with columns=[0, 1, ...]"
    )


def test_long_differences_are_cut() -> None:
    with pytest.raises(DataError, match="missing 'a0', 'a1', 'a2', 'a3', 'a4' and 5 more, extra 'z'"):
        common_order({"alice": tuple(f"a{k}" for k in range(10)), "bob": ("z",)})


def test_a_name_twice_has_no_order() -> None:
    with pytest.raises(DataError, match=r"party 'bob': .* in the same order, since 'a' is there more than once"):
        common_order({"alice": ("a", "a", "b"), "bob": ("a", "b", "a")})


def test_names_after_an_index() -> None:
    assert kept(ABC, ()) == ABC
    assert kept(ABC, (...,)) == ABC
    assert kept(ABC, (slice(None, None, -2),)) == ("c", "a")
    for rest in ((0,), (None,), (..., None), (..., 0), (slice(None), None)):
        assert kept(ABC, rest) is None
    assert kept(None, (slice(1),)) is None


def test_names_after_an_operation() -> None:
    assert joined("add", ABC, ABC) == ABC
    assert joined("add", ABC, None) == joined("add", None, ABC) == ABC
    assert joined("add", ("a",), None) is None
    assert joined("add", ("a",), ("a",)) == ("a",)
    assert joined("add", ABC, ("x", "y", "z")) is None
    assert joined("add", None, None) is None
    with pytest.raises(DataError, match="add: expected the same columns in the same order, found 'a', 'b', 'c' and"):
        joined("add", ABC, ("c", "b", "a"))
    assert stretched(ABC, ()) == stretched(ABC, (3,)) == stretched(ABC, (1,)) == stretched(ABC, (1, 3)) == ABC
    assert stretched(("a",), (3,)) is None
    assert stretched(None, ()) is None
