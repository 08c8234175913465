# SPDX-License-Identifier: Apache-2.0
"""Reaches: values of any size are summed to the promised precision, by few repeats that all derive from what opened."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure.masking_kit import encode, plain_values

from fedray.errors import ProtocolError
from fedray.protocol.config import Encoding
from fedray.protocol.fixed_point import decode
from fedray.protocol.manifest import HIGHEST, LOWEST, Manifest, Tensor
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scales import FIRST_GROWTH, GROWTH, MOST_REPEATS, Room, Scales, first
from fedray.protocol.scheme import Extent
from fedray.strategies.halves import first_reaches

WORDS = 3


def manifest_of(tensors):
    return Manifest(tuple(Tensor(f"t{k}", (WORDS,), "float64") for k in range(tensors)), counted=True)


class Parties:
    """So many parties, of which each round some take part."""

    def __init__(self, parties, tensors=1, weight_bound=1):
        self.parties, self.encoding = parties, Encoding(weight_bound=weight_bound)
        self.room, self.manifest = Room.of(self.encoding, parties), manifest_of(tensors)
        self.scales = Scales(first([0.0] * tensors))

    def opened(self, inputs, weights):
        manifest = self.manifest.reaching(self.scales.reaches)
        words = [
            encode(self.encoding, self.parties, manifest, plain_values(values, weight))
            for values, weight in zip(inputs, weights, strict=True)
        ]
        total = np.add.reduce(words, dtype=np.uint64)
        members = tuple(map(str, range(len(inputs))))
        return decode(self.encoding, self.parties, manifest, OpenedSum(total, members))

    def round(self, inputs, weights=None):
        """Returns the mean, and how many repeats it took."""
        weights, repeats = weights or [1] * len(inputs), 0
        while True:
            opened = self.opened(inputs, weights)
            self.scales = self.scales.after(self.manifest, opened.extents, self.room)
            if not self.scales.again:
                return opened.values, repeats
            repeats += 1
            assert repeats == self.scales.repeats


def check(inputs, weights, mean):
    """Holds every tensor's mean to 2^-24 of its largest value at any party."""
    inputs, weights = np.array(inputs), np.array(weights, float)
    for place in range(0, inputs.shape[1], WORDS):
        one = inputs[:, place : place + WORDS]
        largest = np.abs(one[weights > 0]).max()
        exact = [math.fsum(w / weights.sum() * column) for w, column in ((weights, c) for c in one.T)]
        assert np.abs(mean[place : place + WORDS] - exact).max() <= largest * 2.0**-24 * (1 + 1e-6)


sizes = st.floats(-30, 30).map(lambda exponent: 10.0**exponent)


@given(
    st.sampled_from([2, 3, 5, 16, 100]),
    st.lists(sizes, min_size=1, max_size=3),
    st.integers(1, 10**6),
    st.integers(0, 2**32),
)
def test_the_error_is_2_to_minus_24_of_the_largest_value_whatever_its_size(n, magnitudes, bound, seed):
    world, random = Parties(n, len(magnitudes), bound), np.random.default_rng(seed)
    weights = random.integers(1, bound, n, endpoint=True).tolist()
    weights[0] = bound  # the bound is the largest weight, as in a plan
    inputs = (random.uniform(-1, 1, (n, len(magnitudes) * WORDS)) * np.repeat(magnitudes, WORDS)).tolist()
    mean, repeats = world.round(inputs, weights)
    check(inputs, weights, mean)
    assert repeats <= 3
    # From here on the scale is known: values as large, or up to 2^10 times larger, need no repeat. Smaller ones may
    # need one, where the words were only just precise enough before.
    for growth, most in ((1.0, 0), (0.7, 1), (2.0**10, 0)):
        inputs = [[value * growth for value in values] for values in inputs]
        mean, repeats = world.round(inputs, weights)
        check(inputs, weights, mean)
        assert repeats <= most


@pytest.mark.parametrize("n", [2, 16, 100])
@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-12, 1.0, 1e12, 1e30, 3e38])
def test_every_party_at_another_size(n, size):
    world = Parties(n)
    inputs = [[size * 10.0**-k, -size, 0.0] for k in np.linspace(0, 25, n)]
    mean, _ = world.round(inputs)
    check(inputs, [1] * n, mean)


def test_values_that_cancel_out_are_no_reason_to_repeat():
    """A mean that shrinks to nothing says nothing about the parties' values: they are as large as before."""
    world = Parties(2)
    world.round([[1.0, 2.0, 3.0], [1.1, 2.1, 3.1]])
    for difference in (1e-3, 1e-9, 1e-15, 0.0):
        inputs = [[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0 + difference]]
        mean, repeats = world.round(inputs)
        assert repeats == 0
        check(inputs, [1, 1], mean)


