# SPDX-License-Identifier: Apache-2.0
"""The Config's canonical bytes and headroom, and a policy that refuses rather than adapts."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure.masking_kit import identities, roster_of, session

from fedray.errors import EncodingError, PlanError, ProtocolError
from fedray.protocol.config import Config, Encoding, default_colluders
from fedray.protocol.crypto.graph import quorum
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.messages import enc
from fedray.protocol.policy import Policy, notice

ROSTER = roster_of(identities(5))
CONFIG = Config.propose("masking", ROSTER, ["server"], Encoding())

OF_SHARING = {"owners", "compress"}
OTHERS = {
    "scheme": "recovery",
    "roster": bytes(32),
    "parties": 6,
    "receivers": ("other",),
    "encoding": Encoding(weight_bound=2),
    "colluders": 2,
    "n_min": 4,
    "t_sig": 5,
    "t_share": 3,
    "graph": "chosen",
    "degree": 2,
    "dropouts": 0,
    "batch": 65,
    "set_up_timeout": 1,
    "round_timeout": 2,
}
ENCODINGS = {"ring": 32, "weight_bound": 2}


def test_every_setting_is_in_the_hash():
    assert set(OTHERS) == {f.name for f in fields(Config)} - {"suite", *OF_SHARING}  # there is one suite
    changed = [replace(CONFIG, **{name: value}) for name, value in OTHERS.items()]
    assert len({c.hash for c in [CONFIG, *changed]}) == len(changed) + 1
    assert set(ENCODINGS) == {f.name for f in fields(Encoding)}
    changed = [replace(CONFIG, encoding=replace(CONFIG.encoding, **{name: value})) for name, value in ENCODINGS.items()]
    assert len({c.hash for c in changed}) == len(changed)


@given(
    st.sampled_from(["plain", "masking", "recovery", "sharing"]),
    st.integers(1, 40),
    st.sampled_from([32, 64]),
    st.integers(1, 2**40),
)
def test_canonical_bytes_come_back(part, parties, ring, bound):
    roster = Roster.of({f"{i}": i.to_bytes(32, "big") for i in range(parties)})
    try:
        encoding = Encoding(ring, weight_bound=bound)
        config = Config.propose(part, roster, ["s", "t"], encoding, colluders=0)
    except PlanError:
        return
    assert Config.decode(config.encode()) == config


@given(st.integers(1, 2**14), st.sampled_from([32, 64]))
def test_the_words_of_any_roster_leave_four_bits_free(parties, ring):
    encoding = Encoding(ring)
    top = encoding.top(parties)
    assert parties << top < 1 << (ring - 4) <= (2 * parties) << (top + 1)
    if ring == 64:  # n halves of a step are 2^-24 of the words that are called fine
        assert parties << 23 <= 1 << encoding.fine(parties) < parties << 24
        assert encoding.fine(parties) < top


def test_weights_have_headroom_too():
    Encoding(weight_bound=(2**60 - 1) // 5).check_headroom(5)
    with pytest.raises(PlanError, match=r"weights up to \d+ overflow a ring of 64 bits"):
        Encoding(weight_bound=2**60 // 5 + 1).check_headroom(5)


@pytest.mark.parametrize(
    "settings",
    [
        {"ring": 1},
        {"ring": 16},
        {"ring": 128},
        {"weight_bound": 0},
        {"weight_bound": True},
        {"weight_bound": 1.5},
    ],
    ids=str,
)
def test_unworkable_encodings_are_refused(settings):
    with pytest.raises(PlanError):
        Encoding(**settings)


def test_unworkable_settings_do_not_decode():
    one_bit = enc("encoding", 1, "nearest", 1)
    with pytest.raises(EncodingError, match="ring"):
        Encoding.decode(one_bit)
    coins = enc("encoding", 64, "stochastic", 1)
    with pytest.raises(EncodingError, match="rounded to nearest, found 'stochastic'"):
        Encoding.decode(coins)
    nobody = enc("encoding", 64, "nearest", 0)
    with pytest.raises(EncodingError, match="weight_bound"):
        Encoding.decode(nobody)


@pytest.mark.parametrize(
    "settings",
    [
        {"scheme": "magic"},
        {"suite": "md5"},
        {"roster": b""},
        {"parties": 0},
        {"parties": 2**14 + 1},
        {"receivers": ()},
        {"receivers": ("a", "a")},
        {"receivers": ("",)},
        {"colluders": 5},
        {"n_min": 0},
        {"n_min": 6},
        {"t_sig": 6},
        {"t_share": 0},
        {"degree": 5},
        {"dropouts": 5},
        {"batch": 0},
        {"round_timeout": 0},
    ],
    ids=str,
)
def test_unworkable_configs_are_refused(settings):
    with pytest.raises(PlanError):
        replace(CONFIG, **settings)


TABLE = [(2, 0, 2, 0), (3, 1, 3, 0), (4, 1, 3, 1), (5, 1, 4, 1), (7, 2, 5, 2), (10, 3, 7, 3), (20, 6, 14, 6)]


@pytest.mark.parametrize(("parties", "colluders", "signers", "dropouts"), [*TABLE, (50, 16, 34, 16), (100, 33, 67, 33)])
def test_the_thresholds_are_those_of_section_10(parties, colluders, signers, dropouts):
    assert default_colluders(parties) == colluders
    assert quorum(parties, colluders) == signers
    roster = Roster.of({f"{i}": i.to_bytes(32, "big") for i in range(parties)})
    config = Config.propose("masking", roster, ["s"], Encoding())
    assert (config.colluders, config.t_sig, config.dropouts) == (colluders, signers, dropouts)
    Policy().accept(config, roster)


WEAKER = {
    "another roster": ({}, {"roster": bytes(32)}),
    "fewer colluders": ({"colluders": 2}, {}),
    "no colluders": ({}, {"colluders": 0}),
    "smaller sums": ({"n_min": 4}, {}),
    "smaller sums than 3": ({}, {"n_min": 2}),
    "smaller quorum": ({}, {"t_sig": 3}),
    "more colluders, old quorum": ({}, {"colluders": 3}),
    "all but one collude": ({}, {"colluders": 4, "t_sig": 5}),
    "ring": ({"rings": (64,)}, {"encoding": Encoding(32)}),
    "small roster": ({"least_roster": 6}, {}),
    "share threshold": ({}, {"scheme": "recovery", "t_share": 1}),
    "random graph": ({}, {"scheme": "recovery", "graph": "random", "degree": 2}),
    "not everybody's neighbour": ({}, {"scheme": "recovery", "degree": 2}),
    "long batch": ({"batch": 8}, {"scheme": "recovery"}),
}


@pytest.mark.parametrize("name", WEAKER)
def test_a_weakened_config_is_refused(name):
    policy, settings = WEAKER[name]
    with pytest.raises(ProtocolError, match="refused"):
        Policy(**policy).accept(replace(CONFIG, **settings), ROSTER)


def test_a_stricter_config_is_accepted():
    Policy().accept(CONFIG, ROSTER)
    Policy().accept(replace(CONFIG, n_min=5, t_sig=5, colluders=2), ROSTER)
    Policy().accept(replace(CONFIG, scheme="recovery"), ROSTER)


def test_two_parties_need_to_be_asked_for():
    two = roster_of(identities(2))
    config = Config.propose("masking", two, ["s"], Encoding())
    Policy().accept(config, two)
    assert "exact contribution" in notice(config)
    assert notice(CONFIG) is None
    with pytest.raises(ProtocolError, match="n_min"):
        Policy(two_party="never").accept(config, two)
    with pytest.raises(ProtocolError, match="n_min"):
        Policy(n_min=4).accept(replace(CONFIG, n_min=3), ROSTER)


def test_a_roster_of_three_may_not_shrink_to_two_unasked():
    three = roster_of(identities(3))
    loose = Config.propose("masking", three, ["s"], Encoding(), colluders=0, n_min=2)
    with pytest.raises(ProtocolError, match=r"colluders|n_min"):
        Policy().accept(loose, three)
    with pytest.raises(ProtocolError, match="n_min"):
        Policy(colluders=0).accept(loose, three)
    Policy(n_min=2, colluders=0, two_party="always").accept(loose, three)


@pytest.mark.parametrize(
    "settings", [{"n_min": 2}, {"n_min": 1, "two_party": "always"}, {"two_party": "yes"}, {"colluders": -1}], ids=str
)
def test_a_policy_that_protects_nobody_is_refused(settings):
    with pytest.raises(PlanError):
        Policy(**settings)


def test_one_party_has_the_plain_sum_only():
    assert session(1, "plain").config.least_members == 1
    with pytest.raises((PlanError, ProtocolError)):
        session(1)
