# SPDX-License-Identifier: Apache-2.0
"""What a server sees looks like noise: bytes of masked vectors and of partial sums, with a fixed false-alarm rate.

Each test fails by chance once in about 10^9 runs. Broken variants show that the tests see what they should.
"""

import math

import numpy as np
import pytest
from pure.masking_kit import context_of, manifest_of, plain_values, session

from fedray.protocol.config import Encoding
from fedray.protocol.masking import pair_keys
from fedray.protocol.masking.frame import Masked

SIZE = 200_000
SIGMAS = 6.1
"""A normal deviate beyond this has a chance of 1e-9."""

INPUTS = {
    "zeros": lambda: np.zeros(SIZE),
    "constant": lambda: np.full(SIZE, -3.25),
    "random": lambda: np.random.default_rng(1).normal(size=SIZE),
}


def chi_square(data):
    """Deviate of the byte frequencies from the uniform, by Wilson and Hilferty's approximation."""
    counts = np.bincount(data, minlength=256)
    expected = len(data) / 256
    per_degree = float(((counts - expected) ** 2).sum() / expected / 255)
    spread = 2 / (9 * 255)
    return (per_degree ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def serial(data, lag=1):
    """Deviate of the correlation of bytes with those some places further on."""
    centred = data.astype(float) - 127.5
    return float((centred[:-lag] * centred[lag:]).sum() / (len(data) - lag) ** 0.5 / ((256**2 - 1) / 12))


def distance(one, other):
    """Kolmogorov and Smirnov's distance of two samples of words, times the root of the effective size."""
    both = np.sort(np.concatenate([one, other]))
    gap = np.abs(
        np.searchsorted(np.sort(one), both, side="right") / len(one)
        - np.searchsorted(np.sort(other), both, side="right") / len(other)
    ).max()
    return float(gap * math.sqrt(len(one) * len(other) / (len(one) + len(other))))


def words_seen(name, values, encoding, parties=("p00",), number=0):
    """Returns the sum of the vectors of some of three parties, as the server adds them."""
    kit = session(3, encoding=encoding)
    manifest = manifest_of(SIZE)
    context = context_of(number, manifest)
    return sum(Masked.decode(kit.send(p, context, plain_values(values))).words[:SIZE].copy() for p in parties)


def deviates(words):
    data = words.view(np.uint8)
    return [chi_square(data), *(serial(data, lag) for lag in (1, words.itemsize, 4096))]


@pytest.mark.parametrize("encoding", [Encoding(), Encoding(32)], ids=["64", "32"])
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("parties", [("p00",), ("p01",), ("p00", "p01"), ("p00", "p02")], ids="+".join)
def test_bytes_of_vectors_and_partial_sums_are_uniform(name, encoding, parties):
    found = deviates(words_seen(name, INPUTS[name](), encoding, parties))
    assert max(map(abs, found)) < SIGMAS, found


def test_zero_and_random_inputs_look_the_same():
    one, other = (words_seen(name, INPUTS[name](), Encoding()) for name in ("zeros", "random"))
    assert distance(one, other) < 3.3  # 2 exp(-2 x^2) is 7e-10


def test_two_parties_and_two_rounds_have_nothing_in_common():
    kit = session(3)
    manifest = manifest_of(SIZE)
    seen = [
        Masked.decode(kit.send(name, context_of(number, manifest), plain_values(np.zeros(SIZE)))).words
        for number in range(2)
        for name in kit.names[:2]
    ]
    for i in range(4):
        for j in range(i):
            for combined in (seen[i] + seen[j], seen[i] - seen[j], seen[i] ^ seen[j]):
                found = deviates(combined[:SIZE].copy())
                assert max(map(abs, found)) < SIGMAS, found


def test_all_vectors_together_are_the_sum():
    total = words_seen("constant", INPUTS["constant"](), Encoding(), ("p00", "p01", "p02"))
    assert set(total.view(np.int64)) == {int(3 * -3.25 * 2**41)}


class Weak:
    """Broken on purpose: a mask of 32 bits in words of 64, and one that repeats."""

    period = SIZE

    def __init__(self, plus, minus):
        self.seed = sum(plus[0] if plus else minus[0])

    def apply(self, words, start):
        del start
        noise = np.random.default_rng(self.seed).integers(0, 2**32, min(len(words), self.period), dtype=np.uint64)
        words += np.resize(noise, len(words))

    def cover(self, check):
        return check


class Repeating(Weak):
    period = 512

    def apply(self, words, start):
        del start
        noise = np.random.default_rng(self.seed).integers(0, 2**64, self.period, dtype=np.uint64)
        words += np.resize(noise, len(words))


@pytest.mark.parametrize("pad", [Weak, Repeating])
def test_the_tests_see_a_weak_mask(monkeypatch, pad):
    monkeypatch.setattr(pair_keys, "Pad", pad)
    found = deviates(words_seen("zeros", INPUTS["zeros"](), Encoding()))
    assert max(map(abs, found)) > SIGMAS
