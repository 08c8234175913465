# SPDX-License-Identifier: Apache-2.0
"""Mistakes that other systems made (SECAGG section 14): each is made here on purpose, and seen to matter.

Those about short seeds, moduli, tails in clear, share thresholds, both shares, unsigned keys and retried calls stand in
`test_masking_leaks`, `test_recovery_leaks` and `test_pad_uniqueness`.
"""

from dataclasses import replace

import numpy as np
import pytest
from pure.masking_kit import context_of, manifest_of, plain_values, session

from fedray.errors import EncodingError, NotFinite, ProtocolError
from fedray.protocol import fixed_point
from fedray.protocol.config import Encoding
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.masking.pair_keys import PairKeys

MANIFEST = manifest_of(2)


def opened(contributions, encoding=None):
    kit = session(3, encoding=encoding)
    return kit.round(context_of(0, MANIFEST), dict(zip(kit.names, contributions, strict=True)))


# A generator that keeps its position, so that one missed call desynchronises every later round.


class Positioned(PairKeys):
    """Broken on purpose: its keys go forward by calls, as a generator does that keeps its position."""

    def pad(self, vid, number, ctx, size, bits):
        return super().pad(vid, self.next, ctx, size, bits)

    def step_to(self, number):
        super().step_to(self.next + (number > self.next))


@pytest.mark.parametrize("keys", [Positioned, PairKeys])
def test_a_missed_call_desynchronises_keys_that_count_calls(keys):
    kit = session(3)
    for one in kit.shields.values():
        one._pair_keys.__class__ = keys
    for name, numbers in {"p00": (0, 3), "p01": (0, 1, 2, 3)}.items():
        for number in numbers:
            kit.send(name, context_of(number, MANIFEST), plain_values(np.zeros(2)))
    ends = kit.shields["p00"]._pair_keys._keys[1], kit.shields["p01"]._pair_keys._keys[0]
    assert (ends[0] == ends[1]) == (keys is PairKeys)


# Encoders that turn NaN and infinities into a number without a word.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_encoder_that_truncates_opens_a_number_that_nobody_sent(value, monkeypatch):
    contributions = [plain_values([value, 1.0]), plain_values([1.0, 1.0]), plain_values([1.0, 1.0])]
    with pytest.raises(NotFinite, match="p00: tensor 'w'"):
        opened(contributions)

    encode = Encoder._encode_reals

    def truncating(self, words, a, b, place):
        self._values = np.nan_to_num(self._values, nan=0.0, posinf=0.0, neginf=0.0)
        encode(self, words, a, b, place)

    monkeypatch.setattr(Encoder, "_encode_reals", truncating)
    assert list(opened(contributions).values) == [pytest.approx(2 / 3), 1.0]


# Negative floats cast straight to unsigned integers: what comes out depends on the processor.


def test_a_cast_that_saturates_loses_what_is_negative(monkeypatch):
    contributions = [plain_values([value, -value]) for value in (-3.0, 1.0, 0.5)]
    assert list(opened(contributions).values) == [-0.5, 0.5]

    def straight(self, words, a, b, place):
        del place
        real = np.rint(np.ldexp(self._values[a:b], 57 - 16))
        np.copyto(words, np.maximum(real, 0).astype(words.dtype))  # as some processors cast; others wrap

    monkeypatch.setattr(Encoder, "_encode_reals", straight)
    assert list(opened(contributions).values) == [0.5, 1.0]


# No limit on overweight parties.


def overweight(monkeypatch, weight):
    """Lets a party encode with a weight beyond the bound."""
    encode = Encoder._encode_tail

    def unlimited(self, contribution):
        tail = encode(self, replace(contribution, weight=min(contribution.weight, 2)))
        tail[0] = contribution.weight
        return tail

    monkeypatch.setattr(Encoder, "_encode_tail", unlimited)
    return [plain_values([9.0, 9.0], weight), plain_values([1.0, 1.0]), plain_values([1.0, 1.0])]


def test_a_party_beyond_the_weight_bound_is_refused_at_home_and_at_the_server(monkeypatch):
    encoding = Encoding(weight_bound=2)
    with pytest.raises(EncodingError, match="expected an integer weight of 0 to 2"):
        opened([plain_values([9.0, 9.0], 1000)] + [plain_values([1.0, 1.0])] * 2, encoding)
    contributions = overweight(monkeypatch, 1000)
    with pytest.raises(ProtocolError, match="the weight in the sum is beyond what the parties may send"):
        opened(contributions, encoding)
    monkeypatch.setattr(fixed_point, "check_range", lambda *_: 0)
    assert opened(contributions, encoding).values[0] == pytest.approx(9.0, abs=0.02), "one party's values, not a mean"
