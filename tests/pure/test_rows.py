# SPDX-License-Identifier: Apache-2.0
"""Row arithmetic against NumPy on the same rows held in one place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.data.rows import (
    as_slice,
    local_ranges,
    locate,
    row_axes,
    split_key,
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
