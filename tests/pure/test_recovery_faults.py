# SPDX-License-Identifier: Apache-2.0
"""Parties of recovery that lie or err: each fault is named, and the round opens without it or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from pure.recovery_kit import ALL, MANIFEST, Stage, context, contribution, propose_small

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol.crypto.keys import public_bytes, sign
from fedray.protocol.recovery import key_batch
from fedray.protocol.recovery.evidence import TwoInputs, proves
from fedray.protocol.recovery.pads import self_commitment
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.recovery.round_messages import PAIR, SELF, MaskedInput, Survive, Unmask
from fedray.protocol.scheme import Contribution, View


@pytest.fixture(scope="module")
def stages() -> Stage:
    return Stage()


@pytest.fixture
def stage(stages: Stage) -> Stage:
    return stages


def test_a_wrong_share_is_named_and_the_sum_opens(stage: Stage) -> None:
    survivors = stage.survivors()
    quorum = stage.quorum(survivors)
    for name in ALL:
        stage.collector.add(name, stage.shields[name].reply(survivors.encode()))
    stage.collector.advance()
    for name in ALL:
        reply = stage.shields[name].reply(quorum)
        if name == ALL[0]:
            unmask = Unmask.decode(reply)
            reply = replace(unmask, shares=(bytes(32) + b"\7", *unmask.shares[1:])).encode()
        stage.collector.add(name, reply)
    assert stage.collector.advance() is None
    assert stage.collector.open().members == ALL
    assert [(f.party, f.what) for f in stage.collector.faults] == [(ALL[0], "its share of p0000's secret is wrong")]


def test_too_many_wrong_shares_abort_the_round(stage: Stage) -> None:
    survivors = stage.survivors()
    for name in ALL:
        stage.collector.add(name, stage.shields[name].reply(survivors.encode()))
    quorum = stage.collector.advance()
    for name in ALL:
        unmask = Unmask.decode(stage.shields[name].reply(quorum))
        if name in ALL[:2]:
            unmask = replace(unmask, shares=(*unmask.shares[:3], secrets.token_bytes(32).rjust(33, b"\0")))
        stage.collector.add(name, unmask.encode())
    stage.collector.advance()
    with pytest.raises(ProtocolError, match="the secret of p0003 is lost"):
        stage.collector.open()
    with pytest.raises(ProtocolError, match="did not open"):
        stage.collector.open()


def test_a_commitment_that_is_not_kept_aborts_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A party shares another seed than the one it committed to: nothing is published, and it is named."""

    def false(sid: bytes, number: int, owner: int, seed: bytes) -> bytes:
        return self_commitment(sid, number, owner, bytes(32) if owner == 1 else seed)

    monkeypatch.setattr(key_batch, "self_commitment", false)
    rehearsal = Rehearsal(4, propose_small)
    rehearsal.prepare(0)
    with pytest.raises(ProtocolError, match="round 0 is aborted: the secret of p0001 is lost"):
        rehearsal.sum(context(0), {name: contribution() for name in rehearsal.names})


SHARES: dict[str, Callable[[Unmask], Unmask]] = {
    "not one of each neighbour": lambda u: replace(u, owners=u.owners[:3], kinds=u.kinds[:3], shares=u.shares[:3]),
    "of the kind": lambda u: replace(u, kinds=bytes([PAIR]) + u.kinds[1:]),
    "another session, round or holder": lambda u: replace(u, index=2),
    "session, round": lambda u: replace(u, number=u.number + 1),
}


@pytest.mark.parametrize("word", SHARES)
def test_shares_that_are_not_owed_are_refused(stage: Stage, word: str) -> None:
    survivors = stage.survivors()
    for name in ALL:
        stage.collector.add(name, stage.shields[name].reply(survivors.encode()))
    quorum = stage.collector.advance()
    unmask = Unmask.decode(stage.shields[ALL[0]].reply(quorum))
    assert set(unmask.kinds) == {SELF}
    with pytest.raises(ProtocolError, match=f"p0000: round {stage.number}: .*{word}"):
        stage.collector.add(ALL[0], SHARES[word](unmask).encode())
    stage.collector.add(ALL[0], unmask.encode())
    stage.collector.add(ALL[0], unmask.encode())
    other = replace(unmask, shares=(bytes(33), *unmask.shares[1:]))
    with pytest.raises(ProtocolError, match="other shares before"):
        stage.collector.add(ALL[0], other.encode())
    assert stage.collector.missing() == set(ALL[1:])


