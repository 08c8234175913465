# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG005 (cases have one signature)
"""What can be done to shares without a word, on rings of three sizes, additive and replicated: as NumPy does it."""

import itertools
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedray.errors import EncodingError, NotFinite, PlanError, ProtocolError
from fedray.protocol.spu.form import Form, Layout, decode, encode
from fedray.protocol.spu.ring import Ring
from fedray.protocol.spu.secret import Linear, Secret, combine, expand, held, split

LAYOUTS = [
    Layout(64, 2, 18),
    Layout(64, 3, 18),
    Layout(64, 3, 18, replicated=True),
    Layout(128, 2, 18),
    Layout(128, 3, 18, replicated=True),
    Layout(32, 2, 12),
]
IDS = [f"{layout.bits}-{layout.parties}{'r' * layout.replicated}" for layout in LAYOUTS]
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)


def shared(layout, value, compress=True, long=0, bound=None):
    """Returns what each compute party holds of a value."""
    form, elements = encode(layout, value, bound)
    parts = split(layout, elements, long, compress)
    written = [expand(part, elements) if isinstance(part, bytes) else part for part in parts]
    return [
        Secret(form, held(layout, [written[j] for j in layout.components(place)])) for place in range(layout.parties)
    ]


def each(layout, function, *values):
    """Applies one operation at every compute party and opens what comes of it."""
    results = [function(Linear(layout, m), *(value[m] for value in values)) for m in range(layout.parties)]
    return combine(layout, results)


# Rings.


def integers_of(ring, elements):
    """Python's own integers."""
    flat = elements.reshape(-1, 2) if ring.wide else elements.reshape(-1)
    return [int(e[0]) + (int(e[1]) << 64) if ring.wide else int(e) for e in flat]


@given(
    bits=st.sampled_from([32, 64, 128]),
    data=st.data(),
)
def test_a_ring_is_the_integers(bits, data):
    ring, mod = Ring(bits), 1 << bits
    count = data.draw(st.integers(1, 6))
    raw = [data.draw(st.binary(min_size=count * bits // 8, max_size=count * bits // 8)) for _ in range(2)]
    a, b = (ring.read(part, (count,)) for part in raw)
    ia, ib = integers_of(ring, a), integers_of(ring, b)
    factor = data.draw(hnp.arrays(np.int64, count, elements=st.integers(-(1 << 62), 1 << 62)))
    assert integers_of(ring, ring.add(a, b)) == [(x + y) % mod for x, y in zip(ia, ib, strict=True)]
    assert integers_of(ring, ring.subtract(a, b)) == [(x - y) % mod for x, y in zip(ia, ib, strict=True)]
    assert integers_of(ring, ring.negative(a)) == [-x % mod for x in ia]
    assert integers_of(ring, ring.times(a, factor)) == [x * int(k) % mod for x, k in zip(ia, factor, strict=True)]
    assert integers_of(ring, ring.total(a, (0,))) == [sum(ia) % mod]
    signed = [x - mod if x >= mod // 2 else x for x in ia]
    np.testing.assert_allclose(np.asarray(ring.signed(a), np.float64), np.array(signed, np.float64), rtol=1e-15)
    assert integers_of(ring, ring.of(factor)) == [int(k) % mod for k in factor]


def test_signed_integers_are_exact_where_they_fit():
    ring = Ring(128)
    values = np.array([0, 1, -1, (1 << 62) + 1, -(1 << 62) - 1, np.iinfo(np.int64).max])
    assert ring.signed(ring.of(values)).tolist() == values.tolist()


def test_sums_of_many_wide_elements_carry():
    ring = Ring(128)
    ones = np.full((100_000, 2), 0xFFFFFFFFFFFFFFFF, "<u8")
    assert integers_of(ring, ring.total(ones, (0,))) == [-100_000 % (1 << 128)]


# Sharing and opening.


@each_layout
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        np.linspace(-30, 30, 12, dtype=np.float32).reshape(3, 4),
        np.float64(1.25),
        np.array([], np.float64),
        np.array([[1, -2], [3, 400]], np.int32),
        np.array([True, False, True]),
        7,
    ],
    ids=lambda v: f"{np.asarray(v).dtype}{np.asarray(v).shape}",
)
def test_what_is_shared_is_opened(layout, compress, value):
    for long in range(layout.parties):
        opened = combine(layout, shared(layout, value, compress, long))
        assert opened.dtype == np.asarray(value).dtype
        assert opened.shape == np.asarray(value).shape
        np.testing.assert_allclose(
            opened.astype(np.float64), np.asarray(value, np.float64), atol=2.0 ** -(layout.fraction + 1)
        )


@each_layout
def test_any_compute_party_but_one_holds_nothing_of_the_value(layout):
    """All shares but one are fresh randomness; in the last one it hides the value."""
    form, elements = encode(layout, np.arange(4.0))
    drawn = []

    def entropy(count):
        drawn.append(os.urandom(count))
        return drawn[-1]

    for long in range(layout.parties):
        drawn.clear()
        parts = split(layout, elements, long, False, entropy)
        random = [part for place, part in enumerate(parts) if place != long]
        assert [part.tobytes() for part in random] == drawn
        total = layout.ring.zeros((4,))
        for part in parts:
            total = layout.ring.add(total, part)
        assert np.array_equal(total, elements)
    most = 1 if not layout.replicated else 0  # replicated shares: any two of three open the value, and are not hidden
    for bad in itertools.combinations(range(layout.parties), layout.parties - 1 if most else 1):
        known = set().union(*(layout.components(m) for m in bad))
        assert len(known) < layout.parties
    assert form.shape == (4,)


@each_layout
def test_one_altered_share_is_found_or_changes_the_value(layout):
    secrets = shared(layout, np.arange(4.0))
    wrong = secrets[1].shares.copy()
    wrong[(0,) * wrong.ndim] ^= 1 << (layout.bits - 2 if layout.bits < 128 else 40)
    if layout.ring.wide:
        wrong[(0,) * (wrong.ndim - 1) + (1,)] ^= 1 << 40
    with pytest.raises((ProtocolError, EncodingError)):
        combine(layout, [secrets[0], Secret(secrets[1].form, wrong), *secrets[2:]])


def test_shares_of_different_values_are_not_opened():
    layout = LAYOUTS[0]
    a, b = shared(layout, np.arange(4.0)), shared(layout, np.arange(5.0))
    with pytest.raises(ProtocolError, match="different values"):
        combine(layout, [a[0], b[1]])
    with pytest.raises(ProtocolError, match="different values"):
        combine(layout, a[:1])


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([1j]), np.array([None]), np.longdouble(1)])
def test_only_numbers_are_shared(value):
    with pytest.raises(EncodingError, match="floats, integers or booleans"):
        encode(LAYOUTS[0], value)


