# SPDX-License-Identifier: Apache-2.0
"""Sums with recovery, among a coordinator and parties that lie: each lie is refused, and by name where it can be."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedray.errors import EncodingError, PlanError, ProtocolError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.keys import Roster, sign
from fedray.protocol.memory import ModelMemory
from fedray.protocol.messages import enc, enc_list
from fedray.protocol.policy import Policy
from fedray.protocol.recovery.batch_messages import Ack, Dealt, Keys, Sharing
from fedray.protocol.recovery.collector import RecoveryCollector
from fedray.protocol.recovery.messages import PAIR, SELF, MaskedInput, Quorum, Survive, Survivors, Unmask
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.recovery.shield import RecoveryShield
from fedray.protocol.recovery.terms import propose
from fedray.protocol.scheme import Contribution, Manifest, RoundContext, Tensor, View

MANIFEST = Manifest((Tensor("kernel", (7,), "float32"),), ("loss",), 64)
ENCODING = Encoding(64, 12, 8.0, weight_bound=5)
ALL = ("p0000", "p0001", "p0002", "p0003")


def propose_small(roster: Roster) -> Config:
    return propose(roster, ["server"], ENCODING, batch=4)


def context(number: int, model: bytes = b"", settings: bytes = b"settings") -> RoundContext:
    return RoundContext(number, model or secrets.token_bytes(32), settings, MANIFEST)


def contribution(seed: int = 0, weight: int = 1) -> Contribution:
    values = np.random.default_rng(seed).normal(size=MANIFEST.size).astype(np.float32)
    return Contribution(values, weight, np.ones(1))


def inputs(but: str = "") -> dict[str, Contribution]:
    return {name: contribution(i) for i, name in enumerate(ALL) if name != but}


class Stage:
    """Four parties with a batch of four rounds, one of which is under way."""

    def __init__(self) -> None:
        self.rehearsal = Rehearsal(4, propose_small)
        self.shields = self.rehearsal.shields
        self.rehearsal.prepare(0)
        self.number = -1

    def begin(self, but: str = "") -> RecoveryCollector:
        self.number += 1
        if self.number and self.number % 4 == 0:
            self.rehearsal.prepare(self.number)
        self.collector = self.rehearsal.begin(context(self.number), inputs(but))
        return self.collector

    def survivors(self, but: str = "") -> Survivors:
        """Begins a round and returns what the coordinator would send honestly."""
        self.begin(but)
        broadcast = self.collector.advance()
        assert broadcast is not None
        return Survivors.decode(broadcast)

    def signatures(self, survivors: Survivors) -> dict[int, bytes]:
        names = [ALL[i] for i in survivors.members]
        return {ALL.index(n): sign(self.rehearsal.identities[n], survivors.statement) for n in names}

    def quorum(self, survivors: Survivors, signed: dict[int, bytes] | None = None) -> bytes:
        found = self.signatures(survivors) if signed is None else signed
        return Quorum(survivors, tuple(sorted(found)), tuple(found[i] for i in sorted(found))).encode()


@pytest.fixture(scope="module")
def stages() -> Stage:
    return Stage()


@pytest.fixture
def stage(stages: Stage) -> Stage:
    return stages


# The coordinator lies.

WEAKER = {
    "t_sig": {"t_sig": 2},
    "t_share": {"t_share": 1},
    "colluders": {"colluders": 0, "t_sig": 3},
    "n_min": {"n_min": 2},
    "part": {"part": "masking"},
    "degree": {"degree": 2},
    "batch": {"batch": 4096},
    "dropouts": {"dropouts": 2},
    "a sparse graph of 4": {"graph": "chosen", "degree": 3},
    "degree 2 is too small": {"graph": "chosen", "degree": 2, "t_share": 2},
    "expected 'recovery'": {"part": "sharing"},
}


@pytest.mark.parametrize("word", WEAKER)
def test_a_weakened_config_is_refused(word: str) -> None:
    with pytest.raises(ProtocolError, match=word):
        Rehearsal(4, lambda roster: replace(propose_small(roster), **WEAKER[word]))


def test_a_graph_against_random_dropouts_only_is_refused_unless_the_party_allows_it() -> None:
    def configure(roster: Roster) -> Config:
        return propose(roster, ["server"], ENCODING, chosen=False, batch=1)

    with pytest.raises(ProtocolError, match="graph is random"):
        Rehearsal(33, configure)


def test_a_ring_of_one_bit_does_not_exist() -> None:
    with pytest.raises(PlanError, match="ring must be 32 or 64"):
        Encoding(1, 1, 1.0)


def test_a_party_signs_one_set_of_survivors(stage: Stage) -> None:
    survivors = stage.survivors()
    shield = stage.shields[ALL[0]]
    first = shield.reply(survivors.encode())
    assert shield.reply(survivors.encode()) == first
    other = replace(survivors, members=survivors.members[:3], hashes=survivors.hashes[:3])
    with pytest.raises(
        ProtocolError, match=r"already signed for the survivors \(0, 1, 2, 3\), now asked for \(0, 1, 2\)"
    ):
        shield.reply(other.encode())
    with pytest.raises(ProtocolError, match="already signed"):
        shield.reply(stage.quorum(other))
    swapped = replace(survivors, hashes=(*survivors.hashes[:3], secrets.token_bytes(32)))
    with pytest.raises(ProtocolError, match="or other inputs"):
        shield.reply(stage.quorum(swapped))


LIES: dict[str, Callable[[Survivors], Survivors]] = {
    "another session": lambda s: replace(s, sid=secrets.token_bytes(32)),
    "session or round": lambda s: replace(s, number=s.number + 1),
    "another model or settings": lambda s: replace(s, ctx=secrets.token_bytes(32)),
    "another masked input than": lambda s: replace(s, hashes=(secrets.token_bytes(32), *s.hashes[1:])),
    "2 survivors, expected at least 3": lambda s: replace(s, members=s.members[:2], hashes=s.hashes[:2]),
    "not in the roster": lambda s: replace(s, members=(*s.members[:3], 9)),
    "closed without this party": lambda s: replace(s, members=s.members[1:], hashes=s.hashes[1:]),
}


@pytest.mark.parametrize("word", LIES)
@pytest.mark.parametrize("asked", ["survive", "unmask"])
def test_a_false_set_of_survivors_is_neither_signed_nor_unmasked(stage: Stage, word: str, asked: str) -> None:
    lie = LIES[word](stage.survivors())
    signed = {i: sign(stage.rehearsal.identities[ALL[i]], lie.statement) for i in lie.members if i < 4}
    message = lie.encode() if asked == "survive" else stage.quorum(lie, signed)
    before = len(stage.shields[ALL[0]].decisions)
    with pytest.raises(ProtocolError, match=word):
        stage.shields[ALL[0]].reply(message)
    assert len(stage.shields[ALL[0]].decisions) == before


def test_a_party_listed_twice_or_out_of_order_is_not_even_parsed(stage: Stage) -> None:
    survivors = stage.survivors()
    for members in ((0, 0, 1, 2), (1, 0, 2, 3)):
        with pytest.raises(EncodingError, match="strictly increasing"):
            stage.shields[ALL[0]].reply(replace(survivors, members=members).encode())


def test_a_party_that_was_left_out_stops_and_erases(stage: Stage) -> None:
    survivors = stage.survivors()
    shield = stage.shields[ALL[0]]
    with pytest.raises(ProtocolError, match="without this party"):
        shield.reply(replace(survivors, members=(1, 2, 3), hashes=survivors.hashes[1:]).encode())
    assert shield._turn._batch.owners(stage.number) == ()
    with pytest.raises(ProtocolError, match="without this party"):
        shield.reply(survivors.encode())
    with pytest.raises(ProtocolError, match="without this party"):
        shield.reply(stage.quorum(survivors))
    assert shield.survivors(stage.number) is None


def test_a_quorum_needs_enough_valid_signatures_of_different_survivors(stage: Stage) -> None:
    survivors = stage.survivors(but=ALL[3])
    shield, good = stage.shields[ALL[0]], stage.signatures(survivors)
    forged = good | {2: secrets.token_bytes(64)}
    stranger = good | {3: sign(stage.rehearsal.identities[ALL[3]], survivors.statement)}
    for signed, word in [
        ({0: good[0], 1: good[1]}, "2 signatures on the survivors, expected at least 3"),
        (forged, "the signature of p0002 is not valid"),
        (stranger, "of place 3, which is not among the survivors"),
        (good | {1: good[0]}, "the signature of p0001 is not valid"),
    ]:
        with pytest.raises(ProtocolError, match=word):
            shield.reply(stage.quorum(survivors, signed))
    doubled = Quorum(survivors, (0, 1, 1), (good[0], good[1], good[1]))
    with pytest.raises(EncodingError, match="strictly increasing"):
        shield.reply(doubled.encode())
    assert shield.reply(stage.quorum(survivors))


def test_old_rounds_and_repeated_requests(stage: Stage) -> None:
    survivors = stage.survivors()
    quorum, shield = stage.quorum(survivors), stage.shields[ALL[1]]
    first = shield.reply(quorum)
    assert shield.reply(quorum) == first
    fewer = {i: s for i, s in stage.signatures(survivors).items() if i != 0}
    assert shield.reply(stage.quorum(survivors, fewer)) == first
    stage.begin()
    for message in (survivors.encode(), quorum):
        with pytest.raises(ProtocolError, match="another session or round"):
            shield.reply(message)
    with pytest.raises(ProtocolError, match=f"round {stage.number - 1} is over"):
        shield.protect(context(stage.number - 1), contribution())


def test_what_is_no_request_is_refused(stage: Stage) -> None:
    stage.begin()
    for message in (enc("unmask", b""), enc("hello"), enc("survivors"), enc("quorum", b"", b"", b""), b"", b"\0" * 40):
        with pytest.raises(ProtocolError):
            stage.shields[ALL[0]].reply(message)


def test_a_masked_input_is_sent_once(stage: Stage) -> None:
    stage.begin(but=ALL[0])
    shield, here = stage.shields[ALL[0]], context(stage.number)
    message = shield.protect(here, contribution())["server"]
    assert shield.protect(here, contribution())["server"].tobytes() == message.tobytes()
    with pytest.raises(ProtocolError, match="used for other data"):
        shield.protect(here, contribution(5))
    with pytest.raises(ProtocolError, match="used for other data"):
        shield.protect(context(stage.number), contribution())


def test_parties_told_different_things_are_not_summed(stage: Stage) -> None:
    stage.begin(but=ALL[2])
    (message,) = stage.shields[ALL[2]].protect(context(stage.number, settings=b"rate 0"), contribution()).values()
    stage.collector.add(ALL[2], message)
    broadcast = stage.collector.advance()
    assert Survivors.decode(broadcast).members == (0, 1, 3)
    assert [f.party for f in stage.collector.faults] == [ALL[2]]


def test_a_late_input_is_dropped_unread(stage: Stage) -> None:
    stage.begin(but=ALL[2])
    broadcast = stage.collector.advance()
    (message,) = stage.shields[ALL[2]].protect(context(stage.number), contribution()).values()
    stage.collector.add(ALL[2], message)
    assert stage.collector.late == [ALL[2]]
    for name in (ALL[0], ALL[1], ALL[3]):
        stage.collector.add(name, stage.shields[name].reply(broadcast))
    assert Quorum.decode(stage.collector.advance()).survivors.members == (0, 1, 3)


# A party lies.


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
    assert stage.collector.open().parties == ALL
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
    forged = Survive(survivors.statement, 1, secrets.token_bytes(64)).encode()
    with pytest.raises(ProtocolError, match="not signed by it"):
        stage.collector.add(ALL[1], forged)
    assert stage.collector.missing() == set(ALL)
    assert not stage.collector.sufficient()


def test_a_second_masked_input_is_a_fault_with_proof(stage: Stage) -> None:
    stage.begin()
    collector = stage.collector
    message = stage.shields[ALL[0]]._turn.sent.message
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

    from fedray.protocol.recovery.messages import fill_header, masked_frame, masked_statement

    frame, place = masked_frame(len(words), words.itemsize * 8)
    place[:] = words
    sid, index = stage.rehearsal.server.sid, ALL.index(name)
    digest = hashlib.sha256(place.data).digest()
    statement = masked_statement(sid, stage.number, index, ctx, place, digest)
    signature = sign(stage.rehearsal.identities[name], statement)
    fill_header(frame, (sid, stage.number, index, ctx, len(words), words.itemsize * 8, digest, signature))
    return frame


def test_inputs_of_a_wrong_length_or_ring_and_a_flood_of_contexts(stage: Stage) -> None:
    stage.begin(but=ALL[3])
    size = MANIFEST.words
    collector, ctx = stage.collector, MaskedInput.decode(stage.shields[ALL[0]]._turn.sent.message).ctx
    for words in (np.zeros(size - 1, "<u8"), np.zeros(size, "<u4"), np.zeros(0, "<u8")):
        with pytest.raises(ProtocolError, match="length or ring"):
            collector.add(ALL[3], resigned(stage, ALL[3], words, ctx))
    collector.add(ALL[3], resigned(stage, ALL[3], np.zeros(size, "<u8"), secrets.token_bytes(32)))
    with pytest.raises(ProtocolError, match="a second, different masked input"):
        collector.add(ALL[3], resigned(stage, ALL[3], np.zeros(size, "<u8"), ctx))
    assert collector.faults[-1].evidence
    # One party may lie about its context (T = 1), so that one vector more is kept, and no second one.
    assert len(collector._totals) == 2
    del collector._hashes[0]
    with pytest.raises(ProtocolError, match="a further context"):
        collector.add(ALL[0], resigned(stage, ALL[0], np.zeros(size, "<u8"), secrets.token_bytes(32)))


def test_an_altered_vector_is_seen_before_it_is_published(stage: Stage) -> None:
    stage.begin(but=ALL[3])
    stage.shields[ALL[3]].protect(context(stage.number), contribution())
    ctx = MaskedInput.decode(stage.shields[ALL[0]]._turn.sent.message).ctx
    # Party 3 sends noise under its own signature, and plays along otherwise.
    noise = resigned(stage, ALL[3], np.arange(MANIFEST.words, dtype="<u8"), ctx)
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
        (Contribution(np.zeros(7, np.float32), 1, np.full(1, np.inf)), "metric 'loss'"),
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


# Decisions, erasure, what is kept.


def test_a_decision_is_recorded_before_it_is_acted_upon(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    survivors = stage.survivors()
    shield, broken = stage.shields[ALL[0]], []

    def full(entry: bytes) -> None:
        broken.append(entry)
        raise OSError("disk full")

    journal = shield._session.place.journal
    shield._session.place.journal = full
    with pytest.raises(OSError, match="disk full"):
        shield.reply(survivors.encode())
    with pytest.raises(OSError, match="disk full"):
        shield.reply(stage.quorum(survivors))
    assert shield._turn.released is None
    assert shield._turn._signature == b""
    assert shield._turn._batch.owners(0) == (0, 1, 2, 3)
    shield._session.place.journal = journal
    assert shield.reply(survivors.encode())
    assert shield.reply(stage.quorum(survivors))
    assert len(shield.decisions) == 2
    assert shield.decisions[0] == broken[0] == broken[1]


def test_secrets_are_erased_as_soon_as_they_served() -> None:
    stage = Stage()
    shield = stage.shields[ALL[0]]
    batch = shield._session.batches.find(0)
    held = list(batch._shares[0].values())
    assert all(any(pair) for pair in held)
    survivors = stage.survivors()
    assert 0 not in batch._own
    shield.reply(stage.quorum(survivors))
    assert not any(any(pair) for pair in held)
    assert batch.owners(0) == ()
    later = [pair for number in (1, 2) for pair in batch._shares[number].values()]
    shield.protect(context(3), contribution(9))  # rounds 1 and 2 went by without this party
    assert not any(any(pair) for pair in later)
    assert set(batch._own) == set()
    stage.rehearsal.prepare(4)
    assert shield.covered() == 4
    shield.protect(context(4), contribution(10))
    assert shield._session.batches._ready == [shield._turn._batch]
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(batch)
    assert shield._session.place.sid
    assert not shield._handshake._private


def test_local_state_is_kept_only_on_a_verified_quorum(stage: Stage) -> None:
    survivors = stage.survivors(but=ALL[3])
    shield = stage.shields[ALL[0]]
    assert shield.survivors(stage.number) is None
    shield.reply(survivors.encode())
    assert shield.survivors(stage.number) is None
    shield.reply(stage.quorum(survivors))
    assert shield.survivors(stage.number) == ALL[:3]


# The same input again.


def certificate(stage: Stage, number: int, who: tuple[str, ...]) -> list[bytes]:
    return [stage.shields[name].close(number) for name in who]


def test_the_same_input_is_sent_again_only_with_a_certificate() -> None:
    stage = Stage()
    model = secrets.token_bytes(32)
    for shield in stage.shields.values():
        shield.protect(context(0, model), contribution(3))
    names = ALL[:3]
    with pytest.raises(ProtocolError, match="same input was sent for round 0"):
        stage.shields[ALL[0]].protect(context(1, model), contribution(3))
    promises = certificate(stage, 0, names)
    for shield in stage.shields.values():
        with pytest.raises(ProtocolError, match=r"2 promises .* expected at least 3"):
            shield.reopen(0, promises[:2])
        with pytest.raises(ProtocolError, match="p0001 repeats"):
            shield.reopen(0, [*promises[:2], promises[1]])
        with pytest.raises(ProtocolError, match="another session, round"):
            shield.reopen(1, promises)
        shield.reopen(0, promises)
        shield.protect(context(1, model), contribution(3))


def test_freshly_computed_data_needs_no_certificate_but_a_model_serves_once_more_only() -> None:
    stage = Stage()
    shield, model = stage.shields[ALL[0]], secrets.token_bytes(32)
    shield.protect(context(0, model), contribution(0))
    shield.protect(context(1, model), contribution(1))
    with pytest.raises(ProtocolError, match="2 rounds of purpose 'train'"):
        shield.protect(context(2, model), contribution(2))


def test_who_promised_releases_nothing_and_who_released_promises_nothing(stage: Stage) -> None:
    survivors = stage.survivors()
    promising, releasing = stage.shields[ALL[0]], stage.shields[ALL[1]]
    promising.close(stage.number)
    for message in (survivors.encode(), stage.quorum(survivors)):
        with pytest.raises(ProtocolError, match="promised to release nothing"):
            promising.reply(message)
    releasing.reply(stage.quorum(survivors))
    with pytest.raises(ProtocolError, match="were released"):
        releasing.close(stage.number)
    silent = stage.shields[ALL[2]]
    number = stage.number
    stage.begin()
    assert silent.close(number)
    with pytest.raises(ProtocolError, match="were released"):
        releasing.close(number)


def test_the_same_input_is_not_summed_over_another_set() -> None:
    stage = Stage()
    model = secrets.token_bytes(32)
    order = [replace(context(number, model), purpose="evaluate") for number in range(3)]
    assert stage.rehearsal.sum(order[0], inputs()).parties == ALL
    assert stage.rehearsal.sum(order[1], inputs()).parties == ALL
    with pytest.raises(ProtocolError, match="the difference would show single inputs"):
        stage.rehearsal.sum(order[2], inputs(but=ALL[3]))


# The set-up of a batch.


class SetUp:
    """Four parties between two messages of a batch's set-up."""

    def __init__(self) -> None:
        self.rehearsal = Rehearsal(4, propose_small)
        self.shields = list(self.rehearsal.shields.values())
        self.batch = -1

    def keys(self) -> list[bytes]:
        self.batch += 1
        return [shield.prepare(self.batch, 0) for shield in self.shields]

    def dealt(self) -> list[Dealt]:
        keys = enc_list("keys-list", tuple(self.keys()))
        return [Dealt.decode(shield.absorb(keys)) for shield in self.shields]

    def acks(self) -> list[bytes]:
        dealt = self.dealt()
        return [shield.absorb(turned(dealt, i).encode()) for i, shield in enumerate(self.shields)]


