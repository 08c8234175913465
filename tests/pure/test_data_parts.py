# SPDX-License-Identifier: Apache-2.0
"""Arrays that do not fit together are refused with party, expected, found and remedy."""

from __future__ import annotations

import numpy as np
import pytest

from fedray.data import inside
from fedray.data.parts import ArrayPart, joint_dtype, joint_shape, require_rows, require_same_rows
from fedray.errors import DataError
from fedray.protocol.limbs import FRACTION_BITS, gather, limb_count, rounded


def test_joint_shape_adds_rows() -> None:
    assert joint_shape({"alice": ArrayPart((3, 2), "f4"), "bob": ArrayPart((0, 2), "f4")}) == (3, 2)
    assert joint_shape({"alice": ArrayPart((3,), "f4"), "bob": ArrayPart((4,), "f4")}) == (7,)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 1)])
def test_rows_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        DataError, match=r"party 'bob': expected rows of shape \(2,\) as at 'alice', found .*np.reshape"
    ):
        joint_shape({"alice": ArrayPart((3, 2), "float32"), "bob": ArrayPart(shape, "float32")})


def test_joint_dtype() -> None:
    parts = {"alice": ArrayPart((3,), "float32"), "bob": ArrayPart((3,), "float32")}
    assert joint_dtype(parts) == np.float32
    with pytest.raises(
        DataError, match=r"party 'bob': expected dtype float32 as at 'alice', found int64; .*astype\('float64'\)"
    ):
        joint_dtype({**parts, "bob": ArrayPart((3,), "int64")})


def test_the_type_that_is_advised_holds_all_parties_numbers() -> None:
    for dtypes, common in {
        ("int64", "float64"): "float64",
        ("float64", "int64"): "float64",
        ("uint8", "int8", "bool"): "int16",
        ("float32", "float64"): "float64",
        ("bool", "int32"): "int32",
    }.items():
        parts = {f"party {place}": ArrayPart((3,), dtype) for place, dtype in enumerate(dtypes)}
        with pytest.raises(DataError, match=rf"load\(\.\.\., dtype='{common}'\) or x\.astype\('{common}'\)"):
            joint_dtype(parts)


def test_empty_part() -> None:
    with pytest.raises(DataError, match=r"party 'bob': expected at least one row, found an array of shape \(0, 2\)"):
        require_rows({"alice": ArrayPart((3, 2), "float32"), "bob": ArrayPart((0, 2), "float32")})


def test_same_rows() -> None:
    model = {"alice": ArrayPart((3, 2), "f4"), "bob": ArrayPart((4, 2), "f4")}
    require_same_rows("y", {"alice": ArrayPart((3,), "i8"), "bob": ArrayPart((4,), "i8")}, model)
    with pytest.raises(DataError, match="party 'bob': y has 5 rows, expected 4"):
        require_same_rows("y", {"alice": ArrayPart((3,), "i8"), "bob": ArrayPart((5,), "i8")}, model)
    for parties in (["alice"], ["bob", "alice"], ["alice", "carol"]):
        with pytest.raises(DataError, match=r"y: expected the parties \['alice', 'bob'\]"):
            require_same_rows("y", {party: ArrayPart((3,), "i8") for party in parties}, model)


def combine(mine: object, other: object, rowwise: bool = True, swapped: bool = False) -> np.ndarray:
    return inside.combine("bob", np.subtract, np.asarray(mine), other, rowwise=rowwise, swapped=swapped)


def test_combine_keeps_the_rows() -> None:
    assert combine([[1, 2], [3, 4]], np.array([[1], [2]])).tolist() == [[0, 1], [1, 2]]
    assert combine([[1, 2], [3, 4]], np.array([1, 2]), rowwise=False).tolist() == [[0, 0], [2, 2]]
    assert combine([[1, 2], [3, 4]], np.array([[1, 2]]), rowwise=False).tolist() == [[0, 0], [2, 2]]
    assert combine([1, 2], 10, rowwise=False, swapped=True).tolist() == [9, 8]


