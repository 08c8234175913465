# SPDX-License-Identifier: Apache-2.0
"""Scheme sharing against owners, compute parties and a coordinator that deviate."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure.masking_kit import context_of
from pure.sharing_kit import MANIFEST, ONES, message_of, ready, session

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol.crypto.keys import sign
from fedray.protocol.member import Member
from fedray.protocol.policy import Policy
from fedray.protocol.rows import Rows
from fedray.protocol.scheme import RoundContext
from fedray.protocol.sharing.agreement import Agreement, AgreementSignature, Partial, Proof
from fedray.protocol.sharing.sealing import HEADER_BYTES, ShareHeader, header_of, seal

# Whose inputs are opened.


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_owners_are_not_opened(count):
    kit = ready()
    adder = next(iter(kit.adders.values()))
    with pytest.raises(ProtocolError, match="at least 3 are required"):
        adder.sign(kit.owners[:count])


def test_colluders_are_counted():
    kit = ready(7, 3)  # T = 2: four inputs are the fewest
    adder = next(iter(kit.adders.values()))
    with pytest.raises(ProtocolError, match="at least 4 are required"):
        adder.sign(kit.owners[:3])
    kit = ready(5, 3, colluders=3)
    with pytest.raises(ProtocolError, match="at least 5 are required"):
        next(iter(kit.adders.values())).sign(kit.owners[:4])


def test_a_compute_party_that_owns_nothing_is_not_among_the_owners():
    kit = ready(4, 2, 1)
    adder = next(iter(kit.adders.values()))
    with pytest.raises(ProtocolError, match="each once"):
        adder.sign([*kit.owners[:3], kit.config.receivers[0]])
    with pytest.raises(ProtocolError, match="only computes"):
        kit.shields[kit.config.receivers[0]].protect(context_of(0, MANIFEST), ONES)
    with pytest.raises(ProtocolError, match="each once"):
        adder.sign([*kit.owners[:3], kit.owners[0]])


def test_two_sets_for_one_round_are_refused():
    kit = ready()
    for adder in kit.adders.values():
        first = adder.sign(kit.owners)
        assert adder.sign(kit.owners) == first
        with pytest.raises(ProtocolError, match="another set is refused"):
            adder.sign(kit.owners[:3])


def told(number: int, **more) -> RoundContext:
    """A round of one party's rows: the model stands still, and a further pass has the same ones."""
    name = b"pass %d" % number
    rows = Rows(name, b"deal", 0, 1, 4, 4, run=b"run", pass_name=name)
    return replace(context_of(0, MANIFEST), number=number, rows=rows, **more)


def summed(policy: Policy, *, over: int = 4, **more):
    """Returns a session of four in which round 0 was published over some, and the first three have sent for round 1."""
    kit = session(4, 2, policy=policy)
    kit.expect(MANIFEST)
    owners = kit.owners[:over]
    for name in owners:
        kit.send(name, told(0), ONES)
    kit.agree(owners)
    kit.open(0, MANIFEST)
    (adder, *_) = kit.adders.values()
    assert all(kit.shields[name].certify(adder.proof(0)) == owners for name in owners)
    for name in kit.owners[:3]:
        kit.send(name, told(1, **more), ONES)
    return kit


STRICT = {"rounds": {"train": 9}}
MOVED = {"model": b"another model".ljust(32)}


@pytest.mark.parametrize(
    ("policy", "more"),
    [(Policy(**STRICT), {}), (Policy(member_changes=0), MOVED), (Policy(views=0), MOVED)],
    ids=["the same rows on the same model", "as many changes as are allowed", "no smaller view"],
)
def test_compute_parties_sign_no_set_that_an_owner_does_not_allow(policy, more):
    kit = summed(policy, **more)
    for adder in kit.adders.values():
        assert adder.only_over() == kit.owners
        with pytest.raises(ProtocolError, match="allows a sum over all owners only"):
            adder.sign(kit.owners[:3])
    kit.send(kit.owners[3], told(1, **more), ONES)
    kit.agree(kit.owners)
    assert kit.open(1, MANIFEST).parties == kit.owners


