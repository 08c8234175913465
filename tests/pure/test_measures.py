# SPDX-License-Identifier: Apache-2.0
"""Metric sums as words: nothing is lost for small numbers, and large ones fit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedray.metrics import COARSE, from_words, to_words, word_names

finite = st.floats(-1e15, 1e15, allow_nan=False)


@given(st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=5), st.integers(1, 31))
def test_sums_of_words_are_the_sums(parties, power):
    bound = 1 << power
    words = sum(to_words(np.array(values), bound) for values in parties)
    expected = np.sum(parties, axis=0)
    np.testing.assert_allclose(from_words(words, bound), expected, rtol=1e-12, atol=1e-2)


@given(st.lists(st.integers(0, 2**40), max_size=6))
def test_counts_are_exact(counts):
    assert from_words(to_words(np.array(counts, np.float64), 64), 64).tolist() == counts


@given(finite)
def test_a_fine_part_stays_within_half_a_coarse_unit(value):
    fine, coarse = to_words(np.array([value]), 8)
    assert abs(fine) <= 8 * COARSE / 2
    assert coarse == np.rint(coarse)


def test_ordinary_numbers_have_no_coarse_part():
    values = np.array([0.0, 1.5, -3.25, 64.0])
    assert to_words(values, 64).tolist() == [*values, 0, 0, 0, 0]


def test_what_is_not_finite_stays_that():
    words = to_words(np.array([np.nan, np.inf, 1.0]), 8)
    assert np.isfinite(words).tolist() == [False, False, True, False, False, True]


def test_names_tell_the_parts_apart():
    assert word_names(("loss/0", "loss/1")) == ("loss/0", "loss/1", "loss/0 (coarse)", "loss/1 (coarse)")