@pytest.mark.parametrize(
    ("mine", "other", "rowwise", "match"),
    [
        (np.ones((2, 2)), np.ones(2), True, "same number of axes"),
        (np.ones((2, 2)), np.ones((1, 2)), True, "same rows"),
        (np.ones((1, 2)), np.ones((2, 2)), True, "same rows"),
        (np.ones((2, 2)), np.ones((2, 2)), False, "load"),
        (np.ones((2, 2)), np.ones((1, 2, 2)), False, "load"),
        (np.ones((1, 2)), np.ones((2, 2, 2)), False, "load"),
        (np.ones((2, 2)), np.ones(3), False, r"does not work on \(2, 2\) float64 and \(3,\)"),
        (np.ones(2, bool), np.ones(2, bool), True, "does not work on .* bool"),
    ],
)
def test_combine_refuses_what_would_mix_rows(mine: np.ndarray, other: np.ndarray, rowwise: bool, match: str) -> None:
    with pytest.raises(DataError, match=f"party 'bob': subtract.*({match})"):
        combine(mine, other, rowwise)


def test_sums_without_rows_are_zeros_of_the_right_shape() -> None:
    nothing = np.ones((0, 3))
    assert inside.real_sum("bob", nothing, (0,)).tolist() == [0, 0, 0]
    assert inside.real_sum("bob", nothing, None).shape == ()
    assert inside.square_sums("bob", nothing, (0,)) == [0] * 6
    assert inside.integer_sum("bob", nothing > 0, (0,)).tolist() == [0, 0, 0]


def test_small_types_do_not_overflow() -> None:
    many = np.full(1000, 200, np.uint8)
    assert inside.real_sum("bob", many, None) == 200_000
    assert inside.integer_sum("bob", many, None) == 200_000
    assert inside.square_sums("bob", many[:2], None) == [400 << FRACTION_BITS, 80_000 << FRACTION_BITS]


def test_every_kind_of_sum_becomes_words_with_a_mark() -> None:
    """Integers are words as they are; limbs of real numbers and of Python's integers are other ones at each call."""
    mine = np.array([3, 4])
    assert inside.marked("bob", 1, 3, inside.integer_sum, mine, None).tolist() == [7, 0, 1, 0]
    for fn, numbers in ((inside.real_sum, [7.0]), (inside.square_sums, [7.0, 25.0])):
        words, again = (inside.marked("bob", 1, 3, fn, mine, None) for _ in range(2))
        assert words[-3:].tolist() == [0, 1, 0]
        assert rounded(gather(words[:-3].reshape(-1, limb_count(3)), 3)).tolist() == numbers
        assert (words != again)[:-3].all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_sums_that_are_no_numbers_name_the_party(bad: float) -> None:
    with pytest.raises(DataError, match="party 'bob': the sum over its rows is not a number or not finite"):
        inside.real_sum("bob", np.array([1.0, bad]), None)
    with pytest.raises(DataError, match="party 'bob': the sum over its rows is not a number or not finite"):
        inside.square_sums("bob", np.array([1.0, bad]), None)


def test_integers_too_large_to_add_are_refused() -> None:
    with pytest.raises(DataError, match=r"party 'bob': .*float64"):
        inside.integer_sum("bob", np.array([2**54, 2**54]), None)


def test_take_explains_a_wrong_index() -> None:
    with pytest.raises(DataError, match=r"party 'bob': an array of shape \(2, 3\): index 5 is out of bounds"):
        inside.take("bob", np.ones((2, 3)), slice(None), (5,))
    assert inside.take("bob", np.ones((2, 3)), slice(None), (..., None)).shape == (2, 3, 1)
    assert inside.take("bob", np.ones((2, 3)), slice(1), (..., 0)).shape == (1,)
