# SPDX-License-Identifier: Apache-2.0
"""Values that an SPU holds in shares: made by their owner, computed on without a word, opened through every door."""

import copy
import importlib.util
import pickle

import numpy as np
import pytest

import fedray as sf
from fedray.errors import (
    DeviceMismatch,
    EncodingError,
    NotFinite,
    PartyError,
    PlanError,
)
from fedray.utils.testing import cluster_def

CLUSTERS = {
    "semi2k-128": (["alice", "bob"], {}),
    "semi2k-64": (["bob", "charlie"], {"field": "FM64"}),
    "three": (["alice", "bob", "charlie"], {"field": "FM64"}),
    "aby3": (["alice", "bob", "charlie"], {"protocol": "ABY3", "field": "FM64"}),
    "aby3-128": (["charlie", "alice", "bob"], {"protocol": "ABY3"}),
    "cheetah": (["bob", "alice"], {"protocol": "CHEETAH", "field": "FM64"}),
}


@pytest.fixture(params=CLUSTERS)
def spu(request, shared):
    return sf.SPU(cluster_def(*CLUSTERS[request.param]))


@pytest.fixture
def two(shared):
    return sf.SPU(cluster_def(["alice", "bob"]))


@pytest.fixture
def alice(shared):
    return sf.PYU("alice")


@pytest.fixture
def charlie(shared):
    return sf.PYU("charlie")


def held(party, value):
    """A value that a party has."""
    return party(np.array)(value)


def test_a_value_is_shared_and_opened(spu, alice, charlie):
    value = np.linspace(-5, 5, 6, dtype=np.float32).reshape(2, 3)
    x = held(charlie, value).to(spu)
    assert (x.shape, x.dtype) == ((2, 3), "float32")
    np.testing.assert_allclose(sf.reveal(x), value, atol=2.0**-18)
    opened = x.to(alice)
    assert isinstance(opened, sf.PYUObject)
    np.testing.assert_allclose(sf.reveal(alice(np.sum)(opened)), value.sum(), atol=1e-4)
    assert sf.reveal(held(alice, [1, -2]).to(spu)).tolist() == [1, -2]
    assert sf.reveal(held(alice, [True, False]).to(spu)).tolist() == [True, False]


def test_public_numbers_sums_and_stacks(spu, alice, charlie):
    a, b = np.arange(6.0).reshape(2, 3), np.ones((2, 3)) / 4
    x, y = held(alice, a).to(spu), held(charlie, b).to(spu)
    found = sf.reveal(
        {
            "add": x + y,
            "public": 2 * x - y / 4 + 1.5,
            "left": np.ones((2, 3)) - x,
            "negative": -x,
            "array": x * np.array([1, 2, 3]),
            "sum": x.sum(),
            "rows": x.sum(axis=1),
            "mean": x.mean(0),
            "stack": spu.stack([x, y]),
            "joined": spu.concatenate([x, y], axis=1),
            "of stack": spu.stack([x, y], axis=-1).mean(axis=-1),
        }
    )
    expected = {
        "add": a + b,
        "public": 2 * a - b / 4 + 1.5,
        "left": 1 - a,
        "negative": -a,
        "array": a * [1, 2, 3],
        "sum": a.sum(),
        "rows": a.sum(1),
        "mean": a.mean(0),
        "stack": np.stack([a, b]),
        "joined": np.concatenate([a, b], 1),
        "of stack": (a + b) / 2,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-5, err_msg=name)


def test_repr_shows_what_is_public(two, alice):
    x = held(alice, np.ones((2, 3))).to(two)
    assert repr(x) == "SPUObject(shape=(2, 3), dtype=float64, shares at alice, bob; SEMI2K, FM128)"


def test_shares_travel_and_values_do_not(two, alice, charlie):
    def entries(party):
        return sf.ledger().pages[party].entries

    x = held(charlie, np.arange(4.0))
    sf.wait([x, held(alice, [1.0]).to(two)])  # the parties have met
    before = {party: len(entries(party)) for party in ("alice", "bob", "charlie")}
    y = x.to(two)
    sf.wait((y + 1).sum())
    new = {party: entries(party)[count:] for party, count in before.items()}
    assert {(e.to, e.kind) for e in new["charlie"] if e.kind != "ledger"} == {("alice", "share"), ("bob", "share")}
    assert not [e for party in ("alice", "bob") for e in new[party] if e.kind != "ledger"]  # no word among them
    sf.reveal(y)
    opened = [(e.to, e.kind) for party in ("alice", "bob") for e in entries(party)[before[party] :] if e.kind == "raw"]
    assert opened == [("driver", "raw")] * 2


def test_no_compute_party_holds_the_value(two, charlie, shared):
    """What each compute party has of 65536 equal numbers looks like noise."""
    if shared.transport.__class__.__name__ != "InlineTransport":
        pytest.skip("looks into the parties' memory")
    x = held(charlie, np.full(1 << 16, 3.0)).to(two)
    sf.wait(x)
    for name in ("alice", "bob"):
        secret = shared.transport._hosts[name]._party._table.get(x.key)
        counts = np.bincount(np.ascontiguousarray(secret.shares).view(np.uint8).reshape(-1), minlength=256)
        expected = counts.sum() / 256
        assert (((counts - expected) ** 2) / expected).sum() < 400  # 255 degrees of freedom, 6 sigma


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: np.array([1.0, np.nan]), NotFinite, "NaN or an infinity"),
        (lambda: np.array([1e9]), EncodingError, "beyond the bound 65536"),
        (lambda: np.array([2**63 - 1]), EncodingError, "beyond the bound"),
        (lambda: "text", EncodingError, "floats, integers or booleans"),
        (lambda: 1 / 0, PartyError, "ZeroDivisionError"),
    ],
    ids=["nan", "large float", "large integer", "text", "failure"],
)
def test_what_cannot_be_shared_says_so_wherever_it_is_used(two, alice, charlie, make, error, match):
    x = charlie(make)().to(two)
    for use in (lambda: sf.reveal(x), lambda: sf.reveal(x + 1), lambda: sf.reveal(x.to(alice)), lambda: sf.wait(x)):
        with pytest.raises(error, match=match):
            use()