@each_layout
def test_limits_of_fixed_point(layout):
    limit = layout.default_bound()
    edge = np.array([limit, -limit])
    assert combine(layout, shared(layout, edge)).tolist() == edge.tolist()
    for bad in (np.nextafter(limit, np.inf), -limit * 2):
        with pytest.raises(EncodingError, match="beyond the bound"):
            encode(layout, np.array([0.0, bad]))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(NotFinite):
            encode(layout, np.array([0.0, bad]))
    whole = layout.default_integer_bound()
    assert combine(layout, shared(layout, np.array([whole, -whole]))).tolist() == [whole, -whole]
    with pytest.raises(EncodingError, match="beyond the bound"):
        encode(layout, np.array([whole + 1]))
    with pytest.raises(PlanError, match=r"the result may need \d+ bits, and the ring has"):
        encode(layout, np.array([1.0]), bound=2.0 ** (layout.bits - layout.fraction))


# Operations.


@each_layout
def test_arithmetic_with_public_numbers_and_with_each_other(layout):
    x, y = np.array([[1.5, -2.0], [0.25, 3.0]]), np.array([4.0, -1.0])
    a, b = shared(layout, x), shared(layout, y)
    close = {"atol": 8 * 2.0**-layout.fraction, "rtol": 2.0**-20 if layout.bits > 32 else 2.0**-7}
    cases = [
        (lambda op, u, v: op.add(u, v), x + y),
        (lambda op, u, v: op.add(u, op.negative(v)), x - y),
        (lambda op, u, v: op.add_public(u, 2.5), x + 2.5),
        (lambda op, u, v: op.add_public(u, y), x + y),
        (lambda op, u, v: op.add_public(u, 3), x + 3),
        (lambda op, u, v: op.multiply_public(u, 3), x * 3),
        (lambda op, u, v: op.multiply_public(u, -0.3), x * -0.3),
        (lambda op, u, v: op.multiply_public(u, np.array([2, -1])), x * [2, -1]),
        (lambda op, u, v: op.add(op.multiply_public(u, 0.125), v), x * 0.125 + y),
        (lambda op, u, v: op.add_public(op.multiply_public(u, 0.125), 1.0), x * 0.125 + 1.0),
        (lambda op, u, v: op.total(u, None), x.sum()),
        (lambda op, u, v: op.total(u, 0), x.sum(0)),
        (lambda op, u, v: op.total(u, -1), x.sum(-1)),
        (lambda op, u, v: op.mean(u, 1), x.mean(1)),
        (lambda op, u, v: op.mean(u, None), x.mean()),
        (lambda op, u, v: op.join([v, v], 0, stacked=True), np.stack([y, y])),
        (lambda op, u, v: op.join([v, op.multiply_public(v, 0.5)], 1, stacked=True), np.stack([y, y / 2], 1)),
        (lambda op, u, v: op.join([u, u], 1, stacked=False), np.concatenate([x, x], 1)),
    ]
    if layout.bits > 32:
        cases.append((lambda op, u, v: op.multiply_public(u, y / 3), x * (y / 3)))
    for number, (function, expected) in enumerate(cases):
        found = each(layout, function, a, b)
        assert found.dtype == np.float64, number
        np.testing.assert_allclose(found, expected, **close, err_msg=str(number))