def turned(dealt: list[Dealt], holder: int) -> Dealt:
    return replace(dealt[holder], sealed=tuple(d.sealed[holder] for d in dealt))


@pytest.fixture(scope="module")
def set_up() -> SetUp:
    return SetUp()


def forged(keys: list[bytes], place: int, **changes: object) -> list[bytes]:
    altered = replace(Keys.decode(keys[place]), **changes)
    return [*keys[:place], altered.encode(), *keys[place + 1 :]]


SWAPPED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "Keys of p0002 are not signed by it": lambda k: forged(k, 2, publics=Keys.decode(k[1]).publics),
    "Keys of p0002 are not signed": lambda k: forged(k, 2, signature=bytes(64)),
    "Keys of p0001 are for another session, batch or place": lambda k: [k[0], k[2], k[1], k[3]],
    "expected Keys of 4 parties, found 3": lambda k: k[:3],
    "Keys of p0003 are for another": lambda k: [*k[:3], k[0]],
    "Keys of p0000 are for another": lambda k: forged(k, 0, sid=bytes(32)),
}


@pytest.mark.parametrize("word", SWAPPED)
def test_public_keys_that_were_swapped_are_refused(set_up: SetUp, word: str) -> None:
    keys = set_up.keys()
    shield = set_up.shields[0]
    with pytest.raises(ProtocolError, match=word):
        shield.absorb(enc_list("keys-list", tuple(SWAPPED[word](keys))))
    with pytest.raises(ProtocolError, match="its set-up has failed"):
        shield.absorb(enc_list("keys-list", tuple(keys)))


