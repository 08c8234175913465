# SPDX-License-Identifier: Apache-2.0
"""Masking broken on purpose, one rule at a time: each time a party's input is seen, and as it stands it is not."""

import dataclasses
import hashlib
import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pure.masking_kit import Kit, context_of, encode, identities, manifest_of, plain_values, roster_of, session

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol import handshake, messages
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import exchange, kdf, public_bytes
from fedray.protocol.crypto.keystream import Keystream, Pad, scratch
from fedray.protocol.handshake import introduce
from fedray.protocol.masking import pair_keys
from fedray.protocol.masking.frame import Masked
from fedray.protocol.masking.pair_keys import PairKeys
from fedray.protocol.messages import Confirm, Hello, digest, enc
from fedray.protocol.pipeline import run
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import View

MANIFEST = manifest_of(40, counts=["rows"])
INPUT = plain_values(np.linspace(-2, 2, 40), 7, [3.0])
ZEROS = plain_values(np.zeros(40), 7, [0.0])
ENCODING = Encoding(weight_bound=10)
VALUES = len(INPUT.values)


def clear(kit, contribution=INPUT):
    """The words that the mask is to hide."""
    return encode(kit.config.encoding, kit.config.parties, MANIFEST, contribution)


def opened(kit, message, roots, view=None, number=0):
    """Takes the pads off p00's vector that follow from the given pair keys: all of them have the larger index."""
    masked = Masked.decode(message)
    words = masked.words.copy()
    keys = [
        kdf(root, masked.sid, enc("viewpair", masked.vid, number, 0, j, masked.ctx, len(words), 64))
        for j, root in roots.items()
    ]
    run(words, Pad([], keys).apply)
    return words


# Keys that the server relays.


class Between:
    """A server that shows each party keys of its own in place of the others'."""

    def __init__(self, kit, victim):
        self.kit, self.place = kit, kit.names.index(victim)
        others = [i for i in range(len(kit.names)) if i != self.place]
        self.keys = {i: X25519PrivateKey.generate() for i in others}
        self.reveals = {i: bytes([i]) * 32 for i in others}

    def hellos(self, own):
        forged = [
            Hello(self.kit.config.hash, i, public_bytes(key), digest("commit", i, self.reveals[i]), bytes(64)).encode()
            for i, key in self.keys.items()
        ]
        return [*forged[: self.place], own, *forged[self.place :]]

    def confirms(self, own):
        sid = Confirm.decode(own).sid
        forged = [Confirm(sid, i, reveal, b"", bytes(64)).encode() for i, reveal in self.reveals.items()]
        return [*forged[: self.place], own, *forged[self.place :]]

    def roots(self, hello, sid):
        public = Hello.decode(hello).public
        return {
            i: kdf(exchange(key, public), sid, enc("pairroot", min(i, self.place), max(i, self.place)))
            for i, key in self.keys.items()
        }


def unstarted(parties):
    keys = identities(parties)
    roster = roster_of(keys)
    kit = Kit(Config.propose("masking", roster, ["server"], ENCODING), roster, keys)
    kit.joinings = {name: kit.joining(name) for name in kit.names}
    return kit


def test_without_signatures_on_keys_the_server_reads_every_input(monkeypatch):
    kit = unstarted(3)
    joining, server = kit.joinings["p00"], Between(kit, "p00")
    with pytest.raises(ProtocolError, match="not signed"):
        joining.confirm(server.hellos(joining.hello()))

    monkeypatch.setattr(handshake, "verify", lambda *_: True)
    kit = unstarted(3)
    joining, server = kit.joinings["p00"], Between(kit, "p00")
    own = joining.confirm(server.hellos(joining.hello()))
    kit.shields["p00"] = joining.start(server.confirms(own))
    message = kit.send("p00", context_of(0, MANIFEST), INPUT)
    roots = server.roots(joining.hello(), Confirm.decode(own).sid)
    assert np.array_equal(opened(kit, message, roots), clear(kit))


# Keys that do not step forward.