def test_other_rows_on_a_model_that_has_moved_may_be_opened_over_fewer():
    kit = summed(Policy(), **MOVED)
    kit.agree(kit.owners[:3])
    assert kit.open(1, MANIFEST).parties == kit.owners[:3]


def test_owners_that_do_not_say_what_they_allow_are_summed_over_fewer(monkeypatch):
    """The broken variant: two sums of the same rows on one model, which differ by one owner's input."""
    monkeypatch.setattr(Member, "allows_only", lambda *_: False)
    kit = summed(Policy(**STRICT))
    kit.agree(kit.owners[:3])
    assert kit.open(1, MANIFEST).parties == kit.owners[:3]


def test_what_was_opened_over_fewer_is_not_summed_over_all_of_them():
    """An owner remembers whose inputs were in the sum, not who might have been."""
    with pytest.raises(ProtocolError, match="already summed on this model over"):
        summed(Policy(**STRICT), over=3)
    with pytest.raises(ProtocolError, match="this party allows 0"):
        summed(Policy(member_changes=0), over=3, **MOVED)


def test_a_round_is_opened_once():
    kit = ready()
    kit.agree(kit.owners)
    kit.open(0, MANIFEST)
    for adder in kit.adders.values():
        for again in (adder.publish, lambda adder=adder: adder.sign(kit.owners)):
            with pytest.raises(ProtocolError, match="no round is under way"):
                again()
        with pytest.raises(ProtocolError, match="round 0 is over"):
            adder.add(kit.owners[0], message_of(kit, kit.owners[0], kit.roster.names[adder.number]))
        adder.expect((range(5), MANIFEST.words(len(kit.owners))))
        with pytest.raises(ProtocolError, match="round 0 is over"):
            adder.add(kit.owners[0], message_of(kit, kit.owners[0], kit.roster.names[adder.number]))


def test_a_failed_round_is_erased_and_never_taken_again():
    kit = ready()
    for adder in kit.adders.values():
        adder.fail()
        with pytest.raises(ProtocolError, match="round 0 is over"):
            adder.add(kit.owners[0], message_of(kit, kit.owners[0], kit.roster.names[adder.number]))


# Owners that were told different things.


@pytest.mark.parametrize("odd", [1, 2])
def test_inputs_on_different_contexts_are_never_added(odd):
    kit = session(4, 3)
    kit.expect(MANIFEST)
    for place, name in enumerate(kit.owners):
        kit.send(name, context_of(0, MANIFEST, settings=b"learning rate 0" if place < odd else b""), ONES)
    adder = next(iter(kit.adders.values()))
    with pytest.raises(ProtocolError, match="computed on the same model"):
        adder.sign(kit.owners)
    if odd == 1:  # the others were told the same, and are enough
        kit.agree(kit.owners[1:])
        assert kit.open(0, MANIFEST).parties == kit.owners[1:]
        with pytest.raises(ProtocolError, match="another round or context"):
            kit.shields[kit.owners[0]].certify(adder.proof(0))
        return
    with pytest.raises(ProtocolError, match="at least 3"):
        adder.sign(kit.owners[2:])


def test_one_compute_party_that_adds_different_contexts_is_not_enough():
    """Without the check of the others a coordinator reads one input: learning rate 0 for all but one."""
    kit = session(4, 2)
    kit.expect(MANIFEST)
    for place, name in enumerate(kit.owners):
        kit.send(name, context_of(0, MANIFEST, settings=b"0" if place else b""), ONES)
    bad, honest = kit.adders
    forged = Agreement(kit.adders[bad]._sid, 0, bytes(32), tuple(range(4)))
    statement = AgreementSignature(forged, 0, sign(kit.keys[bad], forged.statement)).encode()
    kit.adders[honest].hear(bad, statement)
    with pytest.raises(ProtocolError, match="does not hold shares"):
        kit.adders[honest].sign(kit.owners)
    assert not kit.adders[honest].ready()
    with pytest.raises(ProtocolError, match="has not signed"):
        kit.adders[honest].publish()