def signed_by(set_up: SetUp, place: int, keys: Keys) -> bytes:
    return replace(keys, signature=sign(set_up.rehearsal.identities[ALL[place]], keys.statement)).encode()


def test_keys_that_repeat_or_serve_other_rounds_are_refused(set_up: SetUp) -> None:
    for word, change in [
        ("a public key or a commitment repeats", lambda mine, theirs: replace(mine, publics=theirs.publics)),
        ("a public key or a commitment repeats", lambda mine, theirs: replace(mine, commitments=theirs.commitments)),
        ("p0003 sent a public key that shares no secret", lambda mine, _: replace(mine, publics=(bytes(32),) * 4)),
        ("Keys of p0003 are for other rounds", lambda mine, _: replace(mine, rounds=(1, 2, 3, 4))),
    ]:
        keys = set_up.keys()
        altered = change(Keys.decode(keys[3]), Keys.decode(keys[0]))
        with pytest.raises(ProtocolError, match=word):
            set_up.shields[1].absorb(enc_list("keys-list", (*keys[:3], signed_by(set_up, 3, altered))))


def test_a_second_list_of_keys_gets_no_second_shares(set_up: SetUp) -> None:
    keys = set_up.keys()
    shield = set_up.shields[0]
    dealt = shield.absorb(enc_list("keys-list", tuple(keys)))
    assert shield.absorb(enc_list("keys-list", tuple(keys))) == dealt
    mine = Keys.decode(set_up.shields[3].prepare(set_up.batch, 0))
    other = signed_by(set_up, 3, replace(mine, commitments=tuple(secrets.token_bytes(32) for _ in mine.rounds)))
    with pytest.raises(ProtocolError, match="out of turn, or differs"):
        shield.absorb(enc_list("keys-list", (*keys[:3], other)))


