# SPDX-License-Identifier: Apache-2.0
"""Scheme sharing opens the plain integer sum, bit for bit, or refuses for a stated reason."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure.masking_kit import context_of, encode, identities, manifest_of, plain_values, roster_of
from pure.sharing_kit import session

from fedray.errors import EncodingError, PlanError, ProtocolError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.crypto.keystream import CHUNK_BYTES
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import TWO_PARTY_NOTICE, Policy, notice
from fedray.protocol.scheme import Contribution
from fedray.protocol.sharing import SharingShield
from fedray.protocol.sharing.split import Splitter, add_share, remove_seed, words_of


def exact_sum(config, manifest, contributions):
    """The sum that sharing must open, by Python's own integers."""
    total = [0] * manifest.words(config.contributors)
    for contribution in contributions:
        words = encode(config.encoding, config.contributors, manifest, contribution)
        total = [(a + int(b)) % (1 << config.encoding.ring) for a, b in zip(total, words, strict=True)]
    return total


@given(
    owners=st.integers(2, 6),
    computing=st.integers(2, 4),
    apart=st.integers(0, 4),
    ring=st.sampled_from([32, 64]),
    compress=st.booleans(),
    size=st.sampled_from([0, 1, 4, 97]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_opened_words_are_the_integer_sum(owners, computing, apart, ring, compress, size, seed):
    apart = min(apart, computing)
    if computing - apart > owners:
        computing, apart = owners, 0
    computing = max(computing, 2)
    encoding = Encoding(ring, weight_bound=5)
    kit = session(owners, computing, apart, encoding=encoding, compress=compress)
    rng = np.random.default_rng(seed)
    manifest = manifest_of(size, counts=("seen", "right"))
    kit.expect(manifest)
    contributions = {
        name: Contribution(rng.uniform(-8, 8, size), int(rng.integers(0, 6)), rng.integers(-9, 9, 2).astype(np.float64))
        for name in kit.owners
    }
    contributions[kit.owners[0]] = Contribution(rng.uniform(-8, 8, size), 5, np.ones(2))
    context = context_of(0, manifest)
    for name, contribution in contributions.items():
        kit.send(name, context, contribution)
    kit.agree(kit.owners)
    collector = kit.collector(0, manifest)
    for name, adder in kit.adders.items():
        collector.add(name, adder.publish())
    assert [int(w) for w in collector._total] == exact_sum(kit.config, manifest, contributions.values())
    assert kit.read(collector.open(), manifest).weight == sum(c.weight for c in contributions.values())


def test_integers_are_exact_and_vectors_longer_than_a_stretch_keep_their_order():
    kit = session(3, 3, 1)
    size = CHUNK_BYTES // 8 * 2 + 7
    manifest = Manifest((Tensor("n", (size,), "int64", 1 << 58),), weighted=False)
    kit.expect(manifest)
    rng = np.random.default_rng(0)
    values = {name: rng.integers(-(1 << 58), 1 << 58, size) for name in kit.owners}
    opened = kit.round(context_of(0, manifest), {n: plain_values(v) for n, v in values.items()})
    assert opened.values.dtype == np.int64
    assert np.array_equal(opened.values, sum(values.values()))
    assert opened.parties == kit.owners


def test_a_weighted_mean_is_right_within_fixed_point():
    kit = session(3, 2, encoding=Encoding(weight_bound=100))
    manifest = manifest_of(50)
    kit.expect(manifest)
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=(3, 50)), [7, 0, 93]
    given_ = {n: plain_values(v, w) for n, v, w in zip(kit.owners, values, weights, strict=True)}
    opened = kit.round(context_of(0, manifest), given_)
    expected = np.average(values, axis=0, weights=weights)
    assert np.abs(opened.values - expected).max() < 3 * 100 / 100 * 2.0**-32


def test_an_owner_may_vanish_after_its_one_message():
    kit = session(4, 2)
    manifest = manifest_of(10, weighted=False)
    kit.expect(manifest)
    context = context_of(0, manifest)
    for name in kit.owners:
        kit.send(name, context, plain_values(np.ones(10)))
    del kit.shields[kit.owners[3]]
    kit.agree(kit.owners)
    assert kit.open(0, manifest).values.tolist() == [4.0] * 10


@pytest.mark.parametrize("compress", [True, False])
def test_who_never_sent_is_left_out(compress):
    kit = session(5, 2, compress=compress)
    manifest = manifest_of(3, weighted=False)
    kit.expect(manifest)
    present = kit.owners[:4]
    opened = kit.round(context_of(0, manifest), {n: plain_values(np.ones(3)) for n in present})
    assert opened.values.tolist() == [4.0] * 3
    assert opened.parties == present
    assert kit.round(context_of(1, manifest), {n: plain_values(np.ones(3)) for n in kit.owners}).weight == 5


def test_who_ended_half_way_has_sent_seeds_only_and_is_taken_out_again():
    kit = session(4, 3, 3)
    manifest = manifest_of(3, weighted=False)
    kit.expect(manifest)
    context = context_of(0, manifest)
    for name in kit.owners:
        kit.send(name, context, plain_values(np.ones(3)), to=list(kit.adders)[:])
    half = kit.owners[3]
    kit.expect(manifest, 1)
    context = context_of(1, manifest)
    for name in kit.owners[:3]:
        kit.send(name, context, plain_values(np.ones(3)))
    messages = kit.shields[half].protect(context, plain_values(np.full(3, 50.0)))
    assert [len(m) for m in messages.values()] == sorted(len(m) for m in messages.values())  # the long one is last
    kit.adders[next(iter(messages))].add(half, next(iter(messages.values())))
    kit.agree(kit.owners[:3])
    assert kit.open(1, manifest).values.tolist() == [3.0] * 3


def test_a_compute_party_keeps_its_own_long_share_so_that_only_seeds_travel():
    kit = session(2, 2)
    manifest = manifest_of(1000, weighted=False)
    for place, name in enumerate(kit.owners):
        messages = kit.shields[name].protect(context_of(0, manifest), plain_values(np.ones(1000)))
        sizes = {to: len(message) for to, message in messages.items()}
        assert sizes[name] > 8000
        assert sizes[kit.owners[1 - place]] < 400


def test_repeats_get_the_identical_bytes_and_no_second_input_is_taken():
    kit = session(3, 2)
    manifest = manifest_of(4, weighted=False)
    shield = kit.shields[kit.owners[0]]
    context = context_of(3, manifest)
    first = shield.protect(context, plain_values(np.ones(4)))
    again = shield.protect(context, plain_values(np.zeros(4)))
    assert {k: bytes(v) for k, v in first.items()} == {k: bytes(v) for k, v in again.items()}
    with pytest.raises(ProtocolError, match="round 3 is over"):
        shield.protect(context_of(3, manifest, settings=b"other"), plain_values(np.zeros(4)))
    with pytest.raises(ProtocolError, match="round 2 is over"):
        shield.protect(context_of(2, manifest), plain_values(np.zeros(4)))
    with pytest.raises(ProtocolError, match="1024 ahead"):
        shield.protect(context_of(3000, manifest), plain_values(np.zeros(4)))
    with pytest.raises(ProtocolError, match="already served 1 round"):
        shield.protect(context_of(4, manifest, model=context.model), plain_values(np.zeros(4)))
    shield.drop_cache()
    with pytest.raises(ProtocolError, match="round 3 is over"):
        shield.protect(context, plain_values(np.ones(4)))


def test_a_failed_encoding_uses_the_round_up():
    kit = session(3, 2, encoding=Encoding())
    manifest = manifest_of(2, weighted=False)
    shield = kit.shields[kit.owners[0]]
    for bad in (np.nan, np.inf, 1e9):
        with pytest.raises(EncodingError, match="tensor 'w'"):
            shield.protect(context_of(shield._next, manifest), plain_values(np.array([0.0, bad])))
    with pytest.raises(ProtocolError, match="round 2 is over"):
        shield.protect(context_of(2, manifest), plain_values(np.zeros(2)))


def test_limits_of_the_ring():
    kit = session(3, 2, encoding=Encoding(32))
    manifest = Manifest((Tensor("w", (2,), "float64", 8.0),), weighted=False, counted=True)
    kit.expect(manifest)
    edge = np.array([8.0, -8.0])
    opened = kit.round(context_of(0, manifest), {n: plain_values(edge) for n in kit.owners})
    assert opened.values.tolist() == [24.0, -24.0]
    assert opened.extents[0].saturated == 0
    cut = kit.round(context_of(1, manifest), {n: plain_values(edge * 2) for n in kit.owners})
    assert cut.values.tolist() == [24.0, -24.0]
    assert cut.extents[0].saturated == 3
    with pytest.raises(PlanError, match="overflow a ring of 32"):
        session(3, 2, encoding=Encoding(32, weight_bound=2**27))


def test_an_owner_learns_whose_inputs_were_opened():
    kit = session(4, 2)
    manifest = manifest_of(3, weighted=False)
    kit.expect(manifest)
    context = context_of(0, manifest)
    kit.round(context, {n: plain_values(np.ones(3)) for n in kit.owners[:3]})
    proof = kit.adders[kit.owners[0]].proof(0)
    assert kit.shields[kit.owners[0]].certify(proof) == kit.owners[:3]
    with pytest.raises(ProtocolError, match="another round or context"):
        kit.shields[kit.owners[3]].certify(proof)


@pytest.mark.parametrize(
    ("receivers", "owners", "match"),
    [
        (["p00"], (), "2 to 3 compute parties"),
        (["p00", "p00"], (), "each once"),
        (["p00", "p01"], ("p00", "p00"), "owners"),
        (["p00", "p01"], ("p00",), None),
    ],
)
def test_roles_that_cannot_work_are_refused(receivers, owners, match):
    roster = roster_of(identities(3))
    if match is None:  # one owner hides behind nobody: every policy refuses
        config = Config.propose("sharing", roster, receivers, Encoding(), owners=owners)
        with pytest.raises(ProtocolError, match="requires"):
            Policy().accept(config, roster)
        return
    with pytest.raises(PlanError, match=match):
        Config.propose("sharing", roster, receivers, Encoding(), owners=owners)


def test_a_shield_refuses_a_config_that_does_not_fit_the_roster():
    keys = identities(4)
    roster = roster_of(keys)
    member = Member("p00", keys["p00"], roster, Policy(), ModelMemory())
    for config, match in [
        (Config.propose("masking", roster, ["p00"], Encoding()), "expected 'sharing'"),
        (Config.propose("sharing", roster, ["p00", "stranger"], Encoding()), "stranger"),
        (Config.propose("sharing", roster, ["p00", "p01"], Encoding(), owners=["p02", "p01", "p00"]), "roster order"),
        (Config.propose("sharing", roster, ["p00", "p01"], Encoding(), owners=["p00", "p01", "p02"]), "neither"),
    ]:
        with pytest.raises(ProtocolError, match=match):
            SharingShield.joining(config, member)


def test_a_config_of_sharing_has_bytes_of_its_own():
    roster = roster_of(identities(4))
    config = Config.propose("sharing", roster, ["p03", "p00"], Encoding(), owners=["p00", "p01", "p02"], compress=False)
    assert Config.decode(config.encode()) == config
    everybody = Config.propose("sharing", roster, ["p03", "p00"], Encoding())
    assert Config.decode(everybody.encode()) == everybody
    assert len({config.hash, everybody.hash, Config.propose("masking", roster, ["p03"], Encoding()).hash}) == 3
    assert (config.contributors, config.colluders, config.least_members) == (3, 1, 3)
    with pytest.raises(EncodingError):
        Config.decode(config.encode() + b"x")


def test_two_owners_are_told_what_is_not_hidden():
    kit = session(2, 2, 2)
    assert notice(kit.config) == TWO_PARTY_NOTICE
    manifest = manifest_of(3, weighted=False)
    kit.expect(manifest)
    assert kit.round(context_of(0, manifest), {n: plain_values(np.ones(3)) for n in kit.owners}).values[0] == 2.0


def test_a_vector_is_split_into_two_shares_or_more():
    with pytest.raises(PlanError, match="at least two shares"):
        Splitter(0, np.zeros(3, "<u8"), True)


@pytest.mark.parametrize("compress", [True, False])
def test_shares_add_up_and_seeds_can_be_taken_out(compress):
    words = np.arange(100, dtype="<u8")
    left = words.copy()
    splitter = Splitter(3, left, compress, os.urandom)
    splitter.take(left[:60], 0)
    splitter.take(left[60:], 60)
    total, check = left.copy(), splitter.cover(12345)
    rest = check
    for share in splitter.shares:
        check += add_share(total, share if compress else words_of(share.data.tobytes(), 64))
    assert np.array_equal(total, words)
    assert check % PRIME == 12345
    if compress:
        for seed in splitter.shares:
            check += remove_seed(total, seed)
        assert np.array_equal(total, left)
        assert check % PRIME == rest