# Shares.


def test_a_share_of_another_round_is_refused():
    kit = ready()
    owner, name = kit.owners[0], kit.config.receivers[1]
    old = message_of(kit, owner, name)
    kit.agree(kit.owners)
    kit.open(0, MANIFEST)
    adder = kit.adders[name]
    with pytest.raises(ProtocolError, match="round 0 is over"):
        adder.add(owner, old)
    altered = bytearray(bytes(old))
    header = replace(header_of(old), number=1)
    altered[:HEADER_BYTES] = header.encode()
    with pytest.raises(ProtocolError, match="not from its owner, or was altered"):
        adder.add(owner, bytes(altered))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"owner": 1}, "another owner's"),
        ({"compute_party": 1}, "another compute party"),
        ({"sid": bytes(32)}, "another session"),
        ({"ctx": bytes(32)}, "altered"),
        ({"number": 1}, "altered"),
        ({"number": 10_000}, "not announced"),
        ({"size": 5}, "expected 6 words"),
        ({"bits": 32}, "expected 6 words"),
    ],
)
def test_what_a_share_says_in_clear_cannot_be_changed(change, match):
    kit = session(4, 3)
    kit.expect(MANIFEST)
    owner, name = kit.owners[3], kit.config.receivers[2]
    message = message_of(kit, owner, name)
    header = replace(header_of(message), **change)
    data = header.encode() + bytes(message)[HEADER_BYTES:]
    if change.keys() & {"number"} and match == "altered":
        kit.adders[name].fail()
    with pytest.raises(ProtocolError, match=match):
        kit.adders[name].add(owner, data)
    assert kit.adders[name].held() == ()


def test_a_share_is_for_one_receiver_and_from_one_sender():
    kit = session(4, 3)
    kit.expect(MANIFEST)
    messages = kit.shields[kit.owners[3]].protect(context_of(0, MANIFEST), ONES)
    first, second = kit.config.receivers[1:]
    with pytest.raises(ProtocolError, match="another compute party"):
        kit.adders[first].add(kit.owners[3], messages[second])
    with pytest.raises(ProtocolError, match="another owner's"):
        kit.adders[first].add(kit.owners[2], messages[first])


def test_a_second_different_share_is_refused_and_a_repeat_changes_nothing():
    kit = session(4, 3)
    kit.expect(MANIFEST)
    owner, name = kit.owners[0], kit.config.receivers[1]
    shield, adder = kit.shields[owner], kit.adders[name]
    message = message_of(kit, owner, name)
    adder.add(owner, message)
    total = adder._current.piles[header_of(message).ctx].total.copy()
    adder.add(owner, message)
    assert np.array_equal(total, adder._current.piles[header_of(message).ctx].total)
    other = seal(shield._channels[1], header_of(message), bytes(32))
    with pytest.raises(ProtocolError, match="second, different share"):
        adder.add(owner, other)


def test_a_late_share_is_dropped():
    kit = session(4, 3)
    kit.expect(MANIFEST)
    for name in kit.owners[:3]:
        kit.send(name, context_of(0, MANIFEST), ONES)
    kit.agree(kit.owners[:3])
    with pytest.raises(ProtocolError, match="too late"):
        kit.send(kit.owners[3], context_of(0, MANIFEST), ONES)
    assert kit.open(0, MANIFEST).values.tolist() == [3.0] * 4


def test_a_long_share_where_a_seed_is_agreed_is_refused():
    kit = session(4, 3)
    kit.expect(MANIFEST)
    owner, name = kit.owners[0], kit.config.receivers[1]
    header = header_of(message_of(kit, owner, name))
    words = seal(kit.shields[owner]._channels[1], replace(header, form="words"), np.zeros(7, "<u8"))
    with pytest.raises(ProtocolError, match="does not foresee"):
        kit.adders[name].add(owner, words)
    bare = seal(kit.shields[owner]._channels[1], replace(header, form="bare"), np.zeros(6, "<u8"))
    with pytest.raises(ProtocolError, match="a share as bare, which the session's Config does not foresee"):
        kit.adders[name].add(owner, bare)
    with pytest.raises(EncodingError, match="expected 56 bytes"):
        seal(bytes(32), replace(header, form="words"), np.zeros(5, "<u8"))