class Standing(PairKeys):
    """Broken on purpose: one pair key for all rounds of a session."""

    def step_to(self, number):
        self.next = max(self.next, number)


@pytest.mark.parametrize("keys", [Standing, PairKeys])
def test_without_the_ratchet_keys_stolen_later_open_past_rounds(keys):
    kit = session(3, encoding=ENCODING)
    for one in kit.shields.values():
        one._pair_keys.__class__ = keys
    message = kit.send("p00", context_of(0, MANIFEST), INPUT)
    kit.send("p00", context_of(1, MANIFEST), ZEROS)
    stolen = kit.shields["p00"]._pair_keys._keys
    assert np.array_equal(opened(kit, message, stolen), clear(kit)) == (keys is Standing)


# Views.


def two_sums_of_one_round(kit):
    """Shows one half of the parties one view and the other half another one, for the same round."""
    halves = [View(1, kit.names[:2]), View(1, kit.names[2:])]
    sums = []
    for view in halves:
        kit.join(view)
        sums.append(kit.round(context_of(0, MANIFEST), dict.fromkeys(view.members, INPUT), view))
    return sums


def test_without_a_quorum_one_round_opens_two_sums(monkeypatch):
    policy = Policy(n_min=2, colluders=0, two_party="always")
    with pytest.raises(ProtocolError, match="too small, its policy and quorum require 3"):
        two_sums_of_one_round(session(4, encoding=ENCODING, policy=policy, colluders=0, n_min=2))
    monkeypatch.setattr(Config, "least_members", property(lambda _: 2))
    sums = two_sums_of_one_round(session(4, encoding=ENCODING, policy=policy, colluders=0, n_min=2))
    assert [s.parties for s in sums] == [("p00", "p01"), ("p02", "p03")]


def test_a_memory_that_forgets_lets_two_sessions_show_one_input():
    whole = session(4, encoding=ENCODING)
    inputs = dict.fromkeys(whole.names, ZEROS) | {"p03": INPUT}
    first = whole.round(context_of(0, MANIFEST), inputs)
    keys = {name: whole.keys[name] for name in whole.names[:3]}
    rest = {name: inputs[name] for name in keys}
    careful = session(3, encoding=ENCODING, keys=keys, memories=whole.memories)
    with pytest.raises(ProtocolError, match="the difference of the two could show one party's input"):
        careful.round(context_of(0, MANIFEST), rest)
    second = session(3, encoding=ENCODING, keys=keys).round(context_of(0, MANIFEST), rest)
    assert first.metrics - second.metrics == INPUT.metrics
    assert first.weight - second.weight == INPUT.weight
    difference = first.values * first.weight - second.values * second.weight
    np.testing.assert_allclose(difference / INPUT.weight, INPUT.values, atol=1e-8)


# Masks that hide too little.


class Modular(Pad):
    """Broken on purpose: masks are taken mod 2, as a server might have asked."""

    def apply(self, words, start):
        mask = np.zeros_like(words)
        super().apply(mask, start)
        words += mask & 1


class Untailed(Pad):
    """Broken on purpose: weight and metrics travel beside the masked values."""

    def apply(self, words, start):
        super().apply(words[:VALUES], start)


def in_clear(pad, monkeypatch):
    """Returns which words of a vector leave within a millionth of the ring of what they hide."""
    kit = session(3, encoding=ENCODING)
    monkeypatch.setattr(pair_keys, "Pad", pad)
    words = Masked.decode(kit.send("p00", context_of(0, MANIFEST), INPUT)).words
    distance = (words - clear(kit)).view(np.int64).astype(float)
    return set(np.flatnonzero(np.abs(distance) < 2.0**43).tolist())


def test_no_word_leaves_near_what_it_hides(monkeypatch):
    everything = set(range(MANIFEST.words(3)))
    assert in_clear(Pad, monkeypatch) == set()
    assert in_clear(Modular, monkeypatch) == everything
    assert in_clear(Untailed, monkeypatch) == everything - set(range(VALUES))


