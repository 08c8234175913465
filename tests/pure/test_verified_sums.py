# SPDX-License-Identifier: Apache-2.0
"""Servers that lie about a sum, to the ends of every scheme with protection, and variants in which they succeed."""

from dataclasses import replace

import numpy as np
import pytest
from pure.checks_kit import SCHEMES, SERVER, SIZE, Rounds
from pure.masking_kit import context_of, plain_values, session

from fedray.errors import ProtocolError, ServerFault
from fedray.protocol.checks.inner_product import InnerProduct
from fedray.protocol.checks.judge import Judge
from fedray.protocol.checks.secret import RoundChecks
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.opened import OpenedSum


def flipped(opened, place, bit):
    words = opened.words.copy()
    words[place] ^= np.uint64(1 << bit)
    return replace(opened, words=words)


def moved(opened):
    words = opened.words.copy()
    words[[0, SIZE - 1]] = words[[SIZE - 1, 0]]
    return replace(opened, words=words)


def scaled(opened, factor):
    return replace(opened, words=opened.words * np.uint64(factor), check=opened.check * factor % PRIME)


def nothing(opened):
    return OpenedSum(np.zeros_like(opened.words), (), 0)


FORGED = {
    "lowest bit of the first word": lambda o: flipped(o, 0, 0),
    "lowest bit of the last value": lambda o: flipped(o, SIZE - 1, 0),
    "a high bit of a value": lambda o: flipped(o, 512, 50),
    "the weight": lambda o: flipped(o, SIZE, 3),
    "the number of parties": lambda o: flipped(o, -1, 0),
    "two words trade places": moved,
    "twice the sum": lambda o: scaled(o, 2),
    "half a check": lambda o: replace(o, check=o.check * pow(2, -1, PRIME) % PRIME),
    "a check one too large": lambda o: replace(o, check=(o.check + 1) % PRIME),
    "a party left out": lambda o: replace(o, members=o.members[:3]),
    "another party left out": lambda o: replace(o, members=o.members[1:]),
}

MALFORMED = {
    "nobody's sum": (nothing, "over 0 parties, expected at least 3"),
    "too small a set": (lambda o: replace(o, members=o.members[:2]), "over 2 parties, expected at least 3"),
    "a party twice": (lambda o: replace(o, members=(*o.members, o.members[0])), "each once and in roster order"),
    "another order": (lambda o: replace(o, members=o.members[::-1]), "each once and in roster order"),
    "a stranger": (lambda o: replace(o, members=("mallory", *o.members)), "not contributors"),
    "no check": (lambda o: replace(o, check=None), "it has no check"),
    "a check of p": (lambda o: replace(o, check=PRIME), "it has no check"),
    "a fraction": (lambda o: replace(o, check=0.5), "it has no check"),
    "a truth": (lambda o: replace(o, check=True), "it has no check"),
    "a word less": (lambda o: replace(o, words=o.words[:-1]), "words of 64 bits, found"),
    "narrower words": (lambda o: replace(o, words=o.words.astype("<u4")), "words of 64 bits, found"),
    "a list": (lambda o: replace(o, words=o.words.tolist()), "words of 64 bits, found list"),
    # p more is the same in the field, so that only the range can tell.
    "a word more by p": (lambda o: replace(o, words=o.words + np.uint64(PRIME)), "beyond what any sum reaches"),
    "2^60": (lambda o: replace(o, words=np.full_like(o.words, 1 << 60)), "beyond what any sum reaches"),
}


@pytest.fixture(params=SCHEMES)
def rounds(request):
    return Rounds(request.param)


def test_every_party_accepts_the_sum_and_the_next_one(rounds):
    for number in range(3):
        opened = rounds.run(number)
        for name in rounds.names:
            rounds.verify(name, number, opened)


@pytest.mark.parametrize("lie", FORGED)
def test_a_sum_that_is_none_is_refused_and_names_who_handed_it_out(rounds, lie):
    forged = FORGED[lie](rounds.run(0))
    with pytest.raises(ServerFault, match=f"round 0 that {SERVER} handed out is refused, and the session is over"):
        rounds.verify(rounds.names[1], 0, forged)