@given(data=st.binary(max_size=400))
def test_no_bytes_do_anything_but_decode_or_raise(data):
    for decode in (header_of, ShareHeader.decode, AgreementSignature.decode, Proof.decode, Partial.decode):
        with pytest.raises(EncodingError):
            decode(data)


@pytest.mark.parametrize(
    "bad", [None, "text", np.zeros(10), np.zeros((2, 400), np.uint8), np.zeros(900, np.uint8)[::2]]
)
def test_messages_are_bytes(bad):
    for decode in (header_of, Partial.decode):
        with pytest.raises(EncodingError):
            decode(bad)


@pytest.mark.parametrize("place", range(0, 330, 13))
def test_any_changed_byte_of_a_share_is_found(place):
    kit = session(4, 3)
    kit.expect(MANIFEST)
    owner, name = kit.owners[0], kit.config.receivers[0]
    data = bytearray(bytes(message_of(kit, owner, name)))
    data[place % len(data)] ^= 1
    with pytest.raises(ProtocolError):
        kit.adders[name].add(owner, bytes(data))


# Signatures.


def test_c_minus_one_signatures_publish_nothing():
    kit = ready()
    signed = {name: adder.sign(kit.owners) for name, adder in kit.adders.items()}
    first, second, third = kit.adders
    adder = kit.adders[first]
    adder.hear(second, signed[second])
    assert adder.awaited() == (third,)
    assert not adder.ready()
    with pytest.raises(ProtocolError, match="all 3 compute parties, found 2"):
        adder.publish()
    adder.hear(third, signed[third])
    assert adder.ready()
    adder.publish()


def test_a_signature_is_its_signers():
    kit = ready()
    first, second, third = kit.adders
    signed = kit.adders[second].sign(kit.owners)
    survive = AgreementSignature.decode(signed)
    adder = kit.adders[first]
    with pytest.raises(ProtocolError, match="did not sign"):
        adder.hear(third, signed)
    for forged in (
        replace(survive, compute_party=2),
        replace(survive, signature=bytes(64)),
        replace(survive, agreement=replace(survive.agreement, members=(0, 1, 2))),
    ):
        with pytest.raises(ProtocolError, match="did not sign"):
            adder.hear(second, forged.encode())
    for stranger in (
        replace(survive, compute_party=3),
        replace(survive, agreement=replace(survive.agreement, sid=bytes(32))),
    ):
        with pytest.raises(ProtocolError, match="another session"):
            adder.hear(second, stranger.encode())


def test_a_compute_party_that_signs_two_sets_is_found():
    kit = ready()
    first, second, _ = kit.adders
    agreed = AgreementSignature.decode(kit.adders[second].sign(kit.owners)).agreement
    other = replace(agreed, members=(0, 1, 2))
    statements = [AgreementSignature(a, 1, sign(kit.keys[second], a.statement)).encode() for a in (agreed, other)]
    kit.adders[first].hear(second, statements[0])
    kit.adders[first].hear(second, statements[0])
    with pytest.raises(ProtocolError, match="signed two different sets"):
        kit.adders[first].hear(second, statements[1])


@pytest.mark.parametrize("liars", [1, 2])
def test_one_honest_compute_party_stops_a_sum_over_another_set(liars):
    """c-1 colluding compute parties sign a smaller set; the last one signed all, and publishes nothing."""
    kit = ready()
    honest, *others = kit.adders
    adder = kit.adders[honest]
    agreed = AgreementSignature.decode(adder.sign(kit.owners)).agreement
    for place, name in enumerate(others[:liars], start=1):
        smaller = replace(agreed, members=(0, 1, 2))
        adder.hear(name, AgreementSignature(smaller, place, sign(kit.keys[name], smaller.statement)).encode())
    with pytest.raises(ProtocolError, match="signed another set"):
        adder.publish()