def test_shares_that_were_altered_replayed_or_reflected_are_a_named_complaint(set_up: SetUp) -> None:
    old, mine = set_up.dealt(), [b""]
    for word, change in [
        ("channel from p0002", lambda d: replace(d, sealed=(*d.sealed[:2], d.sealed[2][:-1] + b"\0", d.sealed[3]))),
        ("channel from p0002", lambda d: replace(d, sealed=(*d.sealed[:2], old[2].sealed[0], d.sealed[3]))),
        ("channel from p0001", lambda d: replace(d, sealed=(b"", mine[0], *d.sealed[2:]))),
        ("channel from p0001", lambda d: replace(d, sealed=(b"", d.sealed[2], d.sealed[1], d.sealed[3]))),
        ("channel from p0003", lambda d: replace(d, sealed=(*d.sealed[:3], b""))),
        ("expected shares from 4 places", lambda d: replace(d, sealed=d.sealed[:3])),
        ("another session, batch or party", lambda d: replace(d, index=1)),
        ("another session, batch or party", lambda d: replace(d, batch=d.batch - 1)),
    ]:
        fresh = set_up.dealt()
        mine[:] = [fresh[0].sealed[1]]
        with pytest.raises(ProtocolError, match=f"p0000: batch {set_up.batch}: .*{word}"):
            set_up.shields[0].absorb(change(turned(fresh, 0)).encode())