@pytest.mark.parametrize("lie", MALFORMED)
def test_what_cannot_be_a_sum_is_refused_before_it_is_multiplied(lie, monkeypatch):
    rounds = Rounds("masking")
    opened, (change, why) = rounds.run(0), MALFORMED[lie]
    monkeypatch.setattr(InnerProduct, "take", None)
    with pytest.raises(ServerFault, match=why):
        rounds.verify(rounds.names[2], 0, change(opened))


def test_after_a_lie_there_is_no_second_answer_and_no_further_round(rounds):
    first, other = rounds.names[:2]
    opened = rounds.run(0)
    rounds.verify(other, 0, opened)
    with pytest.raises(ProtocolError, match="is refused"):
        rounds.verify(first, 0, flipped(opened, 0, 0))
    with pytest.raises(ProtocolError, match=f"this session ended when {SERVER} handed out a sum that is none"):
        rounds.verify(first, 0, opened)
    with pytest.raises(ProtocolError, match="this session ended"):
        rounds.shields[first].protect(context_of(1, rounds.manifest), rounds.inputs(1)[first])


def test_one_answer_is_judged_a_round(rounds):
    opened = rounds.run(0)
    rounds.verify(rounds.names[0], 0, opened)
    with pytest.raises(ProtocolError, match="one answer is judged, for the last round"):
        rounds.verify(rounds.names[0], 0, opened)


def test_the_sum_of_another_round(rounds):
    before = rounds.run(0)
    for name in rounds.names:
        rounds.verify(name, 0, before)
    rounds.run(1)
    with pytest.raises(ProtocolError, match="check does not fit"):
        rounds.verify(rounds.names[0], 1, before)
    with pytest.raises(ProtocolError, match="no sum of this round is awaited"):
        rounds.verify(rounds.names[1], 0, before)


def test_different_answers_to_different_parties(rounds):
    opened = rounds.run(0)
    for place, name in enumerate(rounds.names):
        if place != 2:
            rounds.verify(name, 0, opened)
    with pytest.raises(ProtocolError, match="check does not fit"):
        rounds.verify(rounds.names[2], 0, flipped(opened, 7, 1))


@pytest.mark.parametrize("scheme", ["recovery", "sharing"])
def test_a_set_without_oneself_is_for_whom_one_told_that_it_is_late(scheme):
    rounds = Rounds(scheme)
    *members, late = rounds.names
    opened = rounds.run(0, silent=(late,))
    assert opened.members == tuple(members)
    for name in members:
        rounds.verify(name, 0, opened)
    rounds.verify(late, 0, opened, late=True)
    again = rounds.run(1, silent=(late,))
    with pytest.raises(ProtocolError, match="without this party, which was not told that it was late"):
        rounds.verify(late, 1, again)


@pytest.mark.parametrize("scheme", ["recovery", "sharing"])
def test_rounds_that_a_party_sent_nothing_for_are_verified_one_after_another(scheme):
    rounds = Rounds(scheme)
    *members, late = rounds.names
    shield = rounds.shields[late]
    opened = [rounds.run(number, absent=(late,)) for number in range(2)]
    for number in range(2):
        shield.follow(context_of(number, rounds.manifest))
        rounds.verify(late, number, opened[number], late=True)
    assert opened[0].members == tuple(members)
    for number in range(2):
        with pytest.raises(ProtocolError, match=f"the sum of round 1 was judged, and round {number} is not after it"):
            shield.follow(context_of(number, rounds.manifest))
    shield.follow(context_of(2, rounds.manifest))
    with pytest.raises(ServerFault, match="check does not fit"):
        rounds.verify(late, 2, flipped(rounds.run(2, absent=(late,)), 0, 0), late=True)


def test_who_is_left_out_of_a_view_follows_nothing():
    rounds = Rounds("masking")
    with pytest.raises(ProtocolError, match="who is left out follows nothing"):
        rounds.shields[rounds.names[0]].follow(context_of(0, rounds.manifest))