@each_layout
def test_integers_stay_exact_and_join_floats(layout):
    n, x_values = np.array([1, -2, 300]), np.array([0.5, 1.0, -1.0])
    a, x = shared(layout, n), shared(layout, x_values)
    assert each(layout, lambda op, u: op.add(u, op.multiply_public(u, 3)), a).tolist() == (n * 4).tolist()
    assert each(layout, lambda op, u: op.total(u, None), a) == n.sum()
    assert each(layout, lambda op, u: op.total(u, None), a).dtype == np.int64
    if layout.bits > 32:
        np.testing.assert_allclose(each(layout, lambda op, u, v: op.add(u, v), a, x), n + x_values)
        np.testing.assert_allclose(each(layout, lambda op, u: op.add_public(u, 0.5), a), n + 0.5)
        np.testing.assert_allclose(
            each(layout, lambda op, u: op.add_public(u, np.arange(1, 4)), a), n + np.arange(1, 4)
        )
    np.testing.assert_allclose(each(layout, lambda op, u: op.mean(u, None), a), n.mean())
    flags = shared(layout, np.array([True, False, True]))
    assert each(layout, lambda op, u: op.total(u, None), flags) == 2
    assert each(layout, lambda op, u: op.add(u, u), flags).tolist() == [2, 0, 2]


def test_the_mean_of_a_million_floats():
    layout = Layout(64, 2, 18)
    values = np.random.default_rng(0).normal(size=1_000_000)
    found = each(layout, lambda op, u: op.mean(u, None), shared(layout, values))
    assert abs(found - values.mean()) < 1e-8


@each_layout
def test_what_might_wrap_around_is_refused_before_it_does(layout):
    a = shared(layout, np.full(4, layout.default_bound()))[0]
    op = Linear(layout, 0)

    def repeat(function, start):
        for _ in range(200):
            start = function(start)

    with pytest.raises(PlanError, match=r"the result may need \d+ bits, and the ring has"):
        repeat(lambda b: op.add(b, b), a)
    with pytest.raises(PlanError, match=r"the result may need \d+ bits, and the ring has"):
        repeat(lambda b: op.multiply_public(b, 1 << 30), shared(layout, np.ones(4))[0])


def test_arguments_that_cannot_work_are_refused():
    layout = LAYOUTS[0]
    a, op = shared(layout, np.ones((2, 3)))[0], Linear(layout, 0)
    for function in (
        lambda: op.add(a, shared(layout, np.ones(2))[0]),
        lambda: op.total(a, 2),
        lambda: op.total(a, (0, 0)),
        lambda: op.total(a, True),
        lambda: op.mean(shared(layout, np.ones(0))[0], None),
        lambda: op.join([a, a], 5, stacked=True),
        lambda: op.join([a, shared(layout, np.ones(2))[0]], 0, stacked=True),
        lambda: op.multiply_public(a, np.nan),
        lambda: op.multiply_public(a, "text"),
        lambda: op.add_public(a, np.array([None])),
        lambda: op.add(a, Secret(Form((2, 3), "bool", combine="xor"), a.shares)),
    ):
        with pytest.raises(PlanError):
            function()
    with pytest.raises(EncodingError, match="beyond 2"):
        op.multiply_public(a, float(1 << 63) * np.ones(3))


