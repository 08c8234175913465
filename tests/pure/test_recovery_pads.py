# SPDX-License-Identifier: Apache-2.0
"""No stretch of keystream of recovery is laid over two vectors, no key is short, and masked words look like noise."""

from __future__ import annotations

import hashlib
import random
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from itertools import pairwise
from operator import xor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedray.errors import ProtocolError
from fedray.protocol.checks import secret
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto import keystream
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.policy import Policy
from fedray.protocol.recovery.key_batch import KeyBatch
from fedray.protocol.recovery.pads import PadScope, RoundSecrets
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.recovery.round_messages import MaskedInput
from fedray.protocol.recovery.shield import RecoveryShield
from fedray.protocol.recovery.thresholds import propose
from fedray.protocol.scheme import Contribution, RoundContext

POLICY = Policy(rounds={"train": 1000}, allow_other_members=True)


def configure(roster: Roster) -> Config:
    return propose(roster, ["server"], Encoding(), batch=5)


def manifest_of(size: int) -> Manifest:
    return Manifest((Tensor("values", (size,), "float64"),))


class Recorder:
    """Stands for the ciphers: notes which bytes of which key each party used, and makes the real stream."""

    def __init__(self) -> None:
        self.owner = "server"
        self.ranges: dict[tuple[str, bytes], list[tuple[int, int]]] = defaultdict(list)

    def __call__(self, key: bytes) -> Any:
        ranges, real, place = self.ranges[self.owner, key], keystream._counter_mode(key), 0

        class Stream:
            def update_into(self, zeros: bytes, target: NDArray[np.uint8]) -> Any:
                nonlocal place
                ranges.append((place, place + len(zeros)))
                place += len(zeros)
                return real.update_into(zeros, target)

            def update(self, zeros: bytes) -> bytes:
                found = bytearray(len(zeros) + 16)
                self.update_into(zeros, found)
                return bytes(found[: len(zeros)])

        return Stream()

    def overlaps(self) -> list[tuple[str, bytes]]:
        found = []
        for used, ranges in self.ranges.items():
            found += [used for before, after in pairwise(sorted(ranges)) if after[0] < before[1]]
        return [used for used in found if used[0] != "server"]


class Unrecorded(keystream.Keystream):
    def __init__(self, key: bytes) -> None:
        self._stream = keystream._counter_mode(key)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setitem(keystream.CIPHERS, "recorded", made)
    monkeypatch.setattr(keystream, "CIPHER", "recorded")
    # The coefficients of a round are one stream for everybody, and lie over nothing.
    monkeypatch.setattr(secret, "Keystream", Unrecorded)
    return made


def drive(recorder: Recorder, steps: int, seed: int) -> int:
    """Parties and a coordinator that do anything in any order: rounds, repeats, NaN, batches, sums, new sessions."""
    dice, sent = random.Random(seed), 0
    rehearsal, number, ready = Rehearsal(4, configure, POLICY), 0, 0
    for _ in range(steps):
        act, name = dice.random(), dice.choice(rehearsal.names)
        with suppress(ProtocolError):
            if act < 0.02:
                rehearsal, number, ready = Rehearsal(4, configure, POLICY), 0, 0  # everybody was restarted
            elif act < 0.1 or number >= ready:
                rehearsal.prepare(ready)
                ready += 5
            elif act < 0.2:
                number += 1
                manifest = manifest_of(3)
                inputs = {n: Contribution(np.ones(3), 1, np.ones(0)) for n in rehearsal.names if dice.random() < 0.9}
                rehearsal.sum(RoundContext(number, dice.randbytes(32), b"", manifest), inputs)
            else:
                number = max(0, number + dice.choice([0, 0, 0, 1, 2, -1]))
                manifest = manifest_of(dice.choice([1, 5, 70_000]))
                values = np.full(manifest.size, 0.5)
                values[-1] = np.nan if dice.random() < 0.2 else dice.random()
                context = RoundContext(number, bytes([dice.randrange(3)]) * 32, b"", manifest)
                rehearsal.shields[name].protect(context, Contribution(values, 1, np.ones(0)))
                sent += 1
    return sent


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> Recorder:
    """The recorder, told by every shield whose keystream is being made."""

    def protect(shield: RecoveryShield, *arguments: Any) -> Any:
        recorder.owner = f"{id(shield)} {shield._member.name}"
        kept.append(shield)
        try:
            return original(shield, *arguments)
        finally:
            recorder.owner = "server"

    original, kept = RecoveryShield.protect, list[RecoveryShield]()
    monkeypatch.setattr(RecoveryShield, "protect", protect)
    return recorder


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_no_pad_is_used_twice(watched: Recorder, seed: int) -> None:
    sent = drive(watched, 200, seed)
    assert sent > 40
    assert len(watched.ranges) > 200
    assert watched.overlaps() == []
    ends: dict[bytes, set[str]] = defaultdict(set)
    for owner, key in watched.ranges:
        if owner != "server":
            ends[key].add(owner)
    assert max(map(len, ends.values())) == 2


