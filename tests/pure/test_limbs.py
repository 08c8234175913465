# SPDX-License-Identifier: Apache-2.0
"""Exact sums in limbs: the correctly rounded sum whatever the units, and limbs that tell nothing but the sum."""

import math
import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.protocol.limbs import (
    CARRY_BITS,
    ROOM_BITS,
    gather,
    limb_bits,
    limb_bound,
    limb_count,
    rounded,
    spread,
    spread_integers,
)

UNIT = 2.0**-160
IN_RANGE = st.builds(math.ldexp, st.integers(-(2**53), 2**53), st.integers(-160, 106))
"""Numbers whose bits all lie from 2^-160 to 2^160."""
PARTIES = st.sampled_from([2, 3, 8, 9, 30, 1000, 1 << 14])


def total(parties, *inputs):
    """The exact sum of what each of some parties holds, as whole multiples of 2^-160."""
    limbs = [spread(np.array(values, np.float64), parties, os.urandom) for values in inputs]
    assert all(np.abs(one).max() <= limb_bound(parties) for one in limbs)
    return gather(sum(limbs), parties)


def test_there_is_room_for_any_number_of_parties():
    for parties in range(1, (1 << 14) + 1):
        assert limb_bits(parties) * limb_count(parties) >= 320
        assert parties * limb_bound(parties) <= 1 << ROOM_BITS
    assert [(limb_bits(n), limb_count(n)) for n in (2, 8, 9, 16, 17, 1000)] == [
        (16, 20),
        (16, 20),
        (15, 22),
        (15, 22),
        (14, 23),
        (9, 36),
    ]


@settings(deadline=None)
@given(st.lists(IN_RANGE, min_size=2, max_size=40), PARTIES)
def test_the_sum_is_the_correctly_rounded_one_in_any_order(values, parties):
    parties = max(parties, len(values))
    expected = math.fsum(values)
    for order in (values, values[::-1], sorted(values)):
        assert rounded(total(parties, *([value] for value in order))).tolist() == [expected]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(IN_RANGE, min_size=4, max_size=4), min_size=2, max_size=5))
def test_the_integers_are_exact_and_so_is_a_quotient(rows):
    numbers = total(7, *rows)
    exact = [sum(map(Fraction, column)) for column in zip(*rows, strict=True)]
    assert [Fraction(number, 2**160) for number in numbers] == exact
    assert rounded(numbers, 3).tolist() == [float(number / 3) for number in exact]


@pytest.mark.slow
@pytest.mark.parametrize("parties", [1000, 4000])
def test_a_thousand_parties_of_all_magnitudes(parties):
    generator = np.random.default_rng(parties)
    shape = (parties, 8)
    values = np.ldexp(generator.integers(-(2**53), 2**53, shape).astype(float), generator.integers(-160, 106, shape))
    assert rounded(total(parties, *values)).tolist() == [math.fsum(column) for column in values.T]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.0, 0.0),
        (-0.0, 0.0),
        (UNIT, UNIT),
        (-UNIT, -UNIT),
        (1.75 * UNIT, UNIT),
        (-1.75 * UNIT, -UNIT),
        (0.99 * UNIT, 0.0),
        (5e-324, 0.0),
        (-2.2e-308, 0.0),
        (math.nextafter(2.0**160, 0), math.nextafter(2.0**160, 0)),
        (-(2.0**159), -(2.0**159)),
        (1 + 2.0**-52, 1 + 2.0**-52),
    ],
)
@pytest.mark.parametrize("parties", [2, 1000])
def test_the_ends_of_the_range(value, kept, parties):
    """What lies below 2^-160 is cut off, towards zero."""
    assert rounded(total(parties, [value], [0.0])).tolist() == [kept]


@given(st.lists(st.integers(-(2**320) + 1, 2**320 - 1), min_size=1, max_size=4), PARTIES)
def test_integers_are_spread_as_they_are(numbers, parties):
    assert gather(spread_integers(numbers, parties, os.urandom), parties) == numbers


def test_two_numbers_that_are_far_apart_are_both_in_the_exact_sum():
    """What SECURITY.md says of exact sums: before it is rounded, each of them can be read."""
    (number,) = total(2, [3.0e20], [7.0])
    assert divmod(number >> 160, 10**9) == (3 * 10**11, 7)


# What the limbs tell. Two parties' inputs of equal sum; in the first a limb runs over, in the second none does.

FIRST, SECOND = (0.75, 0.25), (1.0, 0.0)


@given(st.lists(IN_RANGE, min_size=2, max_size=6), st.lists(IN_RANGE, min_size=2, max_size=6))
def test_limbs_of_equal_sums_differ_by_a_few_carries(ones, others):
    """Whatever limbs one set of inputs shows, another of the same sum shows under carries that differ by a few.

    So what is seen of both differs by no more than those few of 2^40 values for each carry.
    """
    parties, numbers = 8, [total(8, [value])[0] for value in (*ones, *others)]
    rest = sum(numbers[: len(ones)]) - sum(numbers[len(ones) :])
    if abs(rest) >= 1 << 320:
        return
    shown = [
        sum(spread_integers([number], parties, bytes) for number in side)[0].tolist()
        for side in (numbers[: len(ones)], [*numbers[len(ones) :], rest])
    ]
    difference, carried = [a - b for a, b in zip(*shown, strict=True)], 0
    for limb in difference[:-1]:
        # What the next limb is given must be what this one has lost, a whole number of times.
        carried, over = divmod(limb + carried, 1 << limb_bits(parties))
        assert over == 0
        assert abs(carried) <= 2 * (len(ones) + len(others) + 1)
    assert difference[-1] + carried == 0


def seen(inputs, entropy, draws=300):
    """The sums of limbs that some inputs show, drawn anew each time."""
    return np.array([sum(spread(np.array([value]), 2, entropy)[0] for value in inputs) for _ in range(draws)])


def test_carries_hide_which_limbs_ran_over():
    one, other = seen(FIRST, os.urandom), seen(SECOND, os.urandom)
    # Each limb but the last is spread over two carries' range; means of 300 draws are within six deviations.
    spread_out = one.std(axis=0)
    assert (spread_out[:-1] > 2.0 ** (limb_bits(2) + CARRY_BITS - 2)).all()
    assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 6 * spread_out * math.sqrt(2 / 300)).all()
    # The lowest bits of a limb are those of the sum and of what is carried into it, which is random.
    assert all(len(set(column)) > 128 for limbs in (one, other) for column in limbs.T[1:] % 256)


def test_limbs_without_carries_would_tell_the_inputs_apart():
    """Broken on purpose: nothing is carried, or what anybody can work out."""
    for entropy in (bytes, lambda count: np.random.default_rng(1).bytes(count)):
        one, other = seen(FIRST, entropy, 3), seen(SECOND, entropy, 3)
        assert (one == one[0]).all()
        assert (one[0] != other[0]).any()
        assert rounded(total(2, *([value] for value in FIRST))) == rounded(total(2, *([value] for value in SECOND)))
