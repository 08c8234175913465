# SPDX-License-Identifier: Apache-2.0
"""Aggregators by themselves: sums and averages of values that parties hold, and what they refuse."""

import numpy as np
import pytest

import fedray as sf
from fedray.errors import DataError, EgressDenied, EncodingError, PlanError, ProtocolError
from fedray.party.rounds.value_client import MOST_REFUSED
from fedray.rounds import value_sums
from fedray.security.aggregation import PlainAggregator, SecureAggregator

KINDS = [SecureAggregator, PlainAggregator]


@pytest.fixture
def parties(start):
    start("inline", ("alice", "bob", "carol", "server"), seed=1)
    return [sf.PYU(name) for name in ("alice", "bob", "carol")], sf.PYU("server")


def held(devices, values):
    return [device(lambda value: value)(value) for device, value in zip(devices, values, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_nested_values(parties, kind):
    devices, server = parties
    aggregator = kind(server, devices)
    values = [{"a": np.full((2, 2), k, np.float32), "b": [k, (k * 0.5,)]} for k in (1, 2, 4)]
    found = aggregator.sum(held(devices, values))
    assert found["a"].dtype == np.float32
    assert found["a"].tolist() == [[7, 7], [7, 7]]
    assert found["b"][0] == 7
    assert found["b"][1][0] == pytest.approx(3.5, abs=1e-9)


@pytest.fixture(params=["plain", "abandon", "recover"])
def scheme(request, start):
    """Returns an aggregator of each kind over four parties, one of which may drop out, and the parties."""
    start("inline", ("alice", "bob", "carol", "dave", "server"), seed=1)
    devices, server = [sf.PYU(name) for name in ("alice", "bob", "carol", "dave")], sf.PYU("server")
    if request.param == "plain":
        return PlainAggregator(server, devices), devices
    return SecureAggregator(server, devices, on_dropout=request.param), devices


def test_every_dtype_comes_back(scheme):
    """Floats in their own, integers as int64; nests and shapes, empty and scalar ones too."""
    aggregator, devices = scheme

    def value(k):
        return {
            "floats": [np.full(3, k / 4, kind) for kind in ("float16", "float32", "float64")],
            "integers": tuple(np.array([[k], [1]], kind) for kind in ("int8", "uint16", "int32", "int64")),
            "numbers": (k, -0.5 * k, np.float32(k)),
            "empty": np.zeros((0, 2), np.float32),
        }

    found = aggregator.sum(held(devices, [value(k) for k in range(4)]))
    assert [(array.dtype.name, array.tolist()) for array in found["floats"]] == [
        (kind, [1.5] * 3) for kind in ("float16", "float32", "float64")
    ]
    assert isinstance(found["integers"], tuple)
    assert [(array.dtype.name, array.tolist()) for array in found["integers"]] == [("int64", [[6], [4]])] * 4
    assert (*found["numbers"],) == (6, -3.0, 6.0)
    assert (found["empty"].shape, found["empty"].dtype) == ((0, 2), np.float32)
    mean = aggregator.average(held(devices, [value(k) for k in range(4)]))
    assert [array.dtype.name for array in mean["floats"]] == ["float16", "float32", "float64"]
    assert mean["floats"][1].tolist() == [0.375] * 3
    assert mean["integers"][0].dtype == np.float64
    assert mean["integers"][0].tolist() == [[1.5], [1.0]]


def test_weights_held_by_the_parties(scheme):
    aggregator, devices = scheme
    values = held(devices, [np.array([v, 1.0], np.float32) for v in (1, 2, 3, 6)])
    weights = held(devices, [np.int64(2), 0.0, np.float32(0.5), np.array(1.5)])
    found = aggregator.average(values, weights, largest_weight=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [(2 + 1.5 + 9) / 4, 1.0], atol=1e-6)
    with pytest.raises(DataError, match="party 'dave': its weight is not a number from 0 to 1"):
        aggregator.average(values, held(devices, [1, 1, 1, 1.5]), largest_weight=1)
    with pytest.raises(ProtocolError, match="weight"):
        aggregator.average(values, held(devices, [0, 0, 0, 0]), largest_weight=1)
    assert aggregator.sum(values).tolist() == [12.0, 4.0]


@pytest.mark.parametrize("kind", KINDS)
def test_integers_are_summed_exactly(parties, kind):
    devices, server = parties
    values = [np.array([2**58, -5, 0]), np.array([2**58, -6, 1]), np.array([1, -7, 2])]
    found = kind(server, devices).sum(held(devices, values))
    assert found.dtype == np.int64
    assert found.tolist() == [2**59 + 1, -18, 3]


def test_masks_change_no_bit(parties):
    devices, server = parties
    generator = np.random.default_rng(5)
    values = held(devices, generator.normal(size=(3, 40)))
    secure, plain = (kind(server, devices).sum(values) for kind in KINDS)
    assert secure.tobytes() == plain.tobytes()


def test_averages(parties):
    devices, server = parties
    aggregator = SecureAggregator(server, devices)
    values = held(devices, [np.array([1.0, 0.0]), np.array([2.0, 10.0]), np.array([6.0, -4.0])])
    np.testing.assert_allclose(aggregator.average(values), [3.0, 2.0], atol=1e-9)
    np.testing.assert_allclose(aggregator.average(values, [1, 2, 1]), [2.75, 4.0], atol=1e-9)
    np.testing.assert_allclose(aggregator.average(values, [0.5, 0.25, 0.25]), [2.5, 1.5], atol=1e-8)
    weights = held(devices, [3, 0, 1])
    np.testing.assert_allclose(aggregator.average(values, weights, largest_weight=3), [2.25, -1.0], atol=1e-8)
    assert aggregator.average(held(devices, [1, 2, 4])) == pytest.approx(7 / 3, abs=1e-9)


def test_objects_may_come_in_any_order_and_the_server_may_take_part(parties):
    devices, _ = parties
    aggregator = SecureAggregator(devices[0], devices)
    values = held(devices, [1.0, 2.0, 4.0])
    assert aggregator.sum(values[::-1]) == pytest.approx(7.0, abs=1e-9)
    again = [aggregator.sum(values) for _ in range(10)]
    assert set(again) == {aggregator.sum(values)}


def test_what_cannot_be_summed(parties):
    devices, server = parties
    aggregator = SecureAggregator(server, devices)
    good = held(devices, [1.0, 2.0, 3.0])
    cases = [
        (good[:2], PlanError, r"data: expected one object of each of \['alice', 'bob', 'carol'\], found objects of"),
        ([good[0], good[0], good[1]], PlanError, "data: expected one object of each"),
        ([1.0, 2.0, 3.0], PlanError, "data: expected one PYUObject of each .*, found float"),
        (held(devices, [1.0, np.ones(2), 3.0]), DataError, "party 'bob' offers .* but party 'alice' offers"),
        (held(devices, [1.0, "two", 3.0]), DataError, "party 'bob'.*found str"),
        (held(devices, [1.0, np.nan, 3.0]), EncodingError, "bob.*holds NaN"),
        (held(devices, [1.0, 1e49, 3.0]), EncodingError, r"bob.*'value' is beyond 2\^160, the largest"),
    ]
    for data, error, message in cases:
        with pytest.raises(error, match=message):
            aggregator.sum(data)
        assert aggregator.sum(good) == 6.0, "an error leaves the aggregator usable"


def test_a_bound_makes_a_compact_sum(parties):
    devices, server = parties
    aggregator = SecureAggregator(server, devices)
    values = held(devices, [1.0, 1e9, 3.0])
    assert aggregator.sum(values) == 1e9 + 4
    with pytest.raises(EncodingError, match=r"bob.*beyond its bound 65536"):
        aggregator.sum(values, bound=65536.0)
    assert aggregator.sum(values, bound=2.0**31) == pytest.approx(1e9 + 4)
    small = held(devices, [1e-12, 2e-12, 4e-12])
    assert aggregator.sum(small, bound=1.0) == pytest.approx(7e-12, abs=3e-12)
    assert aggregator.average(values, [1, 2, 1], bound=2.0**31) == pytest.approx(5e8 + 1)
    weights = held(devices, [1, 2, 3])
    with pytest.raises(PlanError, match="largest_weight: expected a bound on the weights beside that on the values"):
        aggregator.average(values, weights, bound=2.0**31)
    found = aggregator.average(values, weights, largest_weight=3, bound=2.0**31)
    assert found == pytest.approx(2e9 / 6 + 10 / 6, rel=1e-9)


def test_too_many_floats_for_an_exact_sum(parties, monkeypatch):
    devices, server = parties
    aggregator = SecureAggregator(server, devices)
    monkeypatch.setattr(value_sums, "MOST_BYTES", 8 * 20 * 100)
    whole = held(devices, [np.arange(1000), np.ones(1000, int), np.zeros(1000, int)])
    assert aggregator.sum(whole)[-1] == 1000
    floats = held(devices, [np.full(100, k) for k in (0.5, 1.0, 2.0)])
    with pytest.raises(PlanError, match=r"100 floats are too many to sum them exactly.*pass bound=.*bound=65536\.0"):
        aggregator.sum(floats)
    assert aggregator.sum(floats, bound=65536.0).tolist() == [3.5] * 100


def test_weights_that_cannot_be(parties):
    devices, server = parties
    aggregator = SecureAggregator(server, devices)
    good = held(devices, [1.0, 2.0, 3.0])
    for weights, more, message in [
        ([1, 2], {}, "weights: expected 3, one per object of data, found 2"),
        ([1, -2, 1], {}, "weights: expected finite numbers of 0 or more"),
        ([0, 0, 0], {}, "weights: expected at least one above 0"),
        (["1", 2, 3], {}, "weights: expected numbers or objects of the participants, found int, str"),
        ([np.ones(2), 2, 3], {}, "weights: expected numbers .*, found int, ndarray"),
        ((one for one in (1, 2, 3)), {}, "weights: expected a list, one per object of data, found type 'generator'"),
        ([1, 2, 3], {"largest_weight": 0}, "largest_weight: expected a positive number"),
        ([1, 2, 3], {"largest_weight": True}, "largest_weight: expected a positive number"),
        ([1, 2, 3], {"largest_weight": np.nan}, "largest_weight: expected a positive number"),
    ]:
        with pytest.raises(PlanError, match=message):
            aggregator.average(good, weights, **more)
    with pytest.raises(DataError, match="party 'carol': its weight is not a number from 0 to 2"):
        aggregator.average(good, held(devices, [1, 2, 3]), largest_weight=2)
    with pytest.raises(PlanError, match=r"data: expected a list, one PYUObject of each of .* 'dict_values'"):
        aggregator.sum(dict(enumerate(good)).values())
    with pytest.raises(PlanError, match=r"data: expected a list, one PYUObject of each of .* 'generator'"):
        aggregator.average(one for one in good)
    for weight in (-1, np.nan, np.inf, "1", np.ones(2)):
        with pytest.raises(DataError, match="party 'carol': its weight is not a number of 0 or more"):
            aggregator.average(good, held(devices, [1, 2, weight]))


@pytest.mark.parametrize("unit", [1e-300, 1e-45, 1e45, 1e300])
def test_the_unit_of_weights_does_not_matter(parties, unit):
    devices, server = parties
    aggregator = SecureAggregator(server, devices)
    weights = [unit, 2 * unit, 5 * unit]
    assert aggregator.average(held(devices, [1.0, 2.0, 4.0]), weights) == pytest.approx(25 / 8, rel=1e-15)
    assert aggregator.average(held(devices, [1.0, 2.0, 4.0]), weights, bound=4.0) == pytest.approx(25 / 8, rel=1e-9)


def test_values_or_weights_too_small_for_a_sum_are_refused(parties):
    devices, server = parties
    aggregator = SecureAggregator(server, devices)
    with pytest.raises(EncodingError, match="'value' holds nothing of 2"):
        aggregator.sum(held(devices, [1e-300, 1e-300, 1e-300]))
    with pytest.raises(EncodingError, match="'the weight' holds nothing of 2"):
        aggregator.average(held(devices, [1e9, 1e9, 1e9]), held(devices, [1e-47] * 3))


def test_arguments_that_cannot_be(parties):
    devices, server = parties
    with pytest.raises(PlanError, match=r"server: expected a PYU such as .*, found str"):
        SecureAggregator("server", devices)
    with pytest.raises(PlanError, match="participants: expected a list of PYUs"):
        SecureAggregator(server, devices[0])
    with pytest.raises(PlanError, match=r"participants: expected every party once, found \['alice', 'alice'\]"):
        SecureAggregator(server, [devices[0], devices[0]])
    with pytest.raises(PlanError, match="hides nothing; expected two or more"):
        SecureAggregator(server, devices[:1])
    for seconds in (0, True):
        with pytest.raises(PlanError, match="round_timeout: expected seconds"):
            SecureAggregator(server, devices, round_timeout=seconds)
    with pytest.raises(PlanError, match="on_dropout: expected 'auto', 'abandon' or 'recover', found 'retry'"):
        SecureAggregator(server, devices, on_dropout="retry")


def test_a_plain_sum_is_raw_and_a_masked_one_is_not(start):
    start("inline", ("alice", "bob", "server"), seed=1, egress="strict")
    devices, server = [sf.PYU("alice"), sf.PYU("bob")], sf.PYU("server")
    values = held(devices, [1.0, 2.0])
    assert SecureAggregator(server, devices).sum(values) == pytest.approx(3.0, abs=1e-9)
    with pytest.raises(EgressDenied, match="does not let raw values leave"):
        PlainAggregator(server, devices).sum(values)


def read_by_bounds(aggregator, data, queries):
    """Returns alice's number as far as the answers to sums with a chosen bound tell it, and how many were answered."""
    low, high, answered = 0.0, 1024.0, 0
    for _ in range(queries):
        middle = (low + high) / 2
        try:
            aggregator.sum(data, bound=middle)
            high = middle
        except EncodingError:
            low = middle
        except DataError:  # the party has had enough
            break
        answered += 1
    return (low + high) / 2, answered


def read_by_weights(aggregator, data, weights, most):
    """Reads the first weight out by questions of what it does not exceed; returns it and how many were answered."""
    low, high, answered = 0.0, 1024.0, 0
    for _ in range(most):
        middle = (low + high) / 2
        try:
            aggregator.average(data, weights=weights, largest_weight=middle)
            high = middle
        except DataError as error:
            if "takes part in no further sum" in str(error):
                break
            low = middle
        answered += 1
    return (low + high) / 2, answered


@pytest.mark.parametrize("egress", ["strict", "default"])
def test_limits_on_weights_read_no_number_out_under_strict_egress(start, egress):
    start("inline", ("alice", "bob", "server"), seed=1, egress=egress)
    devices = [sf.PYU("alice"), sf.PYU("bob")]
    aggregator, secret = SecureAggregator(sf.PYU("server"), devices), 777.125
    found, answered = read_by_weights(aggregator, held(devices, [1.0, 1.0]), held(devices, [secret, 0.0]), 30)
    if egress == "strict":
        assert answered < 10
        assert abs(found - secret) > 1
    else:
        assert (answered, abs(found - secret) < 1e-3) == (30, True), "the broken variant: no refusal is counted"


def test_a_sum_beyond_its_type_is_an_error_and_not_infinite(start):
    start("inline", ("alice", "bob", "server"), seed=1)
    devices = [sf.PYU("alice"), sf.PYU("bob")]
    half = [device(lambda: np.full(2, 40000, np.float16))() for device in devices]
    with pytest.raises(DataError, match=r"value: the sum is beyond what float16 holds; .*astype\('float64'\)"):
        SecureAggregator(sf.PYU("server"), devices).sum(half)


def test_integers_beyond_what_a_sum_holds_are_refusals_too(start):
    start("inline", ("alice", "bob", "server"), seed=1, egress="strict")
    devices = [sf.PYU("alice"), sf.PYU("bob")]
    aggregator = SecureAggregator(sf.PYU("server"), devices)
    large = [device(lambda: np.array([2**63], np.uint64))() for device in devices]
    for _ in range(MOST_REFUSED):
        with pytest.raises(DataError, match=r"beyond 2\^63"):
            aggregator.sum(large)
    with pytest.raises(DataError, match="takes part in no further sum"):
        aggregator.sum(large)


@pytest.mark.parametrize("egress", ["strict", "default"])
def test_bounds_read_no_number_out_under_strict_egress(start, egress, monkeypatch):
    start("inline", ("alice", "bob", "server"), seed=1, egress=egress)
    devices = [sf.PYU("alice"), sf.PYU("bob")]
    aggregator, secret = SecureAggregator(sf.PYU("server"), devices), 777.125
    data = held(devices, [secret, 0.0])
    found, answered = read_by_bounds(aggregator, data, 30)
    refusals = [row.entry for row in sf.ledger().rows if row.party == "alice" and row.entry.kind == "error"]
    if egress == "strict":
        assert answered < 10
        assert abs(found - secret) > 1
        assert len(refusals) >= 3, "each is on the ledger"
        return
    assert (answered, abs(found - secret) < 1e-3) == (30, True), "the broken variant: a party that counts no refusals"