# Results of programs.


@pytest.mark.parametrize("layout", LAYOUTS[:5], ids=IDS[:5])
def test_exclusive_or_and_public_results_are_opened(layout):
    bits = np.array([1, 0, 1], np.uint8)
    masks = [np.random.default_rng(k).integers(0, 2, 3).astype(np.uint8) for k in range(layout.parties - 1)]
    parts = [*masks, bits ^ np.bitwise_xor.reduce(masks)]
    form = Form((3,), "bool", combine="xor")
    if layout.replicated:
        secrets = [Secret(form, np.stack([parts[m], parts[(m + 1) % 3]], -1)) for m in range(3)]
    else:
        secrets = [Secret(form, part) for part in parts]
    assert combine(layout, secrets).tolist() == [True, False, True]
    public = Form((2,), "float32", layout.fraction, combine="public")
    words = layout.ring.of(np.array([1 << layout.fraction, -(1 << layout.fraction)]))
    assert combine(layout, [Secret(public, words)] * layout.parties).tolist() == [1.0, -1.0]


# Forms.


def test_forms_travel_as_bytes():
    for form in (Form((), "int64"), Form((3, 0), "float32", 18, -0.5, 1 << 100), Form((2,), "bool", combine="xor")):
        assert Form.decode(form.encode()) == form
    for bad in (
        Form((), "int64").encode() + b"x",
        Form((), "int64").encode().replace(b"int64", b"int65"),
        Form((), "int64").encode().replace(b"int64", b"<U999"),
        Form((), "int64").encode().replace(b"int64", b",int8"),
        Form((), "int64", bound=255).encode().replace(b"255", b"025"),
        b"",
    ):
        with pytest.raises(EncodingError):
            Form.decode(bad)


def test_a_scale_enters_the_shares_where_it_must():
    layout = Layout(64, 2, 18)
    a = [Linear(layout, m).multiply_public(s, 1 / 3) for m, s in enumerate(shared(layout, np.array([3.0, 300.0])))]
    assert a[0].form.scale == 1 / 3
    prepared = [Linear(layout, m).prepared(s) for m, s in enumerate(a)]
    assert prepared[0].form.scale == 1.0
    np.testing.assert_allclose(combine(layout, prepared), [1.0, 100.0], rtol=1e-7)
    whole = shared(layout, np.array([5, 6]))
    assert Linear(layout, 0).prepared(whole[0]) is whole[0]
    with pytest.raises(PlanError, match="too large"):
        Linear(layout, 0).prepared(Secret(replace(whole[0].form, scale=1e300), whole[0].shares))


def test_decode_refuses_what_is_beyond_the_bound():
    layout = Layout(64, 2, 18)
    with pytest.raises(EncodingError, match="do not belong together"):
        decode(layout, Form((1,), "float64", 18, bound=10), layout.ring.of(np.array([11])))


def test_the_negative_of_an_integer_keeps_its_value():
    """As sums and products, it is of int64: an unsigned type would wrap round."""
    layout = LAYOUTS[0]
    for value in (np.array([200, 3], np.uint8), np.array([-128], np.int8), np.array([True])):
        found = each(layout, lambda at, a: at.negative(a), shared(layout, value))
        assert (found.tolist(), found.dtype) == ((-value.astype(np.int64)).tolist(), np.int64)


def test_what_would_be_nothing_or_infinite_is_refused():
    layout = LAYOUTS[0]
    for tiny in (1e-10, 5e-324, 2.0**-18 * 0.9):
        with pytest.raises(EncodingError, match=r"all numbers are below 2\^-18, the step of the fixed point"):
            encode(layout, np.array([0.0, -tiny]))
    encode(layout, np.array([1e-10, 1.0]))
    encode(layout, np.zeros(2))
    with pytest.raises(EncodingError, match="found a masked array"):
        encode(layout, np.ma.masked_array([1.0, 2.0], mask=[False, True]))
    half = shared(layout, np.array([60000.0], np.float16))
    with pytest.raises(EncodingError, match="beyond what float16 holds; share the values in a wider type"):
        each(layout, lambda at, a: at.add(a, a), half)