def folded(key):
    """A key of which 12 bits are left, hashed to its length: a search of 2^12 in place of the 2^32 of the fault."""
    left, *rest = struct.unpack(">16H", key)
    for part in rest:
        left ^= part
    return hashlib.sha256((left >> 4).to_bytes(2, "big")).digest()


class Folded(Pad):
    """Broken on purpose: keys are folded to a few bits before they seed a generator."""

    def __init__(self, plus, minus):
        super().__init__([folded(k) for k in plus], [folded(k) for k in minus])


def found_by_search(message):
    """Tries every short key until the last word is the constant 1 that it must be; returns the vectors found."""
    masked = Masked.decode(message)
    buffer, size, found = scratch(), masked.words.nbytes, []
    for left in range(1 << 12):
        Keystream(hashlib.sha256(left.to_bytes(2, "big")).digest()).fill(buffer, size)
        if int(masked.words[-1]) - int(buffer[size - 8 : size].view("<u8")[0]) == 1:
            found.append(masked.words - buffer[:size].view("<u8"))
    return found


def test_masks_from_short_seeds_are_found_by_search(monkeypatch):
    for pad, hits in ((Pad, 0), (Folded, 1)):
        monkeypatch.setattr(pair_keys, "Pad", pad)
        kit = session(2, encoding=ENCODING)
        found = found_by_search(kit.send("p00", context_of(0, MANIFEST), INPUT))
        assert len(found) == hits
        assert all(np.array_equal(words, clear(kit)) for words in found)


# Keys and settings that leave a session's name out.


def test_one_hello_in_two_sessions_would_open_a_commitment_early():
    """A party that confirmed twice would have shown its half of the graph's seed before the others were bound."""

    class Twice(handshake.Handshake):
        def _enter(self, stage, otherwise):
            self._stage = "failed"

        def _exchange(self, publics):
            """Forgets no key, so that there is something to confirm a second time."""
            kept = self._private
            super()._exchange(publics)
            self._private = kept

    kit, other = unstarted(3), unstarted(3)
    hellos = [kit.joinings[name].hello() for name in kit.names]
    joining = kit.joinings["p00"]
    joining.confirm(hellos)
    second = [hellos[0], *[_resigned(kit, other, name) for name in kit.names[1:]]]
    with pytest.raises(ProtocolError, match="a Hello serves one session"):
        joining.confirm(second)
    broken = unstarted(3)
    joining = broken.joinings["p00"]
    joining.__class__ = Twice
    hellos = [broken.joinings[name].hello() for name in broken.names]
    first = Confirm.decode(joining.confirm(hellos))
    second = [hellos[0], *[_resigned(broken, unstarted(3), name) for name in broken.names[1:]]]
    again = Confirm.decode(joining.confirm(second))
    assert first.sid != again.sid
    assert first.reveal == again.reveal


def _resigned(kit, source, name):
    """Another Hello of a party for the same Config, from keys of its own choice: a colluder picks it late."""
    other = Hello.decode(source.joinings[name].hello())
    changed = dataclasses.replace(other, config=kit.config.hash)
    return dataclasses.replace(changed, signature=kit.keys[name].sign(changed.statement)).encode()


# Decoders.


def test_a_decoder_that_forgives_would_be_found(monkeypatch):
    """Two byte strings for one statement: hashes and signatures would no longer say which one was meant."""
    kit = unstarted(3)
    hello = kit.joinings["p00"].hello()
    assert Hello.decode(hello).encode() == hello
    with pytest.raises(EncodingError, match="too many"):
        Hello.decode(hello + b"x")
    strict = messages._split
    monkeypatch.setattr(messages, "_split", lambda purpose, data: strict(purpose, data[: len(hello)]))
    assert Hello.decode(hello + b"x").encode() != hello + b"x"


def test_the_demonstrations_begin_with_a_sum_that_opens():
    kit = unstarted(3)
    kit.shields |= zip(kit.names, introduce([kit.joinings[name] for name in kit.names]), strict=True)
    assert kit.round(context_of(0, MANIFEST), dict.fromkeys(kit.names, INPUT)).parties == kit.names