def hoard(batch: KeyBatch, number: int) -> tuple[RoundSecrets, Mapping[int, bytes]]:
    return batch._own[number], batch._around[number]


def test_the_recorder_finds_a_shield_that_masks_again(watched: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(shield: RecoveryShield, *arguments: Any) -> Any:
        shield._round, shield._batches.next = None, 0
        return protect(shield, *arguments)

    protect = RecoveryShield.protect
    monkeypatch.setattr(RecoveryShield, "protect", forgetful)
    monkeypatch.setattr(KeyBatch, "take", hoard)
    monkeypatch.setattr(KeyBatch, "erase", lambda *_: None)
    drive(watched, 200, 1)
    assert watched.overlaps()


# Seeds that are too short.

SCOPE = PadScope(b"s" * 32, b"d" * 32, 7, b"c" * 32, 10, 64)


def pads_that_meet(keys: Sequence[bytes | int]) -> int:
    """How many pads are another one's as well: where there are any, a search of that size opens vectors."""
    return len(keys) - len(set(keys))


def folded(key: bytes, bits: int) -> int:
    """A key folded to 32 bits and cut to `bits`, as if it were to seed a generator that takes no more."""
    return reduce(xor, struct.unpack(">8I", key)) >> (32 - bits)


@pytest.mark.parametrize("bits", [24, pytest.param(32, marks=pytest.mark.slow)])
def test_short_keys_are_found_by_search_and_ours_are_not(bits: int) -> None:
    draws = 1 << (bits // 2 + 1)
    keys = [SCOPE.self_key(hashlib.sha256(i.to_bytes(4, "big")).digest(), 0) for i in range(draws)]
    assert pads_that_meet(keys) == 0
    assert pads_that_meet([folded(key, bits) for key in keys]) > 0


def pair_key(scope: PadScope, mine: RoundSecrets, theirs: RoundSecrets, index: int, other: int) -> bytes:
    return scope.pair_keys(mine.private, {other: theirs.public}, index)[other]


def test_every_word_of_the_scope_changes_every_key() -> None:
    own, other = RoundSecrets(), RoundSecrets()
    scopes = [
        SCOPE,
        PadScope(b"S" * 32, SCOPE.batch_digest, 7, SCOPE.ctx, 10, 64),
        PadScope(SCOPE.sid, b"D" * 32, 7, SCOPE.ctx, 10, 64),
        PadScope(SCOPE.sid, SCOPE.batch_digest, 8, SCOPE.ctx, 10, 64),
        PadScope(SCOPE.sid, SCOPE.batch_digest, 7, b"C" * 32, 10, 64),
        PadScope(SCOPE.sid, SCOPE.batch_digest, 7, SCOPE.ctx, 11, 64),
        PadScope(SCOPE.sid, SCOPE.batch_digest, 7, SCOPE.ctx, 10, 32),
    ]
    keys = [scope.self_key(own.seed, 0) for scope in scopes]
    keys += [pair_key(scope, own, other, 0, 1) for scope in scopes]
    keys += [SCOPE.self_key(own.seed, 1), pair_key(SCOPE, own, other, 0, 2)]
    assert len(set(keys)) == len(keys)
    assert pair_key(SCOPE, own, other, 0, 1) == pair_key(SCOPE, other, own, 1, 0)


# Masked words, with a fixed rate of false alarms.


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_masked_words_and_their_partial_sums_look_like_noise(bits: int, value: float) -> None:
    size = 1 << 16
    manifest = manifest_of(size)
    rehearsal = Rehearsal(4, lambda roster: propose(roster, ["server"], Encoding(bits), batch=1))
    rehearsal.prepare(0)
    inputs = {name: Contribution(np.full(size, value), 1, np.ones(0)) for name in rehearsal.names}
    rehearsal.begin(RoundContext(0, bytes(32), b"", manifest), inputs)
    vectors = [MaskedInput.decode(shield._round.sent.message).words for shield in rehearsal.shields.values()]
    partial = vectors[0] + vectors[1] + vectors[2]
    for words in (vectors[0], partial, vectors[0] + vectors[1], np.sum(vectors, axis=0, dtype=partial.dtype)):
        found = words.view(np.uint8)
        counts = np.bincount(found, minlength=256)
        expected = len(found) / 256
        # 255 degrees of freedom: mean 255, deviation 22.6; six deviations come less than once in 10^6 such tests.
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 6 * 22.6
        centred = found.astype(np.float64) - 127.5
        serial = (centred[1:] * centred[:-1]).mean() / centred.var()
        assert abs(serial) < 6 / np.sqrt(len(found))
        uniform = np.sort(words.astype(np.float64) / 2.0**bits)
        distance = np.abs(uniform - np.arange(len(uniform)) / len(uniform)).max()
        assert distance < 3.2 / np.sqrt(len(uniform))  # Kolmogorov-Smirnov, 2 exp(-2 * 3.2^2) = 3e-9
