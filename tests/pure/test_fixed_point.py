# SPDX-License-Identifier: Apache-2.0
"""Numbers to ring words and back: exact where it says so, refused where it must."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure.masking_kit import NO_METRICS, context_of, encode, manifest_of, plain_values, session

from fedray.errors import EncodingError, PlanError, ProtocolError
from fedray.protocol.config import Encoding
from fedray.protocol.crypto.keystream import CHUNK_BYTES
from fedray.protocol.fixed_point import decode
from fedray.protocol.limbs import limb_bound
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scheme import Contribution

WIDE = Encoding()
NARROW = Encoding(32)


STEPS = {WIDE: 41, NARROW: 9}
"""Bits behind the point for three parties and the usual bound of 2^16."""


def words_of(values, encoding=WIDE, weight=1, weighted=False, parties=3, dtype="float64"):
    values = np.asarray(values)
    manifest = manifest_of(values.size, weighted=weighted, dtype=dtype)
    return encode(encoding, parties, manifest, plain_values(values, weight))


def total_of(words):
    return np.add.reduce(words, dtype=words[0].dtype)


def signed(words):
    return words.view(f"<i{words.itemsize}").tolist()


def nearest(value, encoding, share=Fraction(1)):
    """Round half to even of an exact fraction."""
    return round(Fraction(value) * share * 2 ** STEPS[encoding])


@given(st.lists(st.floats(-8, 8), max_size=40), st.sampled_from([WIDE, NARROW]))
def test_words_are_the_nearest_integers(values, encoding):
    expected = [nearest(v, encoding) for v in values]
    assert signed(words_of(values, encoding)) == [*expected, 1, 1]


@given(st.lists(st.floats(-8, 8, width=32), max_size=40))
def test_single_precision_is_computed_in_double(values):
    array = np.array(values, np.float32)
    assert signed(words_of(array, dtype="float32"))[:-2] == [nearest(float(v), WIDE) for v in array]


@pytest.mark.parametrize(("value", "expected"), [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2)])
def test_halves_go_to_the_even_side(value, expected):
    assert signed(words_of([value / 2**41]))[0] == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", ">f8", "<f4"])
def test_the_types_and_byte_orders_of_floats(dtype):
    values = np.array([-2.0, -0.0, 0.0, 1.5, 0.25], dtype)
    expected = [v * 2**41 for v in (-2, 0, 0, 1.5, 0.25)]
    assert signed(words_of(values, dtype="float32"))[:-2] == expected


@pytest.mark.parametrize("value", [-0.0, 5e-324, -5e-324, 2.0**-43, 1e-300])
def test_what_is_below_half_a_step_is_zero(value):
    assert signed(words_of([value])) == [0, 1, 1]


def test_strided_values_are_read_in_order():
    values = np.arange(20.0)[::-2]
    assert signed(words_of(values))[:-2] == [int(v) << 41 for v in values]


@pytest.mark.parametrize("encoding", [WIDE, NARROW])
@pytest.mark.parametrize("reach", [-100, -3, 0, 16, 99])
def test_the_limits_are_reached_and_cut_and_counted(encoding, reach):
    limit, most = 2.0**reach, 1 << encoding.top(3)
    tensors = (Tensor("fits", (2,), "float64", limit), Tensor("beyond", (5,), "float64", limit))
    manifest = Manifest(tensors, weighted=False, counted=True)
    beyond = np.nextafter(limit, math.inf)
    words = encode(encoding, 3, manifest, plain_values([limit, -limit, beyond, -beyond, 1e300, -1e300, 0.0]))
    assert signed(words) == [most, -most, most, -most, most, -most, 0, 0, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("encoding", [WIDE, NARROW])
def test_words_that_are_too_small_are_counted_and_zeros_are_not(encoding):
    fine = 2.0 ** (encoding.fine(3) - encoding.top(3))
    tensors = tuple(Tensor(name, (2,), "float64", 1.0) for name in ("zero", "small", "tiny", "fine"))
    manifest = Manifest(tensors, counted=True)
    values = [0.0, -0.0, np.nextafter(fine, 0), 0.0, 0.0, 1e-300, fine, 1e-300]
    assert signed(encode(encoding, 3, manifest, plain_values(values)))[8:] == [0, 0, 0, 0, 0, 1, 1, 0, 1, 1]
    assert signed(encode(encoding, 3, manifest, plain_values(values, 0)))[8:] == [0] * 9 + [1]  # no weight, no values


def test_counts_go_over_the_ends_of_chunks():
    size = CHUNK_BYTES // 8
    tensors = (Tensor("w", (size - 2,), "float64", 1.0), Tensor("b", (3,), "float64", 1.0))
    manifest = Manifest(tensors, weighted=False, counted=True)
    values = np.full(size + 1, 0.5)
    values[-1] = 2.0
    words = encode(WIDE, 3, manifest, plain_values(values))
    assert signed(words)[-6:] == [0, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 5, 40_000, 70_005])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinity_are_refused_by_name(bad, place, dtype):
    tensors = (
        Tensor("first", (), "float32"),
        Tensor("second", (2, 3), "float32"),
        Tensor("third", (70_000,), "float32"),
    )
    values = np.zeros(70_007, dtype)
    values[place] = bad
    name = "first" if place == 0 else "second" if place < 7 else "third"
    with pytest.raises(EncodingError, match=f"'{name}' holds (NaN|an infinity)"):
        encode(WIDE, 3, Manifest(tensors, weighted=False), plain_values(values))


def test_nan_is_refused_where_the_weight_is_zero():
    with pytest.raises(EncodingError, match="NaN"):
        words_of([math.nan], weight=0, weighted=True)


@pytest.mark.parametrize("bound", [1e-12, 3.0, 65536.0, 1e40])
def test_values_beyond_the_bound_are_refused_where_they_are_not_counted(bound):
    manifest = Manifest((Tensor("v", (2,), "float64", bound), Tensor("w", (1,), "float64", 1e50)), weighted=False)
    within = signed(encode(WIDE, 3, manifest, plain_values([bound, -bound, 0.0])))
    assert 1 << 56 < within[0] <= 1 << 57
    with pytest.raises(EncodingError, match="'v' holds a value beyond its bound"):
        encode(WIDE, 3, manifest, plain_values([0.0, np.nextafter(bound, math.inf), 0.0]))


@pytest.mark.parametrize("weight", [-1, 6, 1.0, True, None, np.float64(2)])
def test_a_weight_is_an_integer_up_to_the_bound(weight):
    with pytest.raises(EncodingError, match="integer weight of 0 to 5"):
        words_of([1.0], Encoding(weight_bound=5), weight, weighted=True)


def test_a_weight_of_an_unweighted_sum_is_0_or_1():
    assert signed(words_of([1.0], weight=0)) == [0, 0, 1]
    with pytest.raises(EncodingError, match="0 to 1"):
        words_of([1.0], Encoding(weight_bound=5), 2)


@given(st.floats(-8, 8), st.integers(0, 1000), st.integers(1, 1000))
def test_weights_scale_before_rounding(value, weight, bound):
    if weight > bound:
        return
    encoding = Encoding(weight_bound=bound)
    word = signed(words_of([value], encoding, weight, weighted=True))[0]
    assert abs(word - Fraction(value) * weight / bound * 2**41) <= Fraction(1, 2) + Fraction(1, 2**6)


@given(
    st.lists(st.tuples(st.floats(-8, 8), st.integers(0, 50)), min_size=1, max_size=6),
    st.sampled_from([WIDE, NARROW]),
)
def test_the_error_of_a_mean_is_as_promised(inputs, base):
    total_weight = sum(w for _, w in inputs)
    if total_weight == 0:
        return
    encoding = Encoding(base.ring, weight_bound=50)
    words = [words_of([v], encoding, w, weighted=True, parties=6) for v, w in inputs]
    total = total_of(words)
    names = tuple("abcdef"[: len(inputs)])
    opened = decode(encoding, 6, manifest_of(1), OpenedSum(total, names))
    exact = sum(Fraction(v) * w for v, w in inputs) / total_weight
    step = Fraction(50 * len(inputs), total_weight) / 2 ** (encoding.top(6) - 16)  # 2^(r - t) W / mean(w)
    assert abs(Fraction(float(opened.values[0])) - exact) <= step / 2 * (1 + Fraction(1, 1000)) + Fraction(1, 2**45)
    assert opened.weight == total_weight
    assert opened.parties == names


@given(st.lists(st.floats(0, 2**20), max_size=5), st.integers(0, 2**20))
def test_integer_metrics_are_exact(totals, count):
    metrics = [*map(math.floor, totals), count]
    manifest = manifest_of(0, counts=[f"m{i}" for i in range(len(metrics))], weighted=False)
    words = encode(WIDE, 3, manifest, plain_values(np.empty(0), 1, metrics))
    opened = decode(WIDE, 3, manifest, OpenedSum(words * np.uint64(3) - words * np.uint64(2), ("a",)))
    assert opened.metrics.tolist() == metrics


@pytest.mark.parametrize("metric", [math.nan, math.inf, 2.0**160, -(2.0**1000)])
def test_metrics_are_refused_never_clipped(metric):
    manifest = manifest_of(1, ["accuracy", "loss"])
    with pytest.raises(EncodingError, match="'loss'"):
        encode(WIDE, 3, manifest, plain_values([1.0], 1, [1.0, metric]))
    encode(WIDE, 3, manifest, plain_values([1.0], 1, [1.0, -math.nextafter(2.0**160, 0)]))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_integers_are_exact(dtype):
    info = np.iinfo(dtype)
    bound = min(info.max, (2**60 - 1) // 3)
    values = np.array([0, 1, bound, max(info.min, -bound)], dtype)
    manifest = manifest_of(4, weighted=False, dtype=dtype)
    words = encode(WIDE, 3, manifest, plain_values(values))
    opened = decode(WIDE, 3, manifest, OpenedSum(words, ("a",)))
    assert opened.values.dtype == np.int64
    assert opened.values.tolist() == values.tolist()


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), (2**60 - 1) // 3 + 1])
def test_integers_without_room_are_refused(value):
    with pytest.raises(EncodingError, match="beyond its bound"):
        words_of(np.array([value], np.int64), dtype="int64")


def test_large_unsigned_integers_are_refused():
    with pytest.raises(EncodingError, match="beyond its bound"):
        words_of(np.array([2**64 - 1], np.uint64), dtype="uint64")


def test_declared_bounds_hold():
    manifest = Manifest((Tensor("n", (2,), "int32", bound=10),), weighted=False)
    encode(NARROW, 3, manifest, plain_values(np.array([10, -10])))
    with pytest.raises(EncodingError, match=r"'n' holds a value beyond its bound 10, .*larger unit, or as floats"):
        encode(NARROW, 3, manifest, plain_values(np.array([10, -11])))
    wide = Manifest((Tensor("n", (2,), "int64", bound=2**31),), weighted=False)
    with pytest.raises(EncodingError, match="do not fit"):
        encode(NARROW, 3, wide, plain_values(np.array([1, 2])))


def test_integers_beside_floats_are_exact_up_to_2_53():
    manifest = Manifest((Tensor("n", (2,), "int64"), Tensor("x", (1,), "float64")), weighted=False)
    values = np.array([2.0**51, -3.0, 0.5])
    words = encode(WIDE, 3, manifest, plain_values(values))
    assert signed(words) == [2**51, -3, 1 << 40, 1, 1]
    assert decode(WIDE, 3, manifest, OpenedSum(words, ("a",))).values.tolist() == values.tolist()
    for bad in (2.0**52, 0.5, math.nan, math.inf):
        with pytest.raises(EncodingError, match="'n'"):
            encode(WIDE, 3, manifest, plain_values(np.array([bad, 0, 0])))


def test_integers_of_weight_zero_send_zeros():
    assert signed(words_of(np.array([5]), weight=0, dtype="int64")) == [0, 0, 1]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([True]), "float32"),
        (np.array([1]), "float32"),
        (np.array([1.0]), "int32"),
        (np.array([True]), "int32"),
        (np.array([1j]), "float64"),
        (np.array(["a"]), "float64"),
        (np.array([1.0], np.longdouble), "float64"),
        (np.array([1.0, 2.0]), "float64"),
        (np.array([[1.0]]), "float64"),
        (np.array(1.0), "float64"),
        ([1.0], "float64"),
    ],
    ids=repr,
)
def test_other_types_and_shapes_are_refused(values, dtype):
    with pytest.raises(EncodingError, match="expected"):
        encode(WIDE, 3, manifest_of(1, weighted=False, dtype=dtype), Contribution(values, 1, NO_METRICS))


@pytest.mark.parametrize("dtype", ["bool", "complex64", "U3", "longdouble", "object"])
def test_tensors_of_other_types_are_refused(dtype):
    with pytest.raises(PlanError, match="expected real floats or integers"):
        Tensor("t", (1,), dtype)


def test_integers_are_not_averaged():
    with pytest.raises(PlanError, match="summed, not averaged"):
        manifest_of(1, dtype="int64")


def test_a_wrong_number_of_metrics_is_refused():
    with pytest.raises(EncodingError, match="2 metrics"):
        encode(WIDE, 3, manifest_of(1, ["a", "b"]), plain_values([1.0], 1, [1.0]))


@pytest.mark.parametrize("shapes", [(), ((),), ((0,),), ((), (0, 4), (3,)), ((2, 0), ())])
def test_empty_tensors_and_scalars(shapes):
    manifest = Manifest(tuple(Tensor(f"t{i}", s, "float64") for i, s in enumerate(shapes)))
    values = np.arange(manifest.size, dtype=float)
    words = encode(WIDE, 3, manifest, plain_values(values))
    assert len(words) == manifest.words(3)
    assert decode(WIDE, 3, manifest, OpenedSum(words, ("a",))).values.tolist() == values.tolist()


CHUNK_WORDS = CHUNK_BYTES // 4


@pytest.mark.parametrize("size", [CHUNK_WORDS + d for d in range(-3, 3)] + [2 * CHUNK_WORDS - 2])
def test_the_ends_of_chunks(size):
    values = np.linspace(-7, 7, size)
    manifest = manifest_of(size, counts=["m"], weighted=False)
    words = encode(NARROW, 3, manifest, plain_values(values, 1, [5.0]))
    assert signed(words)[-3:] == [1, 5, 1]
    assert np.array_equal(np.array(signed(words)[:-3]), np.rint(values * 512).astype(int))


def good_sum(parties=3):
    manifest = manifest_of(2, ["m"], counts=["n"])
    words = [encode(WIDE, parties, manifest, plain_values([1.0, -1.0], 1, [1.0, 5.0])) for _ in range(parties)]
    return manifest, total_of(words)


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (-1, 2, "check word"),
        (-1, 2**64 - 1, "check word"),
        (0, (3 << 57) + 1, "beyond"),
        (1, 2**63, "beyond"),
        (2, 4, "weight in the sum is beyond"),
        (2, 2**64 - 1, "weight"),
        (2, 0, "zero"),
        (3, 3 * (2**53 // 3) + 1, "a count"),
        (4, 3 * limb_bound(3) + 1, "a limb"),
        (23, 3 << 16, "a total"),
    ],
)
def test_a_sum_that_cannot_be_is_not_published(place, value, fault):
    manifest, total = good_sum()
    good = decode(WIDE, 3, manifest, OpenedSum(total.copy(), ("a", "b", "c")))
    assert (good.values.tolist(), good.metrics.tolist()) == ([1.0, -1.0], [3.0, 15.0])
    total[place] = value
    with pytest.raises(ProtocolError, match=fault):
        decode(WIDE, 3, manifest, OpenedSum(total, ("a", "b", "c")))


def test_wrapping_is_found():
    """More inputs than the headroom was checked for would wrap; the check sits in the range of the sum."""
    manifest = manifest_of(1, weighted=False)
    words = encode(NARROW, 3, manifest, plain_values([65536.0]))
    total = total_of([words] * 64)  # of three
    assert signed(total)[0] < 0
    members = tuple(map(str, range(63)))
    with pytest.raises(ProtocolError, match="beyond"):
        decode(NARROW, 3, manifest, OpenedSum(np.concatenate([total[:-2], [63, 63]]).astype("<u4"), members))


def test_a_sum_of_another_length_is_refused():
    manifest, total = good_sum()
    with pytest.raises(ProtocolError, match="25 words"):
        decode(WIDE, 3, manifest, OpenedSum(total[1:], ("a", "b", "c")))


@given(st.data())
def test_the_sum_is_exact_and_has_no_order(data):
    parties = data.draw(st.integers(1, 6))
    encoding = data.draw(st.sampled_from([WIDE, NARROW]))
    rows = data.draw(st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=3), min_size=parties, max_size=parties))
    words = [words_of(row, encoding, parties=6) for row in rows]
    total = total_of(words)
    expected = [sum(column) for column in zip(*(signed(w) for w in words), strict=True)]
    assert signed(total) == expected
    assert np.array_equal(total, total_of(words[::-1]))


def test_no_second_copy_of_the_vector_is_made():
    """The peak of memory while a message is made is the message, and scratch of a few chunks."""
    size = 4_000_000
    kit = session(3, encoding=NARROW)
    manifest = manifest_of(size, weighted=False, dtype="float32")
    contribution = plain_values(np.zeros(size, np.float32))
    tracemalloc.start()
    message = kit.send("p00", context_of(0, manifest), contribution)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < message.nbytes + 12 * CHUNK_BYTES


ONCE = Manifest((Tensor("update", (2,), "float64"), Tensor("control", (2,), "float64", weighted=False)))


@pytest.mark.parametrize("encoding", [Encoding(weight_bound=100), Encoding(32, weight_bound=100)])
def test_a_tensor_may_count_each_party_once_beside_weighted_ones(encoding):
    given_ = [([1.0, 2.0, 3.0, -4.0], 100), ([2.0, 4.0, 6.0, 0.5], 25), ([7.0, 7.0, 1.5, 2.0], 0)]
    words = [encode(encoding, 3, ONCE, plain_values(values, weight)) for values, weight in given_]
    opened = decode(encoding, 3, ONCE, OpenedSum(total_of(words), ("a", "b", "c")))
    assert opened.values[:2] == pytest.approx(
        [1.2, 2.4], abs=2.0**-9 if encoding.ring == 32 else 0
    )  # (100 * 1 + 25 * 2) / 125: the third has no rows
    assert opened.values[2:].tolist() == [3.5, -0.5]  # a third of the sum: every party counts once


def test_what_counts_once_is_hashed_and_is_of_weighted_rounds_only():
    weighted = Manifest((Tensor("update", (2,), "float64"), Tensor("control", (2,), "float64")))
    assert ONCE.hash != weighted.hash
    with pytest.raises(PlanError, match="count each party once belong in a weighted manifest"):
        Manifest(ONCE.tensors, weighted=False)
