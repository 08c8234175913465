# SPDX-License-Identifier: Apache-2.0
"""A party's policy as it is written down, and what several policies together demand of a proposal."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pure.masking_kit import identities, roster_of

from fedray.errors import EncodingError, PlanError, ProtocolError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.graph import CHOSEN_UP_TO
from fedray.protocol.masking.plain import PlainShield
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.messages import enc_list
from fedray.protocol.policy import Demands, Policy
from fedray.protocol.recovery import propose

STRICT = Policy(n_min=4, colluders=2, two_party="never", rings=(64,), rounds={"train": 1}, views=1)


def test_plain_settings_make_the_same_policy_again():
    for policy in (Policy(), STRICT):
        settings = policy.settings()
        assert Policy.of(settings) == policy
        settings["rounds"]["train"] = 99
        assert policy.rounds["train"] == 1
    assert Policy.of({}) == Policy()
    assert Policy.of({"rings": [64]}) == Policy(rings=(64,))


def test_the_policy_in_the_readme_is_one():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = re.findall(r"^```toml\n(.*?)^```", text, flags=re.M | re.S)
    assert Policy.of(tomllib.loads(block)) == Policy(n_min=4, two_party="never")


WRONG = {
    "n_min": [2, "3", True, 3.0, None],
    "colluders": [-1, 1.0, False],
    "two_party": ["yes", None, True],
    "least_roster": [0, "2"],
    "rings": [[], [128], 64, [64, "32"], [True]],
    "random_graph": [True, "sometimes"],
    "batch": [0, 2.5],
    "rounds": [{"train": -1}, {"spy": 1}, {"train": True}, 3, ["train"]],
    "views": [-1, "1"],
    "member_changes": [-1, 1.5, True, "many"],
    "attempts": [0, None],
    "unprotected": [0],
    "allow_other_members": ["no"],
}


def test_every_setting_is_tried():
    assert set(WRONG) == set(Policy().settings())


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(PlanError, match=f"^{name} must be"):
        Policy.of({name: value})


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(PlanError, match="a policy has no 'minimum'; it has n_min, colluders, two_party"):
        Policy.of({"minimum": 3})


@pytest.mark.parametrize("n", [2, 3, 4, 7, 20])
def test_default_policies_demand_nothing_beyond_the_default_proposal(n):
    assert Demands.of([Policy()] * n, n) == Demands(None, None, None, Policy().batch)
    assert Demands.of([], n) == Demands(None, None, None, Policy().batch)


@pytest.mark.parametrize("scheme", ["masking", "recovery"])
def test_what_is_proposed_on_demand_is_accepted_by_all(scheme):
    roster, policies = roster_of(identities(8)), [Policy(), STRICT, Policy(n_min=5, batch=3)]
    demands = Demands.of(policies, 8)
    assert demands == Demands(None, 5, None, 3), "two colluders are the default for eight parties"
    demands = Demands.of([*policies, Policy(colluders=3)], 8)
    assert (demands.colluders, demands.n_min) == (3, 5)
    usual = Config.propose(scheme, roster, ["s"], Encoding())
    if scheme == "masking":
        config = Config.propose(scheme, roster, ["s"], Encoding(), colluders=demands.colluders, n_min=demands.n_min)
    else:
        settings = {"colluders": demands.colluders, "n_min": demands.n_min, "batch": demands.batch}
        config = propose(roster, ["s"], Encoding(), **settings)
    for policy in (*policies, Policy(colluders=3)):
        policy.accept(config, roster)
    with pytest.raises(ProtocolError, match="n_min is 3, this party requires at least 5"):
        policies[2].accept(usual, roster)


def test_what_no_proposal_can_meet_is_still_a_proposal_and_refused_by_name():
    roster = roster_of(identities(3))
    demands = Demands.of([Policy(), Policy(n_min=9, colluders=7)], 3)
    config = Config.propose("masking", roster, ["s"], Encoding(), colluders=demands.colluders, n_min=demands.n_min)
    with pytest.raises(ProtocolError, match="colluders is 2, this party requires at least 7"):
        Policy(n_min=9, colluders=7).accept(config, roster)


def test_a_party_that_wants_no_chance_graph_gets_a_safe_one_proposed():
    demands = Demands.of([Policy(), Policy(random_graph="never")], CHOSEN_UP_TO + 1)
    assert demands.chosen is True


@pytest.mark.parametrize("scheme", ["plain", "masking", "recovery", "sharing"])
def test_noise_that_is_not_there_can_be_neither_claimed_nor_had(scheme):
    config = Config.propose(scheme, roster_of(identities(4)), ["p00", "p01"], Encoding())
    said, claim = (len(noise).to_bytes(4, "big") + noise for noise in (b"", b"noise of 3"))
    times = enc_list("times", (config.set_up_timeout, config.round_timeout))[-24:]
    assert config.encode().count(times + said) == 1
    assert Config.decode(config.encode()) == config
    with pytest.raises(EncodingError, match="it claims privacy noise, which this version does not have"):
        Config.decode(config.encode().replace(times + said, times + claim))
    with pytest.raises(PlanError, match="a policy has no 'require_privacy'"):
        Policy.of({"require_privacy": True})


def test_a_party_may_refuse_sums_without_protection():
    roster = roster_of(keys := identities(3))
    config = Config.propose("plain", roster, ["s"], Encoding())
    member = Member("p00", keys["p00"], roster, Policy(), ModelMemory())
    PlainShield.joining(config, member)
    with pytest.raises(ProtocolError, match=r"p00: its policy accepts no sum without protection \(unprotected\)"):
        PlainShield.joining(config, replace(member, policy=Policy(unprotected=False)))
