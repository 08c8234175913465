# SPDX-License-Identifier: Apache-2.0
"""Every row is dealt once, near its share, the same way each time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.data.apportion import (
    apportion,
    bounded_range,
    even_ranges,
    fraction_ranges,
    set_sizes,
    share_bounds,
    split_rows,
)
from fedray.errors import PlanError


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


@given(st.integers(0, 60), st.floats(0, 1), st.floats(0, 1), st.integers(), st.booleans())
def test_split_rows_uses_no_row_twice(
    count: int, test_share: float, train_share: float, seed: int, shuffle: bool
) -> None:
    test = int(count * test_share)
    train = int((count - test) * train_share)
    train_rows, test_rows = split_rows(count, train, test, seed=seed, party="alice", shuffle=shuffle)
    assert (len(train_rows), len(test_rows)) == (train, test)
    used = {*train_rows.tolist(), *test_rows.tolist()}
    assert len(used) == train + test
    assert used <= set(range(count))


def test_split_rows_depends_on_seed_and_party_only() -> None:
    def order(seed: int, party: str) -> list[int]:
        return split_rows(50, 40, 10, seed=seed, party=party, shuffle=True)[0].tolist()

    assert order(1, "alice") == order(1, "alice")
    assert order(1, "alice") != order(2, "alice")
    assert order(1, "alice") != order(1, "bob")


def test_the_split_of_a_seed_never_changes() -> None:
    train_rows, test_rows = split_rows(8, 5, 3, seed=7, party="alice", shuffle=True)
    assert (train_rows.tolist(), test_rows.tolist()) == ([4, 0, 7, 1, 3], [5, 2, 6])


def test_without_shuffling_the_last_rows_are_the_test_set() -> None:
    train_rows, test_rows = split_rows(5, 2, 2, seed=1, party="alice", shuffle=False)
    assert (train_rows.tolist(), test_rows.tolist()) == ([0, 1], [3, 4])


@pytest.mark.parametrize(
    ("total", "test_size", "train_size", "expected"),
    [
        (10, None, None, (7, 3)),
        (10, 0.25, None, (7, 3)),
        (10, None, 0.75, (7, 3)),
        (10, 2, None, (8, 2)),
        (10, None, 2, (2, 8)),
        (10, 0.5, 0.2, (2, 5)),
        (10, np.int64(1), np.float64(0.9), (9, 1)),
    ],
)
def test_set_sizes(total: int, test_size: float | None, train_size: float | None, expected: tuple[int, int]) -> None:
    assert set_sizes(total, test_size, train_size) == expected


@pytest.mark.parametrize(
    ("total", "test_size", "train_size", "match"),
    [
        (10, 10, None, "at least one row"),
        (10, 0, None, "at least one row"),
        (10, None, 10, "at least one row"),
        (10, 6, 5, "no more than the 10 rows"),
        (1, 0.5, None, "at least one row"),
        (0, None, None, "at least one row"),
        (10, 1.5, None, "test_size=1.5: expected a fraction"),
        (10, 0.0, None, "test_size=0.0: expected a fraction"),
        (10, None, math.nan, "train_size=nan: expected a fraction"),
        (10, True, None, "test_size=True: expected a fraction"),
        (10, "half", None, "test_size='half': expected a fraction"),
    ],
)
def test_impossible_set_sizes(total: int, test_size: object, train_size: object, match: str) -> None:
    with pytest.raises(PlanError, match=match):
        set_sizes(total, test_size, train_size)  # type: ignore[arg-type]


@given(st.integers(1, 60_000), st.data())
def test_shares_in_rows_come_back_exactly(total: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, total - 1))
    end = data.draw(st.integers(start + 1, total))
    assert bounded_range(total, share_bounds(start, end, total)) == range(start, end)


def test_shares_in_rows_and_in_fractions_cut_another_whole_alike() -> None:
    assert bounded_range(10_000, share_bounds(6_000, 18_000, 60_000)) == range(1_000, 3_000)
    assert bounded_range(10_000, share_bounds(0.1, 0.3, 60_000)) == range(1_000, 3_000)
    assert bounded_range(10_000, share_bounds(0, 0.3, 60_000)) == range(3_000)
    assert bounded_range(10_000, share_bounds(0, 1.0, 60_000)) == range(10_000)


@pytest.mark.parametrize(
    "share",
    [(5, 5), (6, 5), (-1, 5), (0, 11), (0.5, 0.5), (0.0, 1.1), (-0.1, 0.5), (0, math.nan), ("a", 1), (False, True)],
)
def test_impossible_shares(share: tuple[float, float]) -> None:
    with pytest.raises(PlanError, match=r"share \(.*expected start < end"):
        share_bounds(*share, 10)
