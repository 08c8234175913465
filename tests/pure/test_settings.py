# SPDX-License-Identifier: Apache-2.0
"""The arguments of `init`: each mistake has its message, and nothing starts."""

import re
from pathlib import Path

import pytest

import fedray as sf
from fedray.errors import NotInitialized, PlanError
from fedray.runtime.placement import custom, listed, options, shortage, threads_by_default
from fedray.runtime.session import current, running
from fedray.runtime.settings import checked_address, checked_settings
from fedray.types import PartyConfig


@pytest.mark.parametrize(
    ("parties", "message"),
    [
        ([], "expected a list of names"),
        ("alice", "expected a list of names"),
        (None, "expected a list of names"),
        ({"alice"}, "expected a list of names"),
        (["alice", "bob", "alice"], "'alice' more than once"),
        (["alice", ""], "parties: a party's name must be a non-empty string"),
        (["alice", " bob"], "must be printable, without blanks around it"),
        (["al\nice"], "must be printable"),
        (["alice", 3], "must be a non-empty string of Unicode text, found 3"),
        (["alice", "/tmp/x/a"], "must not hold '/'"),
        (["a" * 65], "at most 64 bytes"),
        (["driver"], "choose another name"),
    ],
)
def test_parties(parties, message):
    with pytest.raises(PlanError, match=message):
        sf.init(parties, "inline")
    assert running() is None


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("seed", -1),
        ("seed", 1.5),
        ("seed", True),
        ("seed", 2**63),
        ("egress", "loose"),
        ("egress", None),
        ("log_level", "warn"),
        ("threads", 0),
        ("threads", True),
        ("threads", 1.0),
        ("resources", ["alice"]),
        ("resources", {"zoe": {"CPU": 1}}),
        ("resources", {"alice": 1}),
        ("resources", {"alice": {"CPU": -1}}),
        ("resources", {"alice": {"CPU": float("nan")}}),
        ("resources", {"alice": {"CPU": "1"}}),
        ("resources", {"alice": {3: 1}}),
    ],
)
def test_settings(argument, wrong):
    with pytest.raises(PlanError, match=f"^{argument}: "):
        sf.init(["alice"], "inline", **{argument: wrong})
    assert running() is None


@pytest.mark.parametrize("wrong", ["", "remote", 3, b"local"])
def test_address(wrong):
    with pytest.raises(PlanError, match=r"^address: expected 'local', 'inline'"):
        sf.init(["alice"], wrong)


def test_addresses():
    assert checked_address(None) == "auto"
    for address in ("local", "inline", "auto", "10.0.0.1:6379", "ray://head:10001"):
        assert checked_address(address) == address


def test_a_seed_is_drawn_unless_given():
    def seed(given):
        return checked_settings(("alice",), given, "default", None, "WARNING", None)["alice"].seed

    assert seed(0) == 0
    assert len({seed(None) for _ in range(5)}) == 5
    assert all(0 <= seed(None) < 2**63 for _ in range(20))


def test_each_party_is_told_its_own_share():
    told = checked_settings(("alice", "bob"), 1, "strict", {"bob": {"CPU": 2}}, "ERROR", 3)
    assert told == {
        "alice": PartyConfig("alice", ("alice", "bob"), 1, "strict", 3, "ERROR", None),
        "bob": PartyConfig("bob", ("alice", "bob"), 1, "strict", 3, "ERROR", {"CPU": 2}),
    }


def test_without_a_session():
    sf.shutdown()
    with pytest.raises(NotInitialized, match=re.escape("call sf.init(['alice', 'bob', ...]) first")):
        current()
    with pytest.raises(NotInitialized):
        sf.ledger()
    with pytest.raises(NotInitialized):
        sf.PYU("alice")(abs)(-1)
    assert sf.PYU("whoever").name == "whoever"


def config(name, **resources):
    return PartyConfig(name, (name,), 0, resources=resources or None)


def test_options_of_a_process():
    assert options(config("alice")) == {"num_cpus": 0}
    assert options(config("alice", CPU=2, GPU=0.5, memory=100, alice=1)) == {
        "num_cpus": 2,
        "num_gpus": 0.5,
        "memory": 100,
        "resources": {"alice": 1},
    }
    assert [threads_by_default(config("a", **r)) for r in ({}, {"CPU": 0.5}, {"CPU": 3})] == [1, 1, 3]


def test_a_local_cluster_offers_names_of_our_own():
    assert custom({"a": config("a", CPU=1, site=1), "b": config("b", site=2, b=1), "c": config("c")}) == {
        "site": 3,
        "b": 1,
    }


def test_what_a_cluster_lacks():
    parties = {"a": config("a", CPU=2, site=1), "b": config("b", CPU=2)}
    assert shortage(parties, [{"CPU": 2, "site": 1}, {"CPU": 2}]) is None
    assert shortage(parties, [{"CPU": 8, "site": 1}]) is None
    lacking = shortage(parties, [{"CPU": 1, "site": 1}, {"CPU": 8}])
    assert lacking == (
        "party 'a' asks for 2 CPU, 1 site; no host has that, the hosts have 1 CPU, 1 site; 8 CPU, 0 site"
    )
    together = shortage(parties, [{"CPU": 3, "site": 1}])
    assert together == "the parties together ask for 4 CPU, and the cluster has 3"
    assert shortage({"a": config("a")}, [{"CPU": 0}]) is None
    assert listed({}) == "nothing"


@pytest.mark.parametrize(
    ("argument", "wrong", "message"),
    [
        ("policies", [sf.Policy()], "expected e.g."),
        ("policies", {"zoe": sf.Policy()}, "unknown party 'zoe'"),
        ("policies", {"alice": {"n_min": 4}}, "expected an sf.Policy for 'alice', found dict"),
        ("keys", 3, "expected a folder"),
        ("keys", "keys", "expected an absolute path on the party's machine"),
        ("keys", {"zoe": "/keys", "alice": "/keys", "bob": "/keys"}, "unknown party 'zoe'"),
        ("keys", {"alice": "/keys"}, "'bob' without a folder"),
        ("keys", {"alice": "/keys", "bob": 7}, "of 'bob': expected an absolute path"),
        ("keys", {"alice": "/keys", "bob": "bob"}, "of 'bob': expected an absolute path"),
    ],
)
def test_policies_and_keys(argument, wrong, message):
    with pytest.raises(PlanError, match=f"^{argument}.*{message}"):
        sf.init(["alice", "bob"], "inline", **{argument: wrong})
    assert running() is None


def test_one_folder_for_all_holds_one_for_each():
    names = ("alice", "bob")
    policy = sf.Policy(n_min=4)
    for keys in ("/keys", Path("/keys"), {"alice": "/keys/alice", "bob": Path("/keys/bob")}):
        made = checked_settings(names, 0, "default", None, "WARNING", None, {"bob": policy}, keys)
        assert {name: one.keys for name, one in made.items()} == {"alice": "/keys/alice", "bob": "/keys/bob"}
        assert (made["alice"].policy, made["bob"].policy) == (None, policy.settings())
    assert checked_settings(names, 0, "default", None, "WARNING", None)["alice"].keys == ""
