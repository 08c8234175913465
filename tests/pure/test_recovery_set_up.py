# SPDX-License-Identifier: Apache-2.0
"""The set-up of a batch of keys, among a coordinator and parties that lie."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from pure.recovery_kit import ALL, MANIFEST, Stage, context, contribution, covered, propose_small

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import sign
from fedray.protocol.handshake import introduce
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.messages import enc_list
from fedray.protocol.policy import Policy
from fedray.protocol.recovery.key_messages import Ack, Dealt, Keys, Sharing
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.recovery.shield import RecoveryShield
from fedray.protocol.scheme import View


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


def flipped(sealed: bytes) -> bytes:
    """Returns other bytes, whatever the last one is."""
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def test_shares_that_were_altered_replayed_or_reflected_are_a_named_complaint(set_up: SetUp) -> None:
    old, mine = set_up.dealt(), [b""]
    for word, change in [
        ("channel from p0002", lambda d: replace(d, sealed=(*d.sealed[:2], flipped(d.sealed[2]), d.sealed[3]))),
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
    cheat = set_up.shields[3]._batches._set_up
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
        assert covered(set_up.shields[0]) == 0
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
    assert covered(shield) == 8
    rehearsal.prepare(8)  # the others are at batch 1: this party has missed the rest of batch 0
    assert covered(shield) == 8
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
    members = [Member(name, of.identities[name], of.roster, Policy(), ModelMemory()) for name in of.names]
    joinings = [RecoveryShield.joining(of.config, member) for member in members]
    again = RecoveryShield.joining(of.config, members[0])
    assert again.hello() != joinings[0].hello()
    with pytest.raises(ProtocolError, match="Confirms were not expected now"):
        again.start([b""] * 4)
    reborn = introduce(joinings)[0]
    assert reborn._session.keys.sid != old._session.keys.sid
    for call in (
        lambda: reborn.protect(context(1), contribution()),
        lambda: reborn.reply(survivors.encode()),
        lambda: reborn.absorb(survivors.encode()),
    ):
        with pytest.raises(ProtocolError, match=r"has no keys|no round is under way|no batch is being prepared"):
            call()


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