def test_zeros_are_no_reason_to_repeat_and_what_follows_them_is_not_lost():
    world, zeros = Parties(3), [[0.0] * WORDS] * 3
    for update in (1e-12, 1e12):
        world.scales = Scales(first([0.0]))
        assert world.round(zeros)[1] == 0
        mean, repeats = world.round([[update] * WORDS] * 3)
        assert mean == pytest.approx([update] * WORDS, rel=2.0**-24)
        assert 1 <= repeats <= 2
        before = world.scales
        assert world.round(zeros) == (pytest.approx([0.0] * WORDS, abs=0), 0)
        assert world.scales == before, "a round without an update, as of a layer that is not used, forgets nothing"


def test_a_party_that_is_small_beside_others_is_no_reason_to_repeat():
    world = Parties(4, weight_bound=1000)
    world.round([[1.0] * WORDS] * 4, [1000] * 4)
    inputs = [[1.0] * WORDS, [1e-20] * WORDS, [1.0] * WORDS, [1e-9] * WORDS]
    mean, repeats = world.round(inputs, [1000, 1000, 1, 1])
    check(inputs, [1000, 1000, 1, 1], mean)
    assert repeats == 0


def test_one_party_that_is_too_large_widens_the_range_for_all():
    world = Parties(3)
    world.round([[1.0] * WORDS] * 3)
    (reach,) = world.scales.reaches
    inputs = [[1.0] * WORDS, [-(2.0 ** (reach + 3))] * WORDS, [1.0] * WORDS]
    mean, repeats = world.round(inputs)
    check(inputs, [1] * 3, mean)
    assert repeats == 1
    assert world.scales.reaches[0] >= reach + world.room.growth, "the next round has room to grow again"


def test_a_repeat_leaves_the_other_tensors_as_they_are():
    world = Parties(3, 2)
    world.round([[1.0] * (2 * WORDS)] * 3)
    before = world.scales.reaches
    opened = world.opened([[1e9] * WORDS + [1.0] * WORDS] * 3, [1] * 3)
    after = world.scales.after(world.manifest, opened.extents, world.room)
    assert after.again
    assert after.reaches[0] > before[0]
    assert after.reaches[1] == before[1]
    assert after.abandoned() == Scales(after.reaches)


def test_what_is_below_the_lowest_reach_counts_as_nothing():
    world = Parties(3)
    mean, _ = world.round([[5e-324] * WORDS] * 3)
    assert mean.tolist() == [0.0] * WORDS
    assert world.scales.reaches == (LOWEST,)
    assert 2.0 ** (LOWEST - world.room.top) < 1e-48


def test_repeats_without_end_are_an_error_that_names_the_tensor():
    scales, room = Scales((0, 0)), Room.of(Encoding(), 3)
    never = [Extent(0, 0, 0), Extent(1 << room.top, 1, 0)]
    for _ in range(MOST_REPEATS):
        scales = scales.after(manifest_of(2), never, room)
    with pytest.raises(ProtocolError, match="tensor 't1': its values were found in none of 9 ranges"):
        scales.after(manifest_of(2), never, room)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=20))
def test_whatever_a_server_says_was_opened_ends(lies):
    """Every answer is a next reach or an error: no facts, however odd, make the parties repeat for ever."""
    scales, room, repeats = Scales((0,)), Room.of(Encoding(), 3), 0
    for saturated, coarse, size in lies:
        try:
            scales = scales.after(manifest_of(1), [Extent((1 << size) - 1, saturated, coarse)], room)
        except ProtocolError:
            return
        assert scales.reaches[0] >= LOWEST
        repeats = repeats + 1 if scales.again else 0
        assert repeats == scales.repeats <= MOST_REPEATS


@pytest.mark.parametrize("reaches", [(), (0,), (0, 0, 0), (0, LOWEST - 1), (HIGHEST + 1, 0), (0, 0.5), (0, None)])
def test_reaches_that_no_sum_leads_to_are_refused(reaches):
    with pytest.raises(ProtocolError, match="expected 2 reaches from -110 to 1000, one for each tensor"):
        manifest_of(2).reaching(reaches)


def test_the_first_reaches_come_from_the_model():
    weights = np.array([0.5, -3.0, 1e-9, 0.0, 0.0, 200.0], np.float32)
    names = (("kernel", (2,)), ("small", (1,)), ("zero", (1,)))
    trained = [Tensor(name, shape, "float32") for name, shape in names]
    others = [Tensor("mean", (1,), "float32"), Tensor("variance", (1,), "float32")]
    found = first_reaches(Manifest((*trained, *others), counted=True), 4, weights)
    assert found == tuple(size + FIRST_GROWTH for size in (2, -29, 8, 8, 8))
    twice = first_reaches(Manifest((*trained, *trained, *others), counted=True), 4, weights)
    assert twice == (*found[:3], *found)
    assert first([0.0, math.nan, math.inf]) == (FIRST_GROWTH,) * 3


@pytest.mark.parametrize("n", [2, 3, 16, 100, 1000, 2**14])
def test_there_is_room_to_grow_and_to_shrink(n):
    room = Room.of(Encoding(), n)
    assert room.growth <= GROWTH
    assert room.span - room.growth >= room.growth
    if n <= 100:
        assert room.growth >= 11