def test_a_second_signature_is_kept_as_evidence(stage: Stage) -> None:
    survivors = stage.survivors()
    other = replace(survivors, members=(0, 1, 2), hashes=survivors.hashes[:3])
    signature = sign(stage.rehearsal.identities[ALL[1]], other.statement)
    message = Survive(other.statement, 1, signature).encode()
    with pytest.raises(ProtocolError, match="signed another set"):
        stage.collector.add(ALL[1], message)
    assert stage.collector.faults[0].evidence == message
    signer, other_key = (public_bytes(stage.rehearsal.identities[ALL[place]]) for place in (1, 0))
    assert (
        proves(message, signer) == f"it signed that round {stage.number} is opened over the parties at the places "
        "0, 1, 2 of the roster"
    )
    with pytest.raises(ProtocolError, match="signed with the party's key"):
        proves(message, other_key)
    forged = Survive(survivors.statement, 1, secrets.token_bytes(64)).encode()
    with pytest.raises(ProtocolError, match="not signed by it"):
        stage.collector.add(ALL[1], forged)
    assert stage.collector.missing() == set(ALL)
    assert not stage.collector.sufficient()


def test_a_second_masked_input_is_a_fault_with_proof(stage: Stage) -> None:
    stage.begin()
    collector = stage.collector
    message = stage.shields[ALL[0]]._round.sent.message
    collector.add(ALL[0], message)  # the same one again
    assert collector.missing() == frozenset()
    altered = message.copy()
    altered[-1] ^= 1
    for forged, word in [
        (altered, "hash of its masked input"),
        (message[:-8], "do not match"),
        (message[:100], "expected at least"),
        (bytes(300), "without a label"),
    ]:
        with pytest.raises(ProtocolError, match=word):
            collector.add(ALL[0], forged)
    with pytest.raises(ProtocolError, match="another session, round, party"):
        collector.add(ALL[1], message)
    with pytest.raises(ProtocolError, match="not in the roster"):
        collector.add("mallory", message)


def resigned(stage: Stage, name: str, words: np.ndarray, ctx: bytes) -> np.ndarray:
    """A masked input that a party signed outside the rules."""
    import hashlib

    from fedray.protocol.recovery.round_messages import fill_header, masked_frame, masked_statement

    frame, place = masked_frame(len(words), words.itemsize * 8)
    place[:] = words
    sid, index = stage.rehearsal.server.sid, ALL.index(name)
    digest = hashlib.sha256(place.tobytes() + bytes(8)).digest()
    statement = masked_statement(sid, stage.number, index, ctx, place, digest)
    signature = sign(stage.rehearsal.identities[name], statement)
    fill_header(frame, (sid, stage.number, index, ctx, len(words), words.itemsize * 8, digest, signature))
    return frame


def test_inputs_of_a_wrong_length_or_ring_and_a_flood_of_contexts(stage: Stage) -> None:
    stage.begin(but=ALL[3])
    size = MANIFEST.words(len(ALL))
    collector, ctx = stage.collector, MaskedInput.decode(stage.shields[ALL[0]]._round.sent.message).ctx
    for words in (np.zeros(size - 1, "<u8"), np.zeros(size, "<u4"), np.zeros(0, "<u8")):
        with pytest.raises(ProtocolError, match="length or ring"):
            collector.add(ALL[3], resigned(stage, ALL[3], words, ctx))
    collector.add(ALL[3], resigned(stage, ALL[3], np.zeros(size, "<u8"), secrets.token_bytes(32)))
    with pytest.raises(ProtocolError, match="a second, different masked input"):
        collector.add(ALL[3], resigned(stage, ALL[3], np.zeros(size, "<u8"), ctx))
    evidence, key = collector.faults[-1].evidence, public_bytes(stage.rehearsal.identities[ALL[3]])
    assert proves(evidence, key) == f"it signed two different masked inputs for round {stage.number}"
    # One party may lie about its context (T = 1), so that one vector more is kept, and no second one.
    assert len(collector._totals) == 2
    del collector._hashes[0]
    with pytest.raises(ProtocolError, match="a further context"):
        collector.add(ALL[0], resigned(stage, ALL[0], np.zeros(size, "<u8"), secrets.token_bytes(32)))