SHARINGS: list[dict[str, object]] = [
    {"batch": 0},
    {"owner": 1},
    {"holder": 2},
    {"abscissa": 7},
    {"pairs": (bytes(66),) * 3},
]


@pytest.mark.parametrize("change", SHARINGS)
def test_shares_for_another_place_are_a_named_complaint(set_up: SetUp, change: dict[str, object]) -> None:
    dealt = set_up.dealt()
    cheat = set_up.shields[3]._session.batches._set_up
    pairs = [bytes(66)] * 4
    sharing = replace(Sharing(set_up.batch, 3, 0, 1, tuple(pairs)), **change)
    cipher = ChaCha20Poly1305(cheat._session.sending[0])
    sealed = cipher.encrypt(cheat._nonce(), sharing.encode(), cheat._associated(3, 0))
    given = turned(dealt, 0)
    with pytest.raises(ProtocolError, match="complaint about p0003"):
        set_up.shields[0].absorb(replace(given, sealed=(*given.sealed[:3], sealed)).encode())


def test_the_full_roster_must_acknowledge_the_same_keys(set_up: SetUp) -> None:
    for word, change in [
        ("each of 4 parties", lambda a: a[:3]),
        ("each of 4 parties", lambda a: [a[0], a[1], a[1], a[3]]),
        ("p0003 acknowledged other Keys", lambda a: [*a[:3], replace(Ack.decode(a[3]), digest=bytes(32)).encode()]),
        ("p0003 acknowledged other Keys", lambda a: [*a[:3], replace(Ack.decode(a[3]), signature=bytes(64)).encode()]),
    ]:
        acks = set_up.acks()
        with pytest.raises(ProtocolError, match=word):
            set_up.shields[0].absorb(enc_list("ack-list", tuple(change(acks))))
        assert set_up.shields[0].covered() == 0
    with pytest.raises(ProtocolError, match="round 0 has no keys"):
        set_up.shields[0].protect(context(0), contribution())


