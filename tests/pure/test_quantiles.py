# SPDX-License-Identifier: Apache-2.0
"""The search for quantiles from counts alone, for all types of numbers."""

import numpy as np
import pytest

from fedray.data import quantiles
from fedray.data.quantiles import MOST_ROUNDS, Bisection, rank_of

LONG = ("float64", "int64", "uint64")
DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool")


def search(values, q):
    """Returns what is found in float64[n, k] or the like along its rows, and with how many counts."""
    bisection, rounds = Bisection([values.dtype.name], values.shape[1:], rank_of(q, len(values))), 0
    while not bisection.done:
        bisection.narrow(np.sum(values <= bisection.thresholds(), axis=0))
        rounds += 1
    return bisection.found(), rounds


def values_of(dtype, scale):
    values = np.random.default_rng(3).normal(0, 50, (101, 3)) * scale
    if dtype == "bool":
        return values > 0
    if dtype == "float16":
        values = np.clip(values, -60000, 60000)
    with np.errstate(all="ignore"):
        return (abs(values) if dtype.startswith("u") else values).astype(dtype)


@pytest.mark.parametrize("scale", [1, 1e4, 1e-20])
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_numpy_s_quantile(dtype, scale):
    values = values_of(dtype, scale)
    for q in (0, 0.25, 0.5, 0.9, 1):
        found, rounds = search(values, q)
        expected = np.quantile(values.astype("u1") if dtype == "bool" else values, q, axis=0, method="inverted_cdf")
        assert found.dtype == values.dtype
        assert rounds == min(8 * values.dtype.itemsize, MOST_ROUNDS)
        tolerance = 2**-28 if dtype in LONG else 0
        assert np.allclose(found.astype(float), expected.astype(float), rtol=tolerance, atol=0)


def test_the_ends_of_the_types_and_whole_numbers_come_out_as_they_are():
    for values in ([-np.inf, 1.0, np.inf], [255.0, 7.0, -3.0, -255.0, 0.0, 1e6 + 1], [-0.0, 0.0, 0.0]):
        column = np.array(values)[:, None]
        for q in (0, 0.4, 0.5, 0.7, 1):
            expected = np.quantile(column, q, axis=0, method="inverted_cdf")
            assert np.array_equal(search(column, q)[0], expected), (values, q)
    assert not np.signbit(search(np.array([[-0.0], [0.0]]), 1)[0])
    for dtype in ("int64", "uint64", "int32", "int8"):
        ends = np.iinfo(dtype)
        column = np.array([[ends.min], [5], [ends.max]], dtype)
        assert [int(search(column, q)[0][0]) for q in (0, 0.5)] == [ends.min, 5]
        assert abs(int(search(column, 1)[0][0]) - ends.max) <= ends.max >> 28


def test_it_takes_40_counts_and_not_more():
    assert max(search(values_of(dtype, 1), 0.5)[1] for dtype in DTYPES) == MOST_ROUNDS == 40


def test_a_search_that_halves_numbers_and_not_keys_is_found(monkeypatch):
    """The broken variant: the middle of a range of numbers; small ones among large ones take hundreds of steps."""
    values = np.array([[1e-9], [2e-9], [1e9]])

    def middle(bisection):
        low, high = (bisection._order.numbers(key) for key in (bisection._low + np.uint64(1), bisection._high))
        with np.errstate(all="ignore"):
            between = np.clip(low / 2 + high / 2, -1e300, 1e300)
        return np.clip(bisection._order.keys(between), bisection._low + np.uint64(1), bisection._high)

    assert abs(search(values, 0.5)[0][0] - 2e-9) < 2e-9 * 2**-28
    monkeypatch.setattr(quantiles.Bisection, "_middle", middle)
    assert abs(search(values, 0.5)[0][0] - 2e-9) > 2e-9 * 2**-28


@pytest.mark.parametrize(("q", "count", "rank"), [(0, 5, 1), (1, 5, 5), (0.5, 5, 3), (0.5, 4, 2), (0.07, 100, 7)])
def test_ranks(q, count, rank):
    assert rank_of(q, count) == rank
