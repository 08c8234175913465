# SPDX-License-Identifier: Apache-2.0
"""Nested values as one vector and back: what comes out is what went in, or an error that says which part cannot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.errors import DataError, EncodingError
from fedray.party.rounds.summable import flatten, join, join_reals, rebuild, refuse_small, weighed

numbers = st.one_of(
    st.integers(-(2**31), 2**31),
    st.floats(-1e6, 1e6),
    st.lists(st.floats(-1e3, 1e3), max_size=4).map(np.array),
    st.lists(st.integers(-9, 9), max_size=4).map(lambda values: np.array(values, np.int32)),
)
nests = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=6,
)


class Labelled:
    """Stands for a pandas Series or data frame, whose labels a sum by position would not look at."""

    iloc = None


def through(value, averaged=False):
    """Through one vector of a fixed point."""
    nest, tensors, arrays = flatten(value)
    return rebuild(nest, tensors, join(arrays).astype(np.float64), np.empty(0), averaged=averaged)


def through_totals(value):
    """Through integers and exact totals apart."""
    nest, tensors, arrays = flatten(value)
    whole, reals = ([array for array in arrays if array.dtype.kind in kinds] for kinds in ("iu", "f"))
    return rebuild(nest, tensors, join(whole), join_reals(reals), averaged=False)


def same(found, value):
    if isinstance(value, dict):
        return set(found) == set(value) and all(same(found[key], value[key]) for key in value)
    if isinstance(value, list | tuple):
        return type(found) is type(value) and all(map(same, found, value)) and len(found) == len(value)
    return np.array_equal(found, value) and isinstance(found, np.ndarray) == isinstance(value, np.ndarray)


@given(nests)
def test_a_nest_comes_back_as_it_was(value):
    assert same(through(value), value)
    assert same(through_totals(value), value)


def test_integers_beside_totals_keep_all_their_bits():
    value = [2**62 + 1, 0.1, np.array([2**61 + 1]), np.float32(0.5)]
    found = through_totals(value)
    assert (found[:2], found[2].tolist(), found[3]) == ([2**62 + 1, 0.1], [2**61 + 1], 0.5)


def test_floats_keep_their_type_and_integers_widen():
    value = {"a": np.ones((2, 3), np.float32), "b": np.array([1, 2], np.int8), "c": 7, "d": 1.5}
    summed, averaged = through(value), through(value, averaged=True)
    assert [summed[key].dtype for key in "ab"] == [np.float32, np.int64]
    assert [averaged[key].dtype for key in "ab"] == [np.float32, np.float64]
    assert summed["a"].shape == (2, 3)
    assert (type(summed["c"]), type(averaged["c"]), type(summed["d"])) == (int, float, float)


def test_every_tensor_has_a_name_that_leads_to_it():
    _, tensors, _ = flatten({"b": [1.0, (2.0, 3.0)], "a": np.zeros(2)})
    assert [tensor.name for tensor in tensors] == [
        "value['a']",
        "value['b'][0]",
        "value['b'][1][0]",
        "value['b'][1][1]",
    ]
    assert flatten(1.0)[1][0].name == "value"


def test_integers_alone_are_joined_as_integers():
    assert join([np.array([2**62]), np.array(3, np.uint8)]).tolist() == [2**62, 3]
    assert join([np.array([1]), np.array([0.5])]).dtype == np.float64
    assert join([]).shape == (0,)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": "text"}, r"value\['a'\]: expected an array or number of floats or integers, found str"),
        ([1.0, None], r"value\[1\]: expected an array or number of floats or integers, found NoneType"),
        (np.array([True]), r"value: expected .* dtype bool; convert it first"),
        (1j, "value: expected an array or number"),
        ({1: 2.0}, "value: expected a dict with string keys"),
        (range(3), r"value: expected an array or number, found range; say np\.asarray"),
        ([Labelled()], r"value\[0\]: expected an array or number, found type 'Labelled'"),
        ({"a": {2: 1.0}}, r"value\['a'\]: expected a dict with string keys"),
    ],
)
def test_what_cannot_be_summed(value, message):
    with pytest.raises(DataError, match=message):
        flatten(value)


@pytest.mark.parametrize("tiny", [5e-324, 1e-300, 2.0**-129])
def test_what_a_sum_would_count_as_nothing_is_refused_where_nothing_larger_is_beside_it(tiny):
    for array in (np.array(tiny), np.array([0.0, -tiny])):
        with pytest.raises(EncodingError, match="alice: 'value' holds nothing of 2\\^-128"):
            refuse_small({"value": array}, "alice")
    refuse_small({"value": np.array([tiny, 1.0]), "zeros": np.zeros(2), "none": np.empty(0)}, "alice")
    refuse_small({"value": np.array(2.0**-128), "float32": np.finfo(np.float32).tiny}, "alice")


def test_a_product_beyond_the_largest_float_is_no_infinite_value():
    with pytest.raises(DataError, match="value: a value times its weight is beyond"):
        weighed({"value": np.array([1.0, 1e200])}, 1e200)
    assert weighed({"value": np.array([1, 2], np.uint8)}, 200.0)["value"].tolist() == [200, 400]


def test_an_integer_beyond_the_sums_range():
    with pytest.raises(DataError, match=r"beyond 2\^63 - 1"):
        join([np.array([2**63], np.uint64)])
