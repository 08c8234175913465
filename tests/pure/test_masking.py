# SPDX-License-Identifier: Apache-2.0
"""Scheme masking end to end: exact sums, equal to the plain ones bit by bit, over rounds, views and repeats."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure.masking_kit import Kit, context_of, encode, identities, manifest_of, plain_values, roster_of, session

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto import keystream
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.masking import rounds
from fedray.protocol.masking.frame import Masked
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import View

NARROW = Encoding(32)
KEYS = identities(9)


def keys_for(parties):
    return dict(list(KEYS.items())[:parties])


def inputs(kit, size, generator, weights=None, metrics=0):
    bound = kit.config.encoding.weight_bound
    return {
        name: plain_values(
            generator.normal(size=size),
            int(generator.integers(0, bound + 1)) if weights is None else weights,
            generator.integers(0, 1000, metrics),
        )
        for name in kit.names
    }


@given(
    parties=st.integers(2, 9),
    size=st.sampled_from([0, 1, 3, 1000]),
    encoding=st.sampled_from([Encoding(weight_bound=100), replace(NARROW, weight_bound=100)]),
    numbers=st.lists(st.integers(0, 40), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 2**32),
)
def test_the_opened_sum_is_the_integer_sum_and_the_plain_one(parties, size, encoding, numbers, seed):
    """Random sizes, weights and round numbers, both rings."""
    generator = np.random.default_rng(seed)
    masked, plain = (session(parties, part, encoding, keys=keys_for(parties)) for part in ("masking", "plain"))
    manifest = manifest_of(size, counts=["seen", "right"])
    for number in sorted(numbers):
        given_inputs = inputs(masked, size, generator, metrics=2)
        if sum(c.weight for c in given_inputs.values()) == 0:
            continue
        context = context_of(number, manifest)
        total = sum(encode(encoding, parties, manifest, c).astype(object) for c in given_inputs.values())
        messages = [masked.send(n, context, c) for n, c in given_inputs.items()]
        words = sum(Masked.decode(m).words.astype(object) for m in messages)
        assert [w % 2**encoding.ring for w in words] == [t % 2**encoding.ring for t in total]
        one, other = masked.round(context, given_inputs), plain.round(context, given_inputs)
        assert one.values.tobytes() == other.values.tobytes()
        assert one.metrics.tobytes() == other.metrics.tobytes()
        assert (one.weight, one.parties) == (other.weight, other.parties) == (total[size], masked.names)


def test_integer_sums_are_exact():
    kit = session(4)
    manifest = Manifest((Tensor("n", (3,), "int64"),), weighted=False)
    values = np.array([2**57, -(2**57), 7])
    opened = kit.round(context_of(0, manifest, purpose="sum"), {n: plain_values(values) for n in kit.names})
    assert opened.values.dtype == np.int64
    assert opened.values.tolist() == [2**59, -(2**59), 28]


def test_equal_inputs_are_masked_differently_by_each_party_and_round():
    kit = session(3)
    manifest = manifest_of(50)
    frames = [
        bytes(Masked.decode(kit.send(n, context_of(r, manifest), plain_values(np.zeros(50)))).words)
        for r in range(3)
        for n in kit.names
    ]
    assert len(set(frames)) == len(frames)


def test_nothing_beside_the_words_depends_on_the_input():
    """Weights, sample counts and metrics travel inside the mask: header and length are the same for any of them."""
    headers = set()
    kit = session(3, encoding=Encoding(weight_bound=1000))
    for values, weight, metrics in (([0.0, 0.0], 0, [0, 0]), ([5.0, -3.0], 1000, [7.5, 1024])):
        copy = session(3, encoding=kit.config.encoding, keys=kit.keys)
        shield = copy.shields["p00"]
        shield._sid = shield.rounds._sid = kit.shields["p00"]._sid
        shield.rounds._agreed = kit.shields["p00"].rounds._agreed
        shield.rounds._enter(shield.rounds.view)
        manifest = manifest_of(2, ["loss", "count"])
        message = copy.send("p00", context_of(0, manifest), plain_values(values, weight, metrics))
        headers.add((bytes(message[:192]), len(message)))
    assert len(headers) == 1


def test_a_repeated_request_returns_the_identical_bytes():
    """Whatever the contribution is by then: training anew would put two plaintexts under one pad."""
    kit = session(3, encoding=NARROW)
    manifest = manifest_of(10)
    context = context_of(4, manifest)
    first = kit.send("p00", context, plain_values(np.full(10, 0.3)))
    before = bytes(first)
    again = kit.send("p00", context, plain_values(np.full(10, -5.0)))
    assert bytes(again) == before
    with pytest.raises(ValueError, match="read-only"):
        first[:] = 0


@pytest.mark.parametrize(
    "change",
    [
        {"model": bytes(32)},
        {"settings": b"learning rate 0"},
        {"purpose": "evaluate"},
        {"manifest": manifest_of(11)},
        {"manifest": manifest_of(10, weighted=False)},
        {"number": 3},
    ],
    ids=lambda c: next(iter(c)),
)
def test_one_round_has_one_input(change):
    kit = session(3)
    context = context_of(4, manifest_of(10))
    kit.send("p00", context, plain_values(np.zeros(10)))
    other = replace(context, **change)
    with pytest.raises(ProtocolError, match=r"round \d is over"):
        kit.send("p00", other, plain_values(np.zeros(other.manifest.size)))


def test_long_messages_are_not_kept(monkeypatch):
    monkeypatch.setattr(rounds, "CACHE_BYTES", 200)
    kit = session(3)
    context = context_of(0, manifest_of(10))
    kit.send("p00", context, plain_values(np.zeros(10)))
    with pytest.raises(ProtocolError, match="no longer kept"):
        kit.send("p00", context, plain_values(np.zeros(10)))


def test_a_failed_encoding_uses_the_round_up():
    """The pad was laid over part of the vector, so it is not laid over another one."""
    kit = session(3)
    context = context_of(0, manifest_of(3))
    with pytest.raises(EncodingError, match="NaN"):
        kit.send("p00", context, plain_values([0.0, np.nan, 0.0]))
    with pytest.raises(ProtocolError, match="round 0 is over"):
        kit.send("p00", context, plain_values([0.0, 0.0, 0.0]))
    assert not kit.memories["p00"]._uses


def test_skipped_rounds_do_not_matter_to_who_skipped_alike():
    kit = session(3)
    manifest = manifest_of(2)
    for number in (0, 7, 1023 + 8, 2055):
        opened = kit.round(context_of(number, manifest), {n: plain_values([1.0, 2.0]) for n in kit.names})
        assert opened.values.tolist() == [1.0, 2.0]


def test_a_round_far_ahead_is_refused_and_costs_nothing():
    kit = session(3)
    with pytest.raises(ProtocolError, match="more than 1024 ahead"):
        kit.send("p00", context_of(1024, manifest_of(1)), plain_values([1.0]))
    opened = kit.round(context_of(1023, manifest_of(1)), {n: plain_values([1.0]) for n in kit.names})
    assert opened.values.tolist() == [1.0]


def test_training_goes_on_with_a_smaller_view():
    """A party drops out: its round is abandoned, the next one runs over the others with fresh keys and data."""
    kit = session(5)
    manifest = manifest_of(3)
    zeros = {n: plain_values(np.zeros(3)) for n in kit.names}
    kit.round(context_of(0, manifest), zeros)
    for name in kit.names[:4]:
        kit.send(name, context_of(1, manifest, model=b"m" * 32), zeros[name])  # abandoned: p04 is silent
    smaller = View(1, kit.names[:4])
    kit.join(smaller)
    fresh = {n: plain_values(np.full(3, float(i))) for i, n in enumerate(smaller.members)}
    opened = kit.round(context_of(2, manifest, model=b"m" * 32), fresh, smaller)
    assert opened.values.tolist() == [1.5] * 3
    assert opened.parties == smaller.members
    with pytest.raises(ProtocolError, match="not in view 1"):
        kit.collector(2, manifest, smaller).add("p04", b"")


def test_a_left_out_party_is_forgotten():
    kit = session(5)
    kit.shields["p00"].join(View(1, kit.names[:4]))
    assert set(kit.shields["p00"]._pair_keys._keys) == {1, 2, 3}


def test_a_larger_than_memory_round_is_refused_in_words():
    kit = session(3)
    huge = Manifest((Tensor("w", (2**31,), "float32"),))
    fake = np.broadcast_to(np.float32(0), (2**31,))
    with pytest.raises(EncodingError, match="4 GiB"):
        kit.send("p00", context_of(0, huge), plain_values(fake))


def test_keys_step_forward_and_never_back():
    kit = session(3)
    shield = kit.shields["p00"]
    before = dict(shield._pair_keys._keys)
    kit.send("p00", context_of(0, manifest_of(1)), plain_values([1.0]))
    assert set(before.values()).isdisjoint(shield._pair_keys._keys.values())
    assert shield._pair_keys.next == shield.rounds.next == 1


def test_both_ciphers_open_each_others_sums(monkeypatch):
    """Parties on different machines may choose differently."""
    kit = session(3)
    manifest = manifest_of(70_000)
    context = context_of(0, manifest)
    collector = kit.collector(0, manifest)
    for name, cipher in zip(kit.names, ("ctr", "gcm", "ctr"), strict=True):
        monkeypatch.setattr(keystream, "CIPHER", cipher)
        collector.add(name, kit.send(name, context, plain_values(np.full(70_000, 2.0))))
    assert set(kit.read(collector.open(), manifest).values) == {2.0}


@pytest.mark.parametrize("scheme", ["masking", "plain"])
def test_there_is_no_end_before_set_up(scheme):
    roster = roster_of(keys := identities(3))
    kit = Kit(Config.propose(scheme, roster, ["server"], Encoding()), roster, keys)
    joining = kit.joining("p00")
    with pytest.raises(ProtocolError, match="p00: Confirms were not expected now; start a new set-up"):
        joining.start([b"", b"", b""])
    assert not hasattr(joining, "protect")
    shield = kit.start(Policy()).shields["p00"]
    with pytest.raises(ProtocolError, match="one exchange"):
        shield.reply(b"broadcast")
    assert repr(shield) == f"<{type(shield).__name__} of p00: round 0>"


def test_two_parties_and_one_plain_party():
    two = session(2)
    assert two.round(context_of(0, manifest_of(1)), {n: plain_values([3.0]) for n in two.names}).values == [3.0]
    one = session(1, "plain")
    assert one.round(context_of(0, manifest_of(1)), {"p00": plain_values([3.0])}).values == [3.0]