def test_batches_only_go_forward() -> None:
    rehearsal = Rehearsal(4, propose_small)
    rehearsal.prepare(0)
    shield = rehearsal.shields[ALL[0]]
    with pytest.raises(ProtocolError, match="batch numbers only grow: 0 after 0"):
        shield.prepare(0, 4)
    with pytest.raises(ProtocolError, match="begins at round 3, expected 4 or later"):
        shield.prepare(1, 3)
    rehearsal.prepare(4)
    assert shield.covered() == 8
    rehearsal.prepare(8)  # the others are at batch 1: this party has missed the rest of batch 0
    assert shield.covered() == 8
    with pytest.raises(ProtocolError, match="round 3 is over"):
        shield.protect(context(3), contribution())
    shield.protect(context(4), contribution())
    with pytest.raises(ProtocolError, match="round 99 has no keys"):
        shield.protect(context(99), contribution())
    with pytest.raises(ProtocolError, match="one view, the whole roster"):
        shield.join(View(1, ALL[:3]))
    shield.join(View(0, ALL))


def test_a_restarted_party_has_no_keys_and_no_past() -> None:
    stage = Stage()
    survivors = stage.survivors()
    old = stage.shields[ALL[0]]
    of = stage.rehearsal
    reborn = RecoveryShield(of.config, ALL[0], of.identities[ALL[0]], of.roster, Policy(), ModelMemory())
    for call in (
        lambda: reborn.protect(context(1), contribution()),
        lambda: reborn.prepare(1, 4),
        lambda: reborn.reply(survivors.encode()),
    ):
        with pytest.raises(ProtocolError, match=r"set-up is not finished|no round is under way"):
            call()
    assert reborn.hello() != old.hello()


