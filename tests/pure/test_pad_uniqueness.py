# SPDX-License-Identifier: Apache-2.0
"""No stretch of keystream is ever laid over two vectors: recorded over retries, failures, views and restarts."""

import random
from collections import defaultdict
from contextlib import suppress

import numpy as np
import pytest
from pure.masking_kit import context_of, identities, manifest_of, plain_values, session

from fedray.errors import ProtocolError
from fedray.protocol.checks import secret
from fedray.protocol.crypto import keystream
from fedray.protocol.masking.pair_keys import PairKeys
from fedray.protocol.masking.shield import MaskingShield
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import View


class Recorder:
    """Stands for the ciphers: notes which bytes of which key each party used, and makes the real stream."""

    def __init__(self):
        self.owner = ""
        self.ranges = defaultdict(list)

    def __call__(self, key):
        recorder, real = self, keystream._counter_mode(key)
        owner, place = self.owner, 0

        class Stream:
            def update_into(self, zeros, target):
                nonlocal place
                recorder.ranges[owner, key].append((place, place + len(zeros)))
                place += len(zeros)
                return real.update_into(zeros, target)

            def update(self, zeros):
                found = bytearray(len(zeros) + 16)
                self.update_into(zeros, found)
                return bytes(found[: len(zeros)])

        return Stream()

    def overlaps(self):
        found = []
        for used, ranges in self.ranges.items():
            end = 0
            for start, stop in sorted(ranges):
                found += [used] * (start < end)
                end = max(end, stop)
        return found


class Unrecorded(keystream.Keystream):
    def __init__(self, key):
        self._stream = keystream._counter_mode(key)


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setitem(keystream.CIPHERS, "recorded", recorder)
    monkeypatch.setattr(keystream, "CIPHER", "recorded")
    # The coefficients of a round are one stream for everybody, and lie over nothing.
    monkeypatch.setattr(secret, "Keystream", Unrecorded)
    return recorder


def drive(recorder, steps, seed, shield=MaskingShield):
    """A coordinator and parties that do anything in any order: rounds, repeats, NaN, views, new sessions."""
    dice = random.Random(seed)
    policy = Policy(colluders=0, n_min=2, two_party="always", rounds={"train": 1000}, allow_other_members=True)
    kit = session(4, policy=policy, keys=identities(4), colluders=0, n_min=2)
    number, sent = 0, 0
    for _ in range(steps):
        name = dice.choice(kit.names)
        recorder.owner = name
        kit.shields[name].__class__ = shield
        act = dice.random()
        with suppress(ProtocolError):
            if act < 0.03:
                kit = kit.again(policy)
                number = 0
            elif act < 0.08:
                members = tuple(sorted(dice.sample(kit.names, 3)))
                kit.shields[name].join(View(dice.randrange(1, 4), members))
            else:
                number = max(0, number + dice.choice([0, 0, 0, 1, 1, 2, -1]))
                manifest = manifest_of(dice.choice([1, 5, 70_000]))
                values = np.full(manifest.size, 0.5)
                values[-1] = np.nan if dice.random() < 0.2 else 0.5
                model = bytes([dice.randrange(250)]) * 32 if dice.random() < 0.3 else None
                kit.send(name, context_of(number, manifest, model), plain_values(values))
                sent += 1
    return sent


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_no_pad_is_used_twice(recorder, seed):
    sent = drive(recorder, 250, seed)
    assert sent > 40
    assert len(recorder.ranges) > 80
    assert recorder.overlaps() == []


def test_each_pad_has_two_ends_at_most(recorder):
    drive(recorder, 250, 9)
    owners = defaultdict(set)
    for owner, key in recorder.ranges:
        owners[key].add(owner)
    assert max(map(len, owners.values())) == 2


class Kept(PairKeys):
    """Broken on purpose: the keys of a round are there as long as no later one is used."""

    def pad(self, vid, number, ctx, size, bits):
        self.due = number
        return super().pad(vid, number, ctx, size, bits)

    def step_to(self, number):
        if number <= self.due:
            super().step_to(number)


class Forgetful(MaskingShield):
    """Broken on purpose: masks again what was asked again, as a retried remote call would without a cache."""

    def protect(self, context, contribution):
        self._pair_keys.__class__ = Kept
        if context.number < self.rounds.next:
            self.rounds.next, self.rounds._previous = context.number, self.rounds._before
        return super().protect(context, contribution)


class Lenient(MaskingShield):
    """Broken on purpose: lets a round be tried again after its encoding failed half-way."""

    def protect(self, context, contribution):
        self._pair_keys.__class__ = Kept
        kept, self.rounds.skip = self.rounds.skip, lambda _: None
        try:
            return super().protect(context, contribution)
        finally:
            self.rounds.skip = kept


@pytest.mark.parametrize("shield", [Forgetful, Lenient])
def test_the_recorder_finds_a_shield_that_masks_again(recorder, shield):
    drive(recorder, 250, 1, shield)
    assert recorder.overlaps()
