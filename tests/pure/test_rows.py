# SPDX-License-Identifier: Apache-2.0
"""Row arithmetic against NumPy on the same rows held in one place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.data.rows import (
    apportion,
    as_slice,
    even_ranges,
    fraction_ranges,
    local_ranges,
    locate,
    row_axes,
    split_key,
    split_rows,
)
from fedray.errors import PlanError

SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=5)
BOUND = st.none() | st.integers(-20, 20)
STEP = st.none() | st.integers(-7, 7).filter(bool)


def parties_of(sizes: list[int]) -> list[np.ndarray]:
    return np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])


@given(SIZES, st.builds(slice, BOUND, BOUND, STEP))
def test_pieces_end_to_end_are_the_slice(sizes: list[int], rows: slice) -> None:
    ranges = local_ranges(sizes, rows)
    pieces = [part[as_slice(own)] for part, own in zip(parties_of(sizes), ranges, strict=True)]
    if (rows.step or 1) < 0:
        pieces.reverse()
    assert np.concatenate(pieces).tolist() == np.arange(sum(sizes))[rows].tolist()


def test_every_small_slice() -> None:
    sizes = [2, 0, 3, 1]
    everything = np.arange(6)
    bounds = [None, *range(-8, 9)]
    for start in bounds:
        for stop in bounds:
            for step in (None, -7, -3, -2, -1, 1, 2, 3, 7):
                rows = slice(start, stop, step)
                ranges = local_ranges(sizes, rows)
                pieces = [part[as_slice(own)] for part, own in zip(parties_of(sizes), ranges, strict=True)]
                ordered = pieces[::-1] if (step or 1) < 0 else pieces
                assert np.concatenate(ordered).tolist() == everything[rows].tolist(), rows


@given(SIZES, st.builds(slice, BOUND, BOUND, STEP))
def test_ranges_stay_inside_their_party(sizes: list[int], rows: slice) -> None:
    for size, own in zip(sizes, local_ranges(sizes, rows), strict=True):
        assert all(0 <= row < size for row in own)


@pytest.mark.parametrize("rows", [slice(None, None, 0), slice("a"), slice(1.5)])
def test_impossible_slices_are_refused(rows: slice) -> None:
    with pytest.raises(PlanError, match="step other than 0"):
        local_ranges([3], rows)


@given(SIZES)
def test_locate_finds_every_row_from_both_ends(sizes: list[int]) -> None:
    total = sum(sizes)
    parts = parties_of(sizes)
    for row in range(-total, total):
        party, local = locate(sizes, row)
        assert parts[party][local] == row % total
    for row in (-total - 1, total):
        with pytest.raises(PlanError, match=f"row {row}"):
            locate(sizes, row)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (3, (3, ())),
        (np.int64(-1), (-1, ())),
        (slice(1, 2), (slice(1, 2), ())),
        (..., (slice(None), (...,))),
        ((..., None), (slice(None), (..., None))),
        ((slice(2), 0), (slice(2), (0,))),
        ((), (slice(None), ())),
    ],
)
def test_split_key(key: object, expected: tuple[object, object]) -> None:
    assert split_key(key) == expected


@pytest.mark.parametrize("key", [[0, 1], np.array([True]), 1.0, "x", True, (slice(None), [0]), (0, True)])
def test_index_arrays_are_refused_with_the_remedy(key: object) -> None:
    with pytest.raises(PlanError, match=r"party\(fn\)"):
        split_key(key)


def test_a_new_axis_before_the_rows_is_refused() -> None:
    with pytest.raises(PlanError, match=r"x\[\.\.\., None\]"):
        split_key((None, slice(None)))


@given(st.integers(0, 200), st.integers(1, 12))
def test_even_ranges_cut_like_array_split(total: int, parts: int) -> None:
    expected = [part.tolist() for part in np.array_split(np.arange(total), parts)]
    assert [list(rows) for rows in even_ranges(total, parts)] == expected


@given(st.integers(1, 1000), st.lists(st.floats(0.01, 1), min_size=1, max_size=8))
def test_fraction_ranges_are_consecutive_and_close(total: int, weights: list[float]) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    ranges = fraction_ranges(total, fractions)
    assert [row for rows in ranges for row in rows] == list(range(total))
    for rows, fraction in zip(ranges, fractions, strict=True):
        assert abs(len(rows) - fraction * total) <= 1 + 1e-6


def test_fractions_may_leave_rows_over() -> None:
    assert fraction_ranges(10, [0.2, 0.3]) == (range(2), range(2, 5))


@pytest.mark.parametrize("fractions", [[0.0], [-0.1, 0.5], [1.1], [0.6, 0.6], [math.nan]])
def test_impossible_fractions_are_refused(fractions: list[float]) -> None:
    with pytest.raises(PlanError, match="fractions"):
        fraction_ranges(10, fractions)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.floats(0, 1))
def test_apportion_deals_all_and_stays_near_the_share(sizes: list[int], fraction: float) -> None:
    total = sum(sizes)
    count = int(fraction * total)
    dealt = apportion(count, sizes)
    assert sum(dealt) == count
    for got, size in zip(dealt, sizes, strict=True):
        assert 0 <= got <= size
        assert abs(got * total - count * size) < max(total, 1)


@pytest.mark.parametrize("count", [-1, 4])
def test_apportion_refuses_what_is_not_there(count: int) -> None:
    with pytest.raises(PlanError, match="3 rows that the parties hold"):
        apportion(count, [1, 2])


@given(st.integers(0, 60), st.floats(0, 1), st.integers(), st.booleans())
def test_split_rows_uses_every_row_once(count: int, fraction: float, seed: int, shuffle: bool) -> None:
    test = int(count * fraction)
    train_rows, test_rows = split_rows(count, test, seed=seed, party="alice", shuffle=shuffle)
    assert len(test_rows) == test
    assert sorted([*train_rows, *test_rows]) == list(range(count))


def test_split_rows_depends_on_seed_and_party_only() -> None:
    def order(seed: int, party: str) -> list[int]:
        return split_rows(50, 10, seed=seed, party=party, shuffle=True)[0].tolist()

    assert order(1, "alice") == order(1, "alice")
    assert order(1, "alice") != order(2, "alice")
    assert order(1, "alice") != order(1, "bob")


def test_without_shuffling_the_last_rows_are_the_test_set() -> None:
    train_rows, test_rows = split_rows(5, 2, seed=1, party="alice", shuffle=False)
    assert (train_rows.tolist(), test_rows.tolist()) == ([0, 1, 2], [3, 4])


@pytest.mark.parametrize(
    ("axis", "ndim", "expected"),
    [(None, 3, None), (0, 1, (0,)), (-3, 3, (0,)), ((2, 0), 3, (0, 2)), ((-1, 0), 2, (0, 1))],
)
def test_row_axes(axis: int | tuple[int, ...] | None, ndim: int, expected: tuple[int, ...] | None) -> None:
    assert row_axes(axis, ndim) == expected


@pytest.mark.parametrize(
    ("axis", "match"),
    [
        (1, "alice"),
        ((1, 2), "alice"),
        (3, "integers from -3 to 2"),
        ((0, 0), "twice"),
        ((0, -3), "twice"),
        (0.0, "axis=0.0"),
    ],
)
def test_axes_without_the_rows_are_refused(axis: object, match: str) -> None:
    with pytest.raises(PlanError, match=match):
        row_axes(axis, 3)  # type: ignore[arg-type]