def test_a_party_that_saw_the_survivors_certified_takes_no_other_set():
    rounds = Rounds("recovery")
    opened = rounds.run(0)
    assert rounds.shields[rounds.names[0]].survivors(0) == rounds.names
    with pytest.raises(ProtocolError, match="it is over p0000, p0001, p0002, expected p0000"):
        rounds.verify(rounds.names[0], 0, replace(opened, members=rounds.names[:3]))


def test_a_view_that_became_smaller_has_its_own_coefficients():
    kit = session(4)
    assert kit.shields["p00"]._judge.begin(kit.shields["p00"].rounds.vid, 0, bytes(32), 3)._checks._key != (
        kit.shields["p00"]._judge.begin(bytes(32), 0, bytes(32), 3)._checks._key
    )


def test_the_plain_sum_has_no_check():
    kit = session(2, scheme="plain")
    kit.shields["p00"].verify(0, OpenedSum(np.zeros(3, "<u8"), kit.names), SERVER)


# Variants that are broken on purpose: each lets a lie pass that the real one refuses.


def passes(rounds, lie):
    """Returns whether a party accepts what a server makes of a sum."""
    forged = lie(rounds.run(0))
    try:
        rounds.verify(rounds.names[1], 0, forged)
    except ProtocolError:
        return False
    return True


def without_offset(self, product, members):
    return product.result()


def offset_of_the_first(self, product, members):
    """Of one party only: who else is in the set makes no difference."""
    return (product.result() + 12345 * (0 in members)) % PRIME


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_offsets_a_scaled_sum_passes(scheme, monkeypatch):
    assert not passes(Rounds(scheme), lambda o: scaled(o, 2))
    monkeypatch.setattr(RoundChecks, "check", without_offset)
    assert passes(Rounds(scheme), lambda o: scaled(o, 2))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_with_offsets_of_another_set_a_party_is_left_out_unseen(scheme, monkeypatch):
    def left_out(opened):
        return replace(opened, members=(*opened.members[:2], opened.members[3]))

    # Where a party has seen the set certified, that alone is enough.
    monkeypatch.setattr(Judge, "_check_members", lambda *_, **__: None)
    assert not passes(Rounds(scheme), left_out)
    monkeypatch.setattr(RoundChecks, "check", offset_of_the_first)
    assert passes(Rounds(scheme), left_out)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_a_least_set_the_sum_of_nobody_passes(scheme, monkeypatch):
    assert not passes(Rounds(scheme), nothing)
    monkeypatch.setattr(Judge, "_check_members", lambda *_, **__: None)
    assert passes(Rounds(scheme), nothing)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_the_range_a_multiple_of_the_prime_passes(scheme, monkeypatch):
    def beyond(opened):
        words = opened.words.copy()
        words[5] += np.uint64(PRIME)
        return replace(opened, words=words)

    assert not passes(Rounds(scheme), beyond)
    monkeypatch.setattr(Judge, "_check_words", lambda *_: None)
    assert passes(Rounds(scheme), beyond)


def test_the_masked_check_of_one_party_looks_like_noise():
    """Uniform mod p whatever the values: 4,000 of them, of one party, zeros and ones in turn."""
    seen = {0.0: [], 1.0: []}
    kit = session(3)
    manifest = Rounds("masking").manifest
    small = replace(manifest, tensors=(replace(manifest.tensors[0], shape=(2,)),))
    for number in range(600):
        value = float(number % 2)
        message = kit.send("p00", context_of(number, small), plain_values([value] * 2, 1, [0.5]))
        seen[value].append(int.from_bytes(message[-8:].tobytes(), "big") / PRIME)
    for found in seen.values():
        ordered = np.sort(found)
        distance = np.abs(ordered - np.arange(len(found)) / len(found)).max()
        assert distance * np.sqrt(len(found)) < 2.8  # Kolmogorov-Smirnov, chance of a false alarm about 3e-7
