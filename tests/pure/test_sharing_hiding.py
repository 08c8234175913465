# SPDX-License-Identifier: Apache-2.0
"""What any c-1 compute parties see of sharing: by linear algebra with symbols for keystreams, and by statistics.

Every symbol is a word of the vector: the keystream of the k-th seed is the k-th unit vector, and so is the input of an
owner. The real code then computes, in its words, the coefficients of everything that anybody sees.
"""

import itertools
import os
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from pure.masking_kit import context_of, plain_values
from pure.sharing_kit import session

from fedray.errors import ProtocolError
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.sharing import SharingShield, split
from fedray.protocol.sharing.sealing import header_of, unseal

RING = 1 << 64
SYMBOLS = 60


class Symbols:
    """Hands out symbols: inputs from the first word on, randomness after them."""

    def __init__(self, inputs):
        self.inputs, self.next = inputs, inputs
        self.of_seed = {}

    def draw(self):
        place, self.next = self.next, self.next + 1
        assert place < SYMBOLS
        return place

    def words(self, seed):
        if seed not in self.of_seed:
            self.of_seed[seed] = self.draw()
        return unit(self.of_seed[seed])

    def entropy(self, count):
        """Fresh randomness: a seed, a share of a check, or a whole vector of words that is a symbol."""
        return os.urandom(count) if count in (16, 32) else unit(self.draw(), count // 8).astype("<u8").tobytes()

    def pad(self, plus, minus):
        def apply(words, start):
            assert start == 0
            for sign, seeds in ((1, plus), (-1, minus)):
                for seed in seeds:
                    words[:SYMBOLS] += np.array([sign * v % RING for v in self.words(seed)], "<u8")

        return type("SymbolPad", (), {"apply": staticmethod(apply), "cover": staticmethod(lambda check: check)})


def unit(place, size=SYMBOLS):
    vector = np.zeros(size, object)
    vector[place] = 1
    return vector


def span_without(rows, hidden, ring):
    """Combinations of rows over Z_ring in which no hidden symbol is left, by elimination with odd pivots."""
    rows = [[(v - RING if v > RING // 2 else v) % ring for v in map(int, row)] for row in rows]
    for column in hidden:
        pivot = next((row for row in rows if unit_of(row[column], ring)), None)
        if pivot is None:
            assert not any(row[column] for row in rows), "no odd pivot: elimination would not be exact"
            continue
        rows.remove(pivot)
        inverse = pow(pivot[column], -1, ring)
        rows = [
            [(a - row[column] * inverse * b) % ring for a, b in zip(row, pivot, strict=True)] if row[column] else row
            for row in rows
        ]
    return [row for row in rows if any(row)]


def unit_of(value, ring):
    """Whether a value has an inverse."""
    return value % 2 if ring == RING else value


def reduced(rows, columns, ring):
    """An echelon basis of rows restricted to columns, as a set of tuples with signs made small."""
    rows = [[row[c] for c in columns] for row in rows]
    basis = []
    for column in range(len(columns)):
        pivot = next((row for row in rows if unit_of(row[column], ring)), None)
        if pivot is None:
            continue
        inverse = pow(pivot[column], -1, ring)
        pivot = [v * inverse % ring for v in pivot]
        rows = [[(a - row[column] * b) % ring for a, b in zip(row, pivot, strict=True)] for row in rows]
        basis = [[(a - row[column] * b) % ring for a, b in zip(row, pivot, strict=True)] for row in basis]
        basis.append(pivot)
    assert not any(any(row) for row in rows)
    return {tuple(v - ring if v > ring // 2 else v for v in row) for row in basis}


class World:
    """A session whose randomness is symbols, and everything that was ever sent in it."""

    def __init__(self, monkeypatch, owners, computing, apart, compress, rounds=1, shield=SharingShield):
        self.symbols = Symbols(owners * rounds)
        monkeypatch.setattr(split, "Pad", self.symbols.pad)
        made = SimpleNamespace(joining=partial(shield.joining, entropy=self.symbols.entropy))
        self.kit = session(owners, computing, apart, compress=compress, shield=made)
        self.manifest = Manifest((Tensor("x", (SYMBOLS,), "int64", 4),), weighted=False)
        self.kit.expect(self.manifest)
        self.received = {name: [] for name in self.kit.adders}  # (owner, coefficients)
        self.published = []

    def input(self, owner, number=0):
        return number * len(self.kit.owners) + self.kit.owners.index(owner)

    def send(self, owner, number=0, to=None, settings=b""):
        context = context_of(number, self.manifest, settings=settings)
        values = unit(self.input(owner, number)).astype(np.int64)
        for name, message in self.kit.shields[owner].protect(context, plain_values(values)).items():
            if to is None or name in to:
                self.receive(owner, name, message)
                self.kit.adders[name].add(owner, message)

    def receive(self, owner, name, message):
        """Notes what a compute party can read."""
        adder = self.kit.adders[name]
        header = header_of(message)
        share = unseal(adder._channels[header.owner], message)
        row = self.symbols.words(share) if header.form == "seed" else np.frombuffer(share, "<u8")[:SYMBOLS]
        self.received[name].append((owner, row))

    def open(self, members):
        self.kit.agree(members)
        self.publish()

    def publish(self):
        for adder in self.kit.adders.values():
            total = adder._current.piles[adder._current.signed.ctx].total[:SYMBOLS].copy()
            adder.publish()
            self.published.append(total)

    def learned(self, bad, bad_owners=()):
        """What these parties together know of the honest owners' inputs, as an echelon basis."""
        rows = list(self.published)
        for name in bad:
            rows += [row for _, row in self.received[name]]
        for name in self.kit.adders:  # colluding owners know all their shares
            rows += [row for owner, row in self.received[name] if owner in bad_owners]
        inputs = range(self.symbols.inputs)
        own = {self.input(owner, r) for owner in bad_owners for r in range(self.symbols.inputs // len(self.kit.owners))}
        rows += [unit(place) for place in own]
        hidden = [*range(self.symbols.inputs, SYMBOLS), *own]
        # Checks are shared as words are, in the field of checks: of them the same is learned.
        left = [place for place in inputs if place not in own]
        words, checks = (reduced(span_without(rows, hidden, ring), left, ring) for ring in (RING, PRIME))
        assert words == checks
        return words


@pytest.mark.parametrize(
    ("owners", "computing", "apart"), [(2, 2, 0), (3, 2, 0), (3, 3, 0), (3, 3, 2), (4, 3, 1), (4, 2, 2)]
)
@pytest.mark.parametrize("compress", [True, False])
def test_any_coalition_learns_the_honest_sum_and_nothing_else(monkeypatch, owners, computing, apart, compress):
    world = World(monkeypatch, owners, computing, apart, compress)
    kit = world.kit
    for owner in kit.owners:
        world.send(owner)
    before = [world.learned(bad) for bad in itertools.combinations(kit.adders, computing - 1)]
    assert not any(before)  # nothing is published yet: c-1 compute parties know nothing at all
    world.open(kit.owners)
    most = kit.config.colluders
    for bad in itertools.combinations(kit.adders, computing - 1):
        for count in range(most + 1):
            for colluding in itertools.combinations(kit.owners, count):
                assert world.learned(bad, colluding) == {(1,) * (owners - count)}
    everything = world.learned(kit.adders)
    assert len(everything) == owners  # all c together open each input: the check can see a leak


def test_rounds_do_not_help_each_other(monkeypatch):
    world = World(monkeypatch, 3, 2, 0, True, rounds=2)
    for number in range(2):
        for owner in world.kit.owners:
            world.send(owner, number)
        world.open(world.kit.owners)
    for bad in world.kit.adders:
        assert world.learned([bad]) == {(1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 1)}


def test_whoever_is_left_out_stays_hidden(monkeypatch):
    world = World(monkeypatch, 4, 3, 3, True)
    for owner in world.kit.owners[:3]:
        world.send(owner)
    world.send(world.kit.owners[3], to=[world.kit.config.receivers[1]])  # it ended half-way: one seed has arrived
    world.open(world.kit.owners[:3])
    for bad in itertools.combinations(world.kit.adders, 2):
        assert world.learned(bad) == {(1, 1, 1, 0)}


# Variants that are broken on purpose: the check above sees each of them.


class Repeating(SharingShield):
    """Draws its seeds once for all rounds."""

    def _split(self, context, ctx, contribution):
        self.drawn = getattr(self, "drawn", None) or [os.urandom(32) for _ in range(8)]
        left = iter(self.drawn)
        self._entropy = lambda _: next(left)
        return super()._split(context, ctx, contribution)


def test_seeds_used_for_two_rounds_would_be_seen(monkeypatch):
    world = World(monkeypatch, 3, 2, 0, True, rounds=2, shield=Repeating)
    for number in range(2):
        for owner in world.kit.owners:
            world.send(owner, number)
        world.open(world.kit.owners)
    learned = world.learned([world.kit.owners[0]])
    assert len(learned) > 2  # besides the two sums: how one owner's input changed from round to round


def test_a_second_set_for_one_round_is_refused_and_would_be_seen(monkeypatch):
    world = World(monkeypatch, 4, 2, 2, True)
    kit = world.kit
    for owner in kit.owners:
        world.send(owner)
    kit.agree(kit.owners)
    for adder in kit.adders.values():
        with pytest.raises(ProtocolError, match="another set is refused"):
            adder.sign(kit.owners[:3])
    for members in (kit.owners, kit.owners[:3]):  # what compute parties that sign twice would publish
        for name in kit.adders:
            rows = [[int(v) for v in row] for owner, row in world.received[name] if owner in members]
            world.published.append([sum(column) % RING for column in zip(*rows, strict=True)])
    assert (0, 0, 0, 1) in world.learned([next(iter(kit.adders))])


# Statistics of one share.


def shares_of(values, compress, size):
    """The words that the first compute party gets of the second owner's vector, before they are sealed."""
    kit = session(3, 2, 2, compress=compress)
    manifest = Manifest((Tensor("x", (size,), "float64"),), weighted=False)
    found = {}
    for owner in kit.owners:
        messages = kit.shields[owner].protect(context_of(0, manifest), plain_values(values))
        for name, message in messages.items():
            adder, header = kit.adders[name], header_of(message)
            if header.form == "words":
                found[owner, name] = unseal(adder._channels[header.owner], message)
    return [np.frombuffer(share, np.uint8)[: size * 8] for share in found.values()]


def chi_square(data):
    expected = len(data) / 256
    return float((((np.bincount(data, minlength=256) - expected) ** 2) / expected).sum())


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("value", [0.0, 1.0, -65536.0])
def test_a_share_is_uniform_whatever_the_value(compress, value):
    size = 1 << 15
    for share in shares_of(np.full(size, value), compress, size):
        # Chi-square with 255 degrees of freedom, normal approximation by Wilson and Hilferty.
        z = ((chi_square(share) / 255) ** (1 / 3) - (1 - 2 / (9 * 255))) / np.sqrt(2 / (9 * 255))
        assert abs(z) < 5.2, "chance of a false alarm is below 1e-6"
        words = share.view("<u8") / 2.0**64
        correlation = np.corrcoef(words[:-1], words[1:])[0, 1] * np.sqrt(size)
        assert abs(correlation) < 5.2
        ordered = np.sort(words)
        distance = np.abs(ordered - np.arange(size) / size).max()
        assert distance * np.sqrt(size) < 2.8  # Kolmogorov-Smirnov, chance of a false alarm about 3e-7


def test_a_vector_without_shares_taken_from_it_would_fail_the_same_check():
    words = np.full(1 << 15, 1 << 32, "<u8")
    assert chi_square(words.view(np.uint8)) > 1e6


def test_shares_of_two_values_cannot_be_told_apart():
    size = 1 << 15
    zero, large = (shares_of(np.full(size, v), True, size)[0].view("<u8") / 2.0**64 for v in (0.0, 65536.0))
    pooled = np.sort(np.concatenate([zero, large]))
    ranks = [np.searchsorted(np.sort(sample), pooled, "right") / size for sample in (zero, large)]
    distance = np.abs(ranks[0] - ranks[1]).max()
    assert distance * np.sqrt(size / 2) < 2.8
