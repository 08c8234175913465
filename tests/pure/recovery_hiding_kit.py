# SPDX-License-Identifier: Apache-2.0
"""The view of a coalition on rounds of recovery, as a table of symbols, and what it says of honest inputs.

The real shields run with two things replaced: a keystream is one symbol (the unit vector of its key), and so is an
input. A masked vector then *is* its list of coefficients. The coalition knows every masked vector, its own keys, all
shares it holds and all that were released; the symbols of the keys it can compute are struck out, and what is left of
the span of its view is reduced over the integers mod 2^64. The coordinator belongs to every coalition, and every party
sends its masked input, also where the coordinator calls it dropped: an input that never left shows less.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedray.errors import ProtocolError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.crypto.keys import Roster, sign
from fedray.protocol.crypto.shamir import SHARE_BYTES, reconstruct
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.member import Member
from fedray.protocol.policy import Policy
from fedray.protocol.recovery.pads import PadScope, RoundSecrets
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.recovery.round_messages import PAIR, SELF, MaskedInput, Quorum, Survive, Survivors, Unmask
from fedray.protocol.recovery.thresholds import Thresholds, propose
from fedray.protocol.scheme import Contribution, RoundContext

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


def symbolic(monkeypatch: pytest.MonkeyPatch) -> Symbols:
    """Replaces keystreams and inputs by symbols; returns their places."""
    table = Symbols()

    class SymbolicPad:
        def __init__(self, plus: Iterable[bytes], minus: Iterable[bytes]) -> None:
            self.plus, self.minus = list(plus), list(minus)

        def apply(self, words: np.ndarray, start: int) -> None:
            assert start == 0
            for key in self.plus:
                words[table.of(key)] += np.uint64(1)
            for key in self.minus:
                words[table.of(key) : table.of(key) + 1] -= np.uint64(1)

        def cover(self, check: int) -> int:
            return check

    class SymbolicEncoder:
        def __init__(self, owner: str) -> None:
            table.inputs[owner] = self.place = table.of(f"{len(table.place)} input of {owner}")

        @classmethod
        def of(cls, _: Config, member: Member, *__: Any) -> SymbolicEncoder:
            return cls(member.name)

        def encode(self, words: np.ndarray, start: int) -> None:
            words[:] = 0
            words[self.place] = 1

    monkeypatch.setattr("fedray.protocol.recovery.pads.Pad", SymbolicPad)
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
            config = propose(roster, ["server"], Encoding(), colluders=colluders, n_min=n_min, batch=16)
            return change(config) if change else config

        self.symbols = symbols
        self.rehearsal = Rehearsal(parties, configure, Policy(colluders=0 if colluders == 0 else None))
        self.shields = list(self.rehearsal.shields.values())
        self.thresholds = Thresholds.of(self.rehearsal.config)
        self.everybody = range(parties)
        self._next = 0

    def send(self) -> Seen:
        """Runs R1 of the next round for everybody."""
        number, self._next = self._next, self._next + 1
        if number % 16 == 0:
            self.rehearsal.prepare(number)
        batches = [shield._batches.find(number) for shield in self.shields]
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
            if len(shares) >= self.thresholds.graph.share_threshold:
                secret = reconstruct(shares, self.thresholds.graph.share_threshold)
                assert secret is not None
                if kind == SELF:
                    seeds[owner] = secret
                else:
                    privates[owner] = X25519PrivateKey.from_private_bytes(secret)
        return {self.symbols.place[key] for key in self._keys(seen, privates, seeds) if key in self.symbols.place}

    def _keys(
        self, seen: Seen, privates: Mapping[int, X25519PrivateKey], seeds: Mapping[int, bytes]
    ) -> Iterable[bytes]:
        directory = self.shields[0]._round._batch.directory
        for ctx in seen.contexts:
            scope = PadScope(directory.sid, directory.digest, seen.number, ctx, WORDS, BITS)
            for owner, private in privates.items():
                others = [other for other in self.everybody if other != owner]
                yield from scope.pair_keys(private, directory.publics(others, seen.number), owner).values()
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
        words, checks = (
            [
                {who: c for who, c in zip(honest.values(), row[len(unknown) :], strict=True) if c}
                for row in reduced(table, len(unknown), ring)
            ]
            for ring in (RING, PRIME)
        )
        # Checks have the same pads, in the field of checks: where one input stands alone in one, it does in the other.
        assert {frozenset(found) for found in words} == {frozenset(found) for found in checks}
        return words


def reduced(table: list[list[int]], columns: int, ring: int = RING) -> list[list[int]]:
    """Rows of the module spanned by a table mod 2^64 whose first columns vanish, then in echelon form themselves.

    Mod the prime of checks instead, if that is given: there every number but 0 is a unit.
    """
    rows, width = [[signed(c) % ring for c in row] for row in table], len(table[0])
    powers = ring == RING
    kept: list[list[int]] = []
    for column in range(width):
        while True:
            holding = [row for row in rows if row[column]]
            if not holding:
                break
            pivot = min(holding, key=lambda row: row[column] & -row[column]) if powers else holding[0]
            rows.remove(pivot)
            two = pivot[column] & -pivot[column] if powers else 1
            inverse = pow(pivot[column] // two, -1, ring)
            for row in rows:
                factor = row[column] // two * inverse
                row[:] = [(a - factor * b) % ring for a, b in zip(row, pivot, strict=True)]
            # A pivot that is no unit vanishes when multiplied by 2^64 / two; the rest of its row may not.
            if powers:
                rows.append([RING // two * c % RING for c in pivot])
            if column >= columns:
                kept.append(pivot)
            break
        rows = [row for row in rows if any(row)]
    return kept


def signed(word: int) -> int:
    return word - RING if word > RING // 2 else word


def the_sum(seen: Seen, members: Iterable[int], coalition: Iterable[int]) -> dict[tuple[int, int], int]:
    return {(seen.number, i): 1 for i in members if i not in set(coalition)}


def coalitions(parties: int, most: int) -> list[tuple[int, ...]]:
    return [c for size in range(most + 1) for c in combinations(range(parties), size)]


def share_threshold(t_share: int) -> Callable[[Config], Config]:
    return lambda config: replace(config, t_share=t_share)


def opened(world: World, members: tuple[int, ...]) -> Seen:
    seen = world.send()
    assert world.collect(seen, world.survivors(seen, members), world.everybody, ())
    return seen
