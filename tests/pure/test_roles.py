# SPDX-License-Identifier: Apache-2.0
"""Roles of tensors: patterns against names, and what of a spec is in the flat vector."""

import numpy as np
import pytest

from fedray.backends.roles import check_something_is_shared, checked_patterns, local_names
from fedray.backends.spec import Param, ParamSpec, check_arrays
from fedray.errors import DataError, PlanError

NAMES = (
    "conv2d/kernel",
    "batch_normalization/gamma",
    "batch_normalization/moving_mean",
    "block/batch_normalization_1/gamma",
    "head/kernel",
    "head/bias",
)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], ()),
        (["head/*"], ("head/kernel", "head/bias")),
        (["head/bias"], ("head/bias",)),
        (["*/batch_normalization*"], NAMES[1:4]),
        (["/batch_normalization*"], NAMES[1:3]),
        (["block/*", "*bias"], ("block/batch_normalization_1/gamma", "head/bias")),
        (["conv?d/[jk]ernel"], ("conv2d/kernel",)),
        (["*"], NAMES),
    ],
)
def test_patterns_are_those_of_fnmatch_on_whole_names(patterns, expected):
    assert local_names(patterns, NAMES) == set(expected)


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("haed/*", "Did you mean 'head/kernel', 'head/bias'[?]"),
        ("Head/*", "Did you mean 'head/kernel', 'head/bias'[?]"),
        ("model/head/kernel", "Did you mean 'head/kernel'"),
        ("*/batchnorm*", "Did you mean 'batch_normalization/gamma', 'batch_normalization/moving_mean'"),
        ("xyz", "Its tensors are 'conv2d/kernel', 'batch_normalization/gamma', .*, [.]{3}$"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_near_misses(pattern, near):
    with pytest.raises(PlanError, match=f"local: pattern .* matches none of the model's 6 tensors[.] {near}") as caught:
        local_names(["head/*", pattern], NAMES)
    assert repr(pattern) in str(caught.value)
    assert str(caught.value).count(", '") <= 2


@pytest.mark.parametrize(
    ("local", "message"),
    [
        ("head/*", r"local: expected a list of patterns, found one text; write local=\['head/\*'\]"),
        (["head/*", 3], "local: expected a list of patterns like 'head/[*]', found"),
        ([""], "local: expected a list of patterns like 'head/[*]', found"),
        (None, "local: expected a list of patterns like 'head/[*]', found None"),
        ({"head/*"}, "local: expected a list of patterns like 'head/[*]', found"),
    ],
)
def test_what_is_no_list_of_patterns_is_refused(local, message):
    with pytest.raises(PlanError, match=message):
        checked_patterns(local)


def test_a_list_of_patterns_may_be_empty():
    assert checked_patterns([]) == checked_patterns(()) == ()
    assert checked_patterns(["a", "b/*"]) == ("a", "b/*")


def test_something_has_to_be_left_to_sum():
    check_something_is_shared(["kernel"], ["bias"])
    with pytest.raises(PlanError, match=r"local: the patterns keep all 2 tensors .* leave at least one out"):
        check_something_is_shared([], ["kernel", "bias"])
    with pytest.raises(PlanError, match="model: expected at least one weight to train, found none; leave a layer"):
        check_something_is_shared([], [])


def test_the_flat_vector_is_made_of_shared_tensors_alone():
    spec = ParamSpec(
        (
            Param("head/kernel", (2, 3), "float32", True),
            Param("norm/mean", (2,), "float32", False),
            Param("backbone/kernel", (100,), "float64", False, "frozen"),
            Param("norm/gamma", (4,), "float32", True, "local"),
        )
    )
    assert (spec.names, spec.sizes, spec.size, spec.trainable) == (("head/kernel", "norm/mean"), (6, 2), 8, 6)
    assert spec.dtype == np.float32
    assert [param.name for param in spec.of("frozen")] == ["backbone/kernel"]
    assert [param.name for param in spec.of("local")] == ["norm/gamma"]
    kernel, mean = spec.unpack(np.arange(8, dtype=np.float32))
    assert spec.pack([kernel, mean]).tolist() == list(range(8))
    assert (kernel.shape, mean.tolist()) == ((2, 3), [6.0, 7.0])


def test_arrays_that_a_models_tensors_cannot_hold():
    fits = [np.ones((2, 3)), np.array(7)]
    check_arrays(fits, [(2, 3), ()], ["float32", "int64"])
    check_arrays([np.array([np.inf, np.nan, 3.4e38])], [(3,)], ["float32"])
    check_arrays([np.array([1e300])], [(1,)], ["float64"])
    for dtype, value in [("float32", -1e39), ("float16", 7e4), ("bfloat16", 3.4e38)]:
        with pytest.raises(DataError, match=f"array 1 holds numbers beyond .* the largest that {dtype} holds"):
            check_arrays([np.zeros(2), np.array([0.0, value])], [(2,), (2,)], ["float32", dtype])
    with pytest.raises(DataError, match=r"array 0: expected numbers, found dtype <U1"):
        check_arrays(["a"], [()], ["float32"])
    with pytest.raises(DataError, match=r"expected arrays of shapes \[\(2, 3\), \(\)\], found \[\(2, 3\)\]"):
        check_arrays(fits[:1], [(2, 3), ()], ["float32", "float32"])