def test_an_altered_vector_is_seen_before_it_is_published(stage: Stage) -> None:
    stage.begin(but=ALL[3])
    stage.shields[ALL[3]].protect(context(stage.number), contribution())
    ctx = MaskedInput.decode(stage.shields[ALL[0]]._round.sent.message).ctx
    # Party 3 sends noise under its own signature, and plays along otherwise.
    noise = resigned(stage, ALL[3], np.arange(MANIFEST.words(len(ALL)), dtype="<u8"), ctx)
    stage.collector.add(ALL[3], noise)
    survivors = stage.collector.advance()
    for name in ALL[:3]:
        stage.collector.add(name, stage.shields[name].reply(survivors))
    quorum = stage.collector.advance()
    for name in ALL[:3]:
        stage.collector.add(name, stage.shields[name].reply(quorum))
    assert stage.collector.advance() is None
    with pytest.raises(ProtocolError, match="noise or was altered"):
        stage.collector.open()


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (Contribution(np.full(7, np.nan, np.float32), 1, np.ones(1)), "kernel.*NaN"),
        (Contribution(np.zeros(7, np.float32), 6, np.ones(1)), "weight of 0 to 5"),
        (Contribution(np.zeros(6, np.float32), 1, np.ones(1)), "expected 7 values"),
        (Contribution(np.full(7, None), 1, np.ones(1)), "expected real numbers, found object"),
        (Contribution(np.zeros(7, np.float32), 1, np.full(1, np.inf)), "'loss' holds an infinity"),
    ],
)
def test_inputs_that_cannot_be_encoded_never_leave(stage: Stage, bad: Contribution, word: str) -> None:
    stage.begin(but=ALL[0])
    shield = stage.shields[ALL[0]]
    here = context(stage.number)
    with pytest.raises(EncodingError, match=word):
        shield.protect(here, bad)
    with pytest.raises(ProtocolError):
        shield.reply(stage.collector.advance())


def test_a_round_is_aborted_for_a_listed_reason(stage: Stage) -> None:
    stage.begin()
    collector = stage.rehearsal.server.collector(View(0, ALL), stage.number, MANIFEST)
    for name in ALL[:2]:
        collector.add(name, stage.shields[name]._round.sent.message)
    assert not collector.sufficient()
    with pytest.raises(ProtocolError, match="aborted: 2 survivors, expected at least 3"):
        collector.advance()
    for name in ALL[2:]:
        collector.add(name, stage.shields[name]._round.sent.message)
    survivors = collector.advance()
    for name in ALL[:2]:
        collector.add(name, stage.shields[name].reply(survivors))
    with pytest.raises(
        ProtocolError, match=r"aborted: 2 signatures, expected at least 3; missing \['p0002', 'p0003'\]"
    ):
        collector.advance()
    collector.add(ALL[2], stage.shields[ALL[2]].reply(survivors))
    assert collector.sufficient()
    quorum = collector.advance()
    for name in ALL[1:3]:
        collector.add(name, stage.shields[name].reply(quorum))
    with pytest.raises(ProtocolError, match="aborted: 2 shares of p0000's secret, expected at least 3"):
        collector.advance()
    with pytest.raises(ProtocolError, match="not ready to be opened"):
        collector.open()
    collector.add(ALL[3], stage.shields[ALL[3]].reply(quorum))
    assert collector.advance() is None
    assert collector.open() is collector.open()
    with pytest.raises(ProtocolError, match="no further stage"):
        collector.advance()


def test_evidence_that_proves_nothing_is_refused(stage: Stage) -> None:
    stage.begin()
    masked = MaskedInput.decode(stage.shields[ALL[0]]._round.sent.message)
    key = public_bytes(stage.rehearsal.identities[ALL[0]])
    signed = (masked.statement, masked.signature)
    with pytest.raises(ProtocolError, match="two different inputs of one party for one round"):
        proves(TwoInputs(*signed, *signed).encode(), key)
    with pytest.raises(ProtocolError, match="signed with the party's key"):
        proves(TwoInputs(*signed, masked.statement, bytes(64)).encode(), key)
    for other in (b"", b"x" * 100, masked.statement):
        with pytest.raises(EncodingError):
            proves(other, key)