# The coordinator's own checks.


def test_the_relay_names_who_sent_what_it_should_not() -> None:
    rehearsal = Rehearsal(4, propose_small)
    server, shields = rehearsal.server, rehearsal.shields
    keys = {name: shield.prepare(0, 0) for name, shield in shields.items()}
    server.add_set_up(ALL[0], 0, keys[ALL[0]])
    server.add_set_up(ALL[0], 0, keys[ALL[0]])
    with pytest.raises(ProtocolError, match="p0000: a second, different message"):
        server.add_set_up(ALL[0], 0, keys[ALL[1]])
    assert server.awaited(0) == set(ALL[1:])
    with pytest.raises(ProtocolError, match="exchange 0 of the set-up of batch 0 is not over"):
        server.set_up_answer(0, 0, ALL[0])
    for name in ALL[1:]:
        server.add_set_up(name, 0, keys[name])
    server.add_set_up(ALL[2], 0, keys[ALL[2]])  # sent again, after the exchange was over
    dealt = {name: shield.absorb(server.set_up_answer(0, 0, name)) for name, shield in shields.items()}
    with pytest.raises(ProtocolError, match="p0001: its shares are for another"):
        server.add_set_up(ALL[1], 0, dealt[ALL[2]])
    for name in ALL:
        server.add_set_up(name, 0, dealt[name])
    acks = {name: shield.absorb(server.set_up_answer(0, 1, name)) for name, shield in shields.items()}
    with pytest.raises(ProtocolError, match="p0001 acknowledged other Keys"):
        server.add_set_up(ALL[1], 0, acks[ALL[2]])
    with pytest.raises(ProtocolError, match="not signed by it"):
        server.add_set_up(ALL[1], 0, replace(Ack.decode(acks[ALL[1]]), signature=bytes(64)).encode())
    with pytest.raises(ProtocolError, match="round 0 has no keys"):
        server.collector(View(0, ALL), 0, MANIFEST)
    with pytest.raises(ProtocolError, match="one view"):
        server.collector(View(1, ALL[:3]), 0, MANIFEST)


def test_a_round_is_aborted_for_a_listed_reason(stage: Stage) -> None:
    stage.begin()
    collector = stage.rehearsal.server.collector(View(0, ALL), stage.number, MANIFEST)
    for name in ALL[:2]:
        collector.add(name, stage.shields[name]._turn.sent.message)
    assert not collector.sufficient()
    with pytest.raises(ProtocolError, match="aborted: 2 survivors, expected at least 3"):
        collector.advance()
    for name in ALL[2:]:
        collector.add(name, stage.shields[name]._turn.sent.message)
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
    assert len(collector.transcript) == 32
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