def test_mistakes(two, alice):
    other = sf.SPU(cluster_def(["alice", "bob"]))
    x = held(alice, np.ones((2, 3))).to(two)
    shares = held(alice, np.ones(2)).to(two)
    mistakes = [
        (lambda: x + held(alice, np.ones(3)), DeviceMismatch, "share it first"),
        (lambda: x + held(alice, np.ones(3)).to(other), DeviceMismatch, "another SPU"),
        (lambda: x * shares, PlanError, r"fedray\[spu\]"),
        (lambda: x / shares, PlanError, r"fedray\[spu\]"),
        (lambda: x + "text", PlanError, "public number"),
        (lambda: sf.reveal(x + shares), PlanError, "do not fit"),
        (lambda: sf.reveal(x.sum(axis=2)), PlanError, "axis"),
        (lambda: sf.reveal(x / 0), PlanError, "finite"),
        (lambda: two.stack([]), PlanError, "expected a list"),
        (lambda: sf.reveal(two.stack([x, shares])), PlanError, "side by side"),
        (lambda: x.to("alice"), PlanError, "expected a PYU"),
        (lambda: sf.to(two, 3.0), PlanError, r"sf\.to\(alice, x\)\.to\(spu\)"),
        (lambda: sf.SPUObject(), PlanError, r"x\.to\(spu\)"),
        (lambda: pickle.dumps(x), PlanError, "cannot be pickled"),
        (lambda: alice(abs)(x), PlanError, "cannot be pickled"),
    ]
    for use, error, match in mistakes:
        with pytest.raises(error, match=match):
            use()
    assert copy.copy(x) is copy.deepcopy(x) is x


def test_nested_handles_keep_their_places(two, alice, charlie):
    nest = sf.to(two, {"a": held(alice, [1.0]), "b": [held(charlie, [2.0])]})
    found = sf.reveal({"nest": nest, "plain": held(alice, [3.0]), "other": 4})
    assert found == {"nest": {"a": [1.0], "b": [[2.0]]}, "plain": [3.0], "other": 4}
    assert sf.reveal(sf.to(alice, {"x": nest["a"]})) == {"x": [1.0]}


def test_shares_written_out_open_the_same(alice):
    spu = sf.SPU(cluster_def(["alice", "bob"]), compress=False)
    x = held(alice, np.arange(5.0)).to(spu)
    assert sf.reveal(x * 3).tolist() == (np.arange(5.0) * 3).tolist()


def test_a_larger_bound_is_stated(alice):
    spu = sf.SPU(cluster_def(["alice", "bob"]), bound=2.0**30)
    assert sf.reveal(held(alice, [2.0**30]).to(spu)) == [2.0**30]


def test_dropping_the_last_handle_frees_the_shares(two, alice, shared):
    if shared.transport.__class__.__name__ != "InlineTransport":
        pytest.skip("looks into the parties' memory")
    x = held(alice, np.ones(3)).to(two)
    key = x.key
    sf.wait(x)
    tables = [shared.transport._hosts[name]._party._table for name in ("alice", "bob")]
    assert all(table.arrives(key, 0) for table in tables)
    del x
    sf.wait(held(alice, [1.0]).to(two))
    for _ in range(100):
        if not any(table.arrives(key, 0) for table in tables):
            return
        sf.reveal(alice(abs)(1))
    pytest.fail("the shares are still there")


def test_a_million_floats(two, alice, charlie):
    values = [np.random.default_rng(k).normal(size=1_000_000) for k in range(2)]
    x, y = (
        party(lambda k: np.random.default_rng(k).normal(size=1_000_000))(k).to(two)
        for k, party in enumerate((alice, charlie))
    )
    assert abs(sf.reveal(two.stack([x, y]).mean()) - np.mean(values)) < 1e-8


def hide():
    """Makes this process look as if the extra were not installed, whether or not it is."""
    import sys

    sys.modules["spu, hidden"] = sys.modules.pop("spu", None)
    sys.modules["spu"] = None


def show():
    """Undoes `hide`."""
    import sys

    sys.modules.pop("spu", None)
    if (found := sys.modules.pop("spu, hidden", None)) is not None:
        sys.modules["spu"] = found


@pytest.mark.parametrize("lacking", ["alice", "bob"])
def test_without_the_extra_the_call_names_it(alice, lacking, address):
    alone = address != "inline" and importlib.util.find_spec("spu")  # otherwise both lack it, and either may be named
    named = lacking if alone else "(alice|bob)"
    spu = sf.SPU(cluster_def(["alice", "bob"], {"beaver_type": "TrustedFirstParty"}))
    x = held(alice, [1.0]).to(spu)
    sf.wait(sf.PYU(lacking)(hide)())
    try:
        with pytest.raises(PlanError, match=rf"party '{named}'.*pip install 'fedray\[spu\]'"):
            spu(abs)(x)
        assert sf.reveal((x + 1).sum()) == 2.0  # which needs no extra
    finally:
        sf.wait(sf.PYU(lacking)(show)())


def test_triples_are_chosen_explicitly(two, alice):
    x = held(alice, [1.0]).to(two)
    with pytest.raises(PlanError, match=r"beaver_type.*TrustedFirstParty.*every value.*CHEETAH"):
        two(abs)(x)
