# SPDX-License-Identifier: Apache-2.0
"""What a coalition sees of a round with recovery, by linear algebra: the sum of the honest survivors, and nothing else.

The real shields run with two things replaced: a keystream is one symbol (the unit vector of its key), and so is an
input. A masked vector then *is* its list of coefficients. The coalition knows every masked vector, its own keys, all
shares it holds and all that were released; the symbols of the keys it can compute are struck out, and what is left of
the span of its view is reduced over the integers mod 2^64. The coordinator belongs to every coalition, and every party
sends its masked input, also where the coordinator calls it dropped: an input that never left shows less.

The last tests break the protocol on purpose and see the check find it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedray.errors import ProtocolError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.graph import complete_graph
from fedray.protocol.keys import Roster, sign
from fedray.protocol.policy import Policy
from fedray.protocol.recovery.batch import Batch
from fedray.protocol.recovery.batch_messages import Keys
from fedray.protocol.recovery.directory import Directory
from fedray.protocol.recovery.input import double_pad
from fedray.protocol.recovery.inputs import InputRules
from fedray.protocol.recovery.messages import PAIR, SELF, MaskedInput, Quorum, Survive, Survivors, Unmask
from fedray.protocol.recovery.pads import PadScope, RoundSecrets
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.recovery.terms import Terms, propose, ring_of
from fedray.protocol.recovery.turn import Turn
from fedray.protocol.scheme import Contribution, Manifest, RoundContext, Tensor
from fedray.protocol.shamir import SHARE_BYTES, reconstruct

WORDS = 96
MANIFEST = Manifest((Tensor("symbols", (WORDS - 2,), "float64"),))
INPUT = Contribution(np.zeros(0), 1, np.zeros(0))
BITS = 64
RING = 1 << BITS


class Symbols:
    """One place of the vector for every key and every input of one scenario."""

    def __init__(self) -> None:
        self.place: dict[Any, int] = {}
        self.inputs: dict[str, int] = {}

    def of(self, what: Any) -> int:
        return self.place.setdefault(what, len(self.place))


@pytest.fixture
def symbols(monkeypatch: pytest.MonkeyPatch) -> Symbols:
    table = Symbols()

    class SymbolicPad:
        def __init__(self, plus: Iterable[bytes], minus: Iterable[bytes]) -> None:
            self.plus, self.minus = list(plus), list(minus)

        def apply(self, words: np.ndarray) -> None:
            for key in self.plus:
                words[table.of(key)] += np.uint64(1)
            for key in self.minus:
                words[table.of(key) : table.of(key) + 1] -= np.uint64(1)

    class SymbolicEncoder:
        clipped = 0

        def __init__(self, *_: Any, owner: str, **__: Any) -> None:
            table.inputs[owner] = self.place = table.of(f"{len(table.place)} input of {owner}")

        def encode(self, words: np.ndarray, start: int) -> None:
            words[:] = 0
            words[self.place] = 1

    monkeypatch.setattr("fedray.protocol.recovery.input.Pad", SymbolicPad)
    monkeypatch.setattr("fedray.protocol.recovery.shield.Encoder", SymbolicEncoder)
    return table


@dataclass
class Seen:
    """All that left the parties in one round, and what each of them held before it."""

    number: int
    own: dict[int, RoundSecrets]
    shares: dict[int, dict[int, bytes]]
    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    inputs: dict[int, int] = field(default_factory=dict)
    hashes: dict[int, bytes] = field(default_factory=dict)
    contexts: set[bytes] = field(default_factory=set)
    released: list[Unmask] = field(default_factory=list)
    extra: list[tuple[int, int, int, bytes]] = field(default_factory=list)


class World:
    """Real shields, and the view of whoever watches them all."""

    def __init__(
        self,
        symbols: Symbols,
        parties: int,
        colluders: int | None = None,
        change: Callable[[Config], Config] | None = None,
    ) -> None:
        def configure(roster: Roster) -> Config:
            n_min = 2 if parties == 2 else 3
            config = propose(roster, ["server"], Encoding(64, 12, 8.0), colluders=colluders, n_min=n_min, batch=16)
            return change(config) if change else config

        self.symbols = symbols
        self.rehearsal = Rehearsal(parties, configure, Policy(colluders=0 if colluders == 0 else None))
        self.shields = list(self.rehearsal.shields.values())
        self.terms = Terms.of(self.rehearsal.config)
        self.everybody = range(parties)
        self._next = 0

    def send(self) -> Seen:
        """Runs R1 of the next round for everybody."""
        number, self._next = self._next, self._next + 1
        if number % 16 == 0:
            self.rehearsal.prepare(number)
        batches = [shield._session.batches.find(number) for shield in self.shields]
        seen = Seen(
            number,
            {i: batch._own[number] for i, batch in enumerate(batches)},
            {i: {j: bytes(pair) for j, pair in batch._shares[number].items()} for i, batch in enumerate(batches)},
        )
        context = RoundContext(number, secrets.token_bytes(32), b"", MANIFEST)
        for i, shield in enumerate(self.shields):
            (message,) = shield.protect(context, INPUT).values()
            masked = MaskedInput.decode(message)
            seen.vectors[i], seen.hashes[i] = masked.words.copy(), masked.words_hash
            seen.inputs[i] = self.symbols.inputs[self.rehearsal.names[i]]
            seen.contexts.add(masked.ctx)
        return seen

    def survivors(self, seen: Seen, members: Iterable[int]) -> Survivors:
        chosen, (ctx,) = tuple(members), seen.contexts
        return Survivors(self.rehearsal.server.sid, seen.number, ctx, chosen, tuple(seen.hashes[i] for i in chosen))

    def sign_as(self, party: int, survivors: Survivors) -> bytes:
        """A colluder signs whatever helps."""
        return sign(self.rehearsal.identities[self.rehearsal.names[party]], survivors.statement)

    def collect(self, seen: Seen, survivors: Survivors, honest: Iterable[int], coalition: Iterable[int]) -> bool:
        """Asks honest parties to sign and then to unmask one statement; returns whether anything was released."""
        signatures = {i: self.sign_as(i, survivors) for i in coalition if i in survivors.members}
        asked = [i for i in honest if i in survivors.members]
        for i in asked:
            try:
                signatures[i] = Survive.decode(self.shields[i].reply(survivors.encode())).signature
            except ProtocolError:
                continue
        signers = tuple(sorted(signatures))
        quorum = Quorum(survivors, signers, tuple(signatures[i] for i in signers)).encode()
        return sum(self.unmask(seen, i, quorum) for i in asked) > 0

    def unmask(self, seen: Seen, party: int, quorum: bytes) -> bool:
        try:
            seen.released.append(Unmask.decode(self.shields[party].reply(quorum)))
        except ProtocolError:
            return False
        return True

    def known(self, seen: Seen, coalition: Iterable[int]) -> set[int]:
        """Symbols of all keys that the coalition can compute from one round."""
        pool: dict[tuple[int, int], dict[int, bytes]] = {}
        for holder in coalition:
            for owner, pair in seen.shares[holder].items():
                pool.setdefault((owner, PAIR), {})[holder + 1] = pair[:SHARE_BYTES]
                pool.setdefault((owner, SELF), {})[holder + 1] = pair[SHARE_BYTES:]
        for unmask in seen.released:
            for owner, kind, share in zip(unmask.owners, unmask.kinds, unmask.shares, strict=True):
                pool.setdefault((owner, kind), {})[unmask.index + 1] = share
        for holder, owner, kind, share in seen.extra:
            pool.setdefault((owner, kind), {})[holder + 1] = share
        privates = {i: seen.own[i].private for i in coalition}
        seeds = {i: seen.own[i].seed for i in coalition}
        for (owner, kind), shares in pool.items():
            if len(shares) >= self.terms.graph.share_threshold:
                secret = reconstruct(shares, self.terms.graph.share_threshold)
                assert secret is not None
                if kind == SELF:
                    seeds[owner] = secret
                else:
                    privates[owner] = X25519PrivateKey.from_private_bytes(secret)
        return {self.symbols.place[key] for key in self._keys(seen, privates, seeds) if key in self.symbols.place}

    def _keys(
        self, seen: Seen, privates: Mapping[int, X25519PrivateKey], seeds: Mapping[int, bytes]
    ) -> Iterable[bytes]:
        directory = self.shields[0]._turn._batch.directory
        for ctx in seen.contexts:
            scope = PadScope(directory.sid, directory.digest, seen.number, ctx, WORDS, BITS)
            for owner, private in privates.items():
                for other in set(self.everybody) - {owner}:
                    yield scope.pair_key(private, directory.public(other, seen.number), owner, other)
            for owner, seed in seeds.items():
                yield scope.self_key(seed, owner)

    def leaks(self, rounds: Iterable[Seen], coalition: Iterable[int]) -> list[dict[tuple[int, int], int]]:
        """What the coalition learns of honest inputs: rows of (round, party) -> coefficient."""
        rounds, colluding = list(rounds), set(coalition)
        honest = {seen.inputs[i]: (seen.number, i) for seen in rounds for i in self.everybody if i not in colluding}
        struck = {place for seen in rounds for place in self.known(seen, colluding)}
        unknown = [p for p in range(len(self.symbols.place)) if p not in struck and p not in honest]
        unknown = [p for p in unknown if all(p != seen.inputs[i] for seen in rounds for i in colluding)]
        rows = [seen.vectors[i] for seen in rounds for i in self.everybody if i not in colluding]
        table = [[int(row[p]) for p in [*unknown, *honest]] for row in rows]
        return [
            {who: c for who, c in zip(honest.values(), row[len(unknown) :], strict=True) if c}
            for row in reduced(table, len(unknown))
        ]


def reduced(table: list[list[int]], columns: int) -> list[list[int]]:
    """Rows of the module spanned by a table mod 2^64 whose first columns vanish, then in echelon form themselves."""
    rows, width = [row[:] for row in table], len(table[0])
    kept: list[list[int]] = []
    for column in range(width):
        while True:
            holding = [row for row in rows if row[column]]
            if not holding:
                break
            pivot = min(holding, key=lambda row: row[column] & -row[column])
            rows.remove(pivot)
            two = pivot[column] & -pivot[column]
            inverse = pow(pivot[column] // two, -1, RING)
            for row in rows:
                factor = row[column] // two * inverse
                row[:] = [(a - factor * b) % RING for a, b in zip(row, pivot, strict=True)]
            # A pivot that is no unit vanishes when multiplied by 2^64 / two; the rest of its row may not.
            rows.append([RING // two * c % RING for c in pivot])
            if column >= columns:
                kept.append(pivot)
            break
        rows = [row for row in rows if any(row)]
    return kept


def the_sum(seen: Seen, members: Iterable[int], coalition: Iterable[int]) -> dict[tuple[int, int], int]:
    return {(seen.number, i): 1 for i in members if i not in set(coalition)}


def coalitions(parties: int, most: int) -> list[tuple[int, ...]]:
    return [c for size in range(most + 1) for c in combinations(range(parties), size)]


def share_threshold(t_share: int) -> Callable[[Config], Config]:
    return lambda config: replace(config, t_share=t_share)


SETTINGS = [
    (parties, colluders, t_share)
    for parties, colluders in [(2, 0), (3, 0), (3, 1), (4, 1), (4, 2), (5, 1), (5, 2), (5, 3)]
    for t_share in range(colluders + 1, parties + 1)
]


@pytest.mark.parametrize(("parties", "colluders", "t_share"), SETTINGS)
def test_every_coalition_sees_the_sum_of_the_honest_survivors_and_nothing_else(
    symbols: Symbols, parties: int, colluders: int, t_share: int
) -> None:
    world = World(symbols, parties, colluders, share_threshold(t_share))
    terms, opened = world.terms, 0
    for size in range(parties + 1):
        for members in combinations(world.everybody, size):
            symbols.place.clear()
            seen = world.send()
            released = world.collect(seen, world.survivors(seen, members), world.everybody, ())
            assert released == (size >= max(terms.least_members, parties - terms.graph.dropouts, t_share))
            opened += released
            for coalition in coalitions(parties, colluders):
                expected = [the_sum(seen, members, coalition)] if released else []
                assert world.leaks([seen], coalition) == expected, (members, coalition)
    assert opened >= 1


@pytest.mark.parametrize(("parties", "colluders"), [(3, 1), (4, 1), (4, 2), (5, 1), (5, 2), (5, 3)])
def test_no_pair_of_survivor_sets_opens_twice(symbols: Symbols, parties: int, colluders: int) -> None:
    world = World(symbols, parties, colluders)
    coalition = tuple(range(colluders))
    honest = [i for i in world.everybody if i not in coalition]
    # All sets without one party, up to renaming honest parties or colluders; the full one; one that is too small.
    without = [set(world.everybody) - {i} for i in (0, honest[0], honest[-1])]
    sets = [tuple(sorted(m)) for m in (*without, world.everybody, honest[:2])]
    for first, second in combinations(sets, 2):
        for sides in product((0, 1), repeat=len(honest)):
            symbols.place.clear()
            seen = world.send()
            asked = [[i for i, side in zip(honest, sides, strict=True) if side == which] for which in (0, 1)]
            released = [
                members
                for members, parties_asked in zip((first, second), asked, strict=True)
                if world.collect(seen, world.survivors(seen, members), parties_asked, coalition)
            ]
            assert len(released) <= 1
            leaks = world.leaks([seen], coalition)
            assert leaks in ([], *([the_sum(seen, members, coalition)] for members in released))


def test_rounds_do_not_help_each_other(symbols: Symbols) -> None:
    world = World(symbols, 4, 1)
    first, second = world.send(), None
    assert world.collect(first, world.survivors(first, (1, 2, 3)), (1, 2, 3), ())
    second = world.send()
    assert world.collect(second, world.survivors(second, (0, 1, 2)), (0, 1, 2), ())
    for coalition in coalitions(4, 1):
        expected = [the_sum(first, (1, 2, 3), coalition), the_sum(second, (0, 1, 2), coalition)]
        assert world.leaks([first, second], coalition) == expected


def test_reduction_finds_what_twice_a_symbol_hides() -> None:
    # 2^63 * (2a + x) = 2^63 x: the lowest bit of x shows.
    assert reduced([[2, 1]], 1) == [[0, 1 << 63]]
    assert reduced([[1, 1]], 1) == []
    assert reduced([[1, 1], [1, 2]], 1) == [[0, 1]]


# Each of these breaks one rule on purpose: the check above must see it.


def opened(world: World, members: tuple[int, ...]) -> Seen:
    seen = world.send()
    assert world.collect(seen, world.survivors(seen, members), world.everybody, ())
    return seen


def test_without_the_own_pad_a_late_input_is_seen(symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    def single_pad(place: Any, batch: Any, own: RoundSecrets, scope: PadScope) -> Any:
        pad = double_pad(place, batch, own, scope)
        pad.plus.remove(scope.self_key(own.seed, place.index))
        return pad

    monkeypatch.setattr("fedray.protocol.recovery.shield.double_pad", single_pad)
    world = World(symbols, 4, 1)
    seen = opened(world, (0, 1, 2))
    assert {(0, 3): 1} in world.leaks([seen], ())


def test_with_both_shares_of_a_party_its_input_is_seen(symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    both: list[tuple[int, int, int, bytes]] = []

    def generous(turn: Turn, message: bytes) -> bytes:
        batch, number = turn._batch, turn.sent.number
        both.extend(
            (turn._place.index, owner, kind, batch.share(number, owner, kind))
            for owner in batch.owners(number)
            for kind in (SELF, PAIR)
        )
        return unmask(turn, message)

    unmask = Turn.unmask
    monkeypatch.setattr(Turn, "unmask", generous)
    world = World(symbols, 4, 1)
    seen = opened(world, (0, 1, 2, 3))
    seen.extra = both
    assert world.leaks([seen], ()) == [{(0, i): 1} for i in range(4)]


def test_with_one_key_for_all_rounds_a_dropout_opens_the_others(
    symbols: Symbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LongTerm(RoundSecrets):
        def __init__(self) -> None:
            super().__init__()
            self.private = drawn.setdefault(len(made) // 16, self.private)
            made.append(self)

    def unsuspecting(_: Any, roster: Roster, sid: bytes, batch: int, signed: list[bytes]) -> Directory:
        return Directory(sid, batch, [Keys.decode(data) for data in signed])

    made: list[RoundSecrets] = []
    drawn: dict[int, X25519PrivateKey] = {}
    monkeypatch.setattr("fedray.protocol.recovery.batch.RoundSecrets", LongTerm)
    with pytest.raises(ProtocolError, match="a public key or a commitment repeats"):
        World(symbols, 4, 1).send()
    made.clear()
    drawn.clear()
    monkeypatch.setattr(Directory, "check", classmethod(unsuspecting))
    world = World(symbols, 4, 1)
    first = opened(world, (0, 1, 2))  # party 3 drops out: its key is reconstructed
    second = opened(world, (0, 1, 2, 3))
    second.extra = [
        (unmask.index, owner, kind, share)
        for unmask in first.released
        for owner, kind, share in zip(unmask.owners, unmask.kinds, unmask.shares, strict=True)
        if kind == PAIR
    ]
    assert {(1, 3): 1} in world.leaks([first, second], ())


@pytest.mark.parametrize(("colluders", "t_share"), [(1, 1), (2, 2)])
def test_with_a_share_threshold_that_colluders_reach_every_input_is_seen(
    symbols: Symbols, monkeypatch: pytest.MonkeyPatch, colluders: int, t_share: int
) -> None:
    change = share_threshold(t_share)
    with pytest.raises(ProtocolError, match="t_share"):
        World(symbols, 5, colluders, change)
    trusting = lambda config: complete_graph(config.parties, config.t_share, config.dropouts)  # noqa: E731
    monkeypatch.setattr("fedray.protocol.recovery.terms._stated", trusting)
    monkeypatch.setattr(Policy, "accept", lambda *_: None)
    world = World(symbols, 5, colluders, change)
    seen = world.send()  # nothing was released, nothing was even asked
    assert len(world.leaks([seen], tuple(range(colluders)))) == 5 - colluders


def test_without_a_quorum_two_sums_open_and_their_difference_is_one_input(
    symbols: Symbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Terms, "check_survivors", lambda *_: None)
    change = lambda config: replace(config, t_sig=1, t_share=2)  # noqa: E731
    with pytest.raises(ProtocolError, match="t_sig"):
        World(symbols, 5, 1, change)
    monkeypatch.setattr(Policy, "accept", lambda *_: None)
    world = World(symbols, 5, 1, change)
    seen = world.send()
    assert world.collect(seen, world.survivors(seen, (0, 1, 2)), (1,), (0,))
    assert world.collect(seen, world.survivors(seen, (0, 1, 2, 3)), (2, 3), (0,))
    assert {(0, 3): 1} in world.leaks([seen], (0,))


def test_where_a_party_answers_for_a_second_set_its_input_is_seen(
    symbols: Symbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(turn: Turn, survivors: Survivors) -> None:
        turn._signed = turn.released = None
        accept(turn, survivors)

    accept = Turn._accept
    monkeypatch.setattr(Turn, "_accept", forgetful)
    monkeypatch.setattr(InputRules, "approve", lambda *_: None)
    monkeypatch.setattr(Batch, "erase", lambda *_: None)
    world = World(symbols, 4, 1)
    seen = world.send()
    assert world.collect(seen, world.survivors(seen, (0, 1, 2)), world.everybody, ())
    assert world.collect(seen, world.survivors(seen, (0, 1, 2, 3)), world.everybody, ())
    assert {(0, 3): 1} in world.leaks([seen], ())


def test_on_a_graph_that_falls_apart_a_lonely_party_is_seen(symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    change = lambda config: replace(config, graph="chosen", degree=2, t_share=3, dropouts=0)  # noqa: E731
    with pytest.raises(ProtocolError, match="degree 2 is too small for 5 parties, 2 colluders"):
        World(symbols, 5, 2, change)
    monkeypatch.setattr("fedray.protocol.recovery.terms.check_sparse", lambda *_: None)
    world = World(symbols, 5, 2, change)
    server = world.rehearsal.server
    ring = ring_of(world.terms.graph, server._gseed, server.sid, 0)
    seen = opened(world, (0, 1, 2, 3, 4))
    assert {(0, ring[1]): 1} in world.leaks([seen], (ring[0], ring[2]))
    assert {(0, ring[1]): 1} not in world.leaks([seen], (ring[2], ring[3]))


def test_where_all_own_pads_are_one_a_late_input_is_seen(symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PadScope, "self_key", lambda *_: bytes(32))
    world = World(symbols, 4, 1)
    seen = opened(world, (0, 1, 2))
    assert {(0, 3): 1} in world.leaks([seen], ())
