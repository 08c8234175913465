# SPDX-License-Identifier: Apache-2.0
"""Sums of widened numbers are exact, and their digits do not tell who carried."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.data.wide import BLIND_BITS, DIGIT_BITS, LIMIT, integers, quotient, widen, widen_integers

# Numbers whose last bit lies at or above 2^-144, so that nothing is cut off.
NUMBERS = st.floats(-1e40, 1e40).filter(lambda v: v == 0 or abs(v) > 1e-27)


@given(st.lists(NUMBERS, min_size=1, max_size=10), st.integers(1, 10**9))
def test_sums_and_quotients_are_rounded_once(values: list[float], divisor: int) -> None:
    digits = np.sum([widen(np.array([value])) for value in values], axis=0)
    exact = sum(map(Fraction, values), Fraction(0)) / divisor
    assert quotient(digits, divisor).tolist() == [float(exact)]


@given(st.lists(st.integers(-(2**286), 2**286), max_size=10))
def test_integers_come_back_exactly(numbers: list[int]) -> None:
    digits = widen_integers(numbers)
    assert digits.shape == (len(numbers), 12)
    assert integers(digits) == numbers
    assert integers(digits + digits) == [2 * number for number in numbers]


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -1.0, 1e-30, -3e42, np.nextafter(LIMIT, 0), 2.0**-144, 0.1])
def test_one_number_comes_back(value: float) -> None:
    assert quotient(widen(np.array(value)), 1) == pytest.approx(value, rel=1e-12, abs=0)


def test_shapes() -> None:
    for shape in ((), (3,), (2, 0), (2, 3, 4)):
        values = np.ones(shape)
        assert quotient(widen(values), 1).shape == shape


def test_what_is_too_small_counts_as_nothing() -> None:
    assert quotient(widen(np.array([1e-60, -1e-60])), 1).tolist() == [0, 0]


def test_256_parties_fit() -> None:
    most = np.full(1, np.nextafter(LIMIT, 0))
    assert np.abs(widen(np.concatenate([most, -most]))).max() < 2**55
    total = np.sum([widen(most) for _ in range(256)], axis=0, dtype=np.int64)
    assert quotient(total, 256) == most


def test_digits_are_fresh_each_time_and_hide_sign_and_carry() -> None:
    # Two pairs of addends with one sum: digits 1 and 0 carry in one of them, signs differ in the other.
    sums = {}
    for name, pair in {"carry": (0.75, 0.5), "none": (1.25, 0.0), "signs": (-3.0, 4.25)}.items():
        draws = np.stack([widen(np.full(400, pair[0])) + widen(np.full(400, pair[1])) for _ in range(5)])
        sums[name] = draws.reshape(-1, draws.shape[-1])
        assert len(np.unique(sums[name][:, 5])) > 1900
    for place in range(11):
        middle = [np.median(sums[name][:, place]) / 2.0 ** (DIGIT_BITS + BLIND_BITS) for name in sums]
        assert np.ptp(middle) < 0.1
