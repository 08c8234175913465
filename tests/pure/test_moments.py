# SPDX-License-Identifier: Apache-2.0
"""Deviations from sums that parties make around centres of their own, beside exact arithmetic on all their numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.data.moments import power_sums, too_small, variance

PARTS = st.lists(st.lists(st.floats(-1e6, 1e6), max_size=6), min_size=1, max_size=4).filter(any)


def summed(parts: list[np.ndarray], axes: tuple[int, ...] | None = None) -> list[int]:
    sums = [power_sums(part, axes) for part in parts]
    return [sum(column) for column in zip(*(one for one in sums if one is not None), strict=True)]


def exact(numbers: list[float], ddof: int = 0) -> float:
    mean = sum(map(Fraction, numbers), Fraction(0)) / len(numbers)
    return math.sqrt(sum((Fraction(v) - mean) ** 2 for v in numbers) / (len(numbers) - ddof))


@given(PARTS, st.floats(-1e9, 1e9))
def test_any_parts_give_the_deviation_of_all_numbers(parts: list[list[float]], shift: float) -> None:
    arrays = [np.array(part, np.float64) + shift for part in parts]
    pooled = np.concatenate(arrays)
    found = np.sqrt(variance(summed(arrays), len(pooled), 0))
    # The floor: what is cut off at 2^-160 of a square.
    assert found[0] == pytest.approx(exact(pooled.tolist()), rel=1e-12, abs=1e-23)


def test_by_column_and_by_degree_of_freedom() -> None:
    parts = [np.arange(12.0).reshape(4, 3) ** 2, np.ones((1, 3)), np.zeros((0, 3))]
    pooled = np.concatenate(parts)
    assert np.allclose(np.sqrt(variance(summed(parts, (0,)), 5, 2)), pooled.std(axis=0, ddof=2), rtol=1e-15)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "float32"])
def test_small_types_neither_overflow_nor_round(dtype: str) -> None:
    parts = [np.arange(250).astype(dtype), np.full(7, 200).astype(dtype)]
    pooled = np.concatenate(parts).astype(np.float64)
    assert np.sqrt(variance(summed(parts), len(pooled), 0))[0] == pytest.approx(pooled.std(), rel=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, 1e60, 2.0**80])
def test_what_is_no_number_or_too_large_has_no_sums(bad: float) -> None:
    assert power_sums(np.array([1.0, bad]), None) is None
    assert power_sums(np.array([[1.0, bad], [1.0, 1.0]]), (0,)) is None


@pytest.mark.parametrize("unit", [5e-324, 1e-200, 1e-30, 1e-20])
def test_numbers_whose_squares_are_lost_are_told_from_zeros_and_are_nothing_beside_larger_ones(unit: float) -> None:
    small, zeros = np.array([1.0, -1.0, 3.0]) * unit, np.zeros(3)
    assert too_small(summed([small, small]), 6)
    assert too_small(summed([small, zeros]), 6)
    assert not too_small(summed([zeros, zeros]), 6)
    assert not too_small(summed([small, zeros + 1.0]), 6)
    assert not too_small(summed([zeros + 1e-19, zeros + 1e-19]), 6)


def test_the_partys_own_array_is_left_alone() -> None:
    mine = np.arange(5.0)
    power_sums(mine, None)
    assert mine.tolist() == [0, 1, 2, 3, 4]
