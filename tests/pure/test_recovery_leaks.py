# SPDX-License-Identifier: Apache-2.0
"""Scheme recovery broken on purpose, one rule at a time: the check of what a coalition sees finds each one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pure.recovery_hiding_kit import (
    Symbols,
    World,
    opened,
    share_threshold,
    symbolic,
)

from fedray.errors import ProtocolError
from fedray.protocol.crypto.graph import complete_graph
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.crypto.shamir import SHARE_BYTES
from fedray.protocol.policy import Policy
from fedray.protocol.recovery.key_batch import KeyBatch
from fedray.protocol.recovery.key_directory import Directory
from fedray.protocol.recovery.key_messages import Keys
from fedray.protocol.recovery.pads import PadScope, RoundSecrets, double_pad
from fedray.protocol.recovery.reuse_rules import InputRules
from fedray.protocol.recovery.round_messages import PAIR, SELF, Survivors
from fedray.protocol.recovery.thresholds import Thresholds, ring_of
from fedray.protocol.recovery.unmasking import Unmasking


@pytest.fixture
def symbols(monkeypatch: pytest.MonkeyPatch) -> Symbols:
    return symbolic(monkeypatch)


def test_without_the_own_pad_a_late_input_is_seen(symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    def single_pad(scope: PadScope, own: RoundSecrets, publics: Any, mine: int) -> Any:
        pad = double_pad(scope, own, publics, mine)
        pad.plus.remove(scope.self_key(own.seed, mine))
        return pad

    monkeypatch.setattr("fedray.protocol.recovery.shield.double_pad", single_pad)
    world = World(symbols, 4, 1)
    seen = opened(world, (0, 1, 2))
    assert {(0, 3): 1} in world.leaks([seen], ())


def test_with_both_shares_of_a_party_its_input_is_seen(symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    both: list[tuple[int, int, int, bytes]] = []

    def generous(unmasking: Unmasking, message: bytes) -> bytes:
        batch, number, holder = unmasking._batch, unmasking._number, unmasking._session.member.index
        both.extend(
            (holder, owner, kind, bytes(pair[:SHARE_BYTES] if kind == PAIR else pair[SHARE_BYTES:]))
            for owner, pair in batch._shares[number].items()
            for kind in (SELF, PAIR)
        )
        return unmask(unmasking, message)

    unmask = Unmasking.unmask
    monkeypatch.setattr(Unmasking, "unmask", generous)
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
    monkeypatch.setattr("fedray.protocol.recovery.key_batch.RoundSecrets", LongTerm)
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
    monkeypatch.setattr("fedray.protocol.recovery.thresholds._stated", trusting)
    monkeypatch.setattr(Policy, "accept", lambda *_: None)
    world = World(symbols, 5, colluders, change)
    seen = world.send()  # nothing was released, nothing was even asked
    assert len(world.leaks([seen], tuple(range(colluders)))) == 5 - colluders


def test_without_a_quorum_two_sums_open_and_their_difference_is_one_input(
    symbols: Symbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Thresholds, "check_survivors", lambda *_: None)
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
    def forgetful(unmasking: Unmasking, survivors: Survivors) -> Survivors:
        unmasking._signed, unmasking.released = None, False
        return accept(unmasking, survivors)

    accept = Unmasking._accept
    monkeypatch.setattr(Unmasking, "_accept", forgetful)
    monkeypatch.setattr(InputRules, "approve", lambda *_: None)
    monkeypatch.setattr(KeyBatch, "erase", lambda *_: None)
    world = World(symbols, 4, 1)
    seen = world.send()
    assert world.collect(seen, world.survivors(seen, (0, 1, 2)), world.everybody, ())
    assert world.collect(seen, world.survivors(seen, (0, 1, 2, 3)), world.everybody, ())
    assert {(0, 3): 1} in world.leaks([seen], ())


def test_on_a_graph_that_falls_apart_a_lonely_party_is_seen(symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    change = lambda config: replace(config, graph="chosen", degree=2, t_share=3, dropouts=0)  # noqa: E731
    with pytest.raises(ProtocolError, match="degree 2 is too small for 5 parties, 2 colluders"):
        World(symbols, 5, 2, change)
    monkeypatch.setattr("fedray.protocol.recovery.thresholds.check_sparse", lambda *_: None)
    world = World(symbols, 5, 2, change)
    server = world.rehearsal.server
    ring = ring_of(world.thresholds.graph, server._gseed, server.sid, 0)
    seen = opened(world, (0, 1, 2, 3, 4))
    assert {(0, ring[1]): 1} in world.leaks([seen], (ring[0], ring[2]))
    assert {(0, ring[1]): 1} not in world.leaks([seen], (ring[2], ring[3]))


def test_where_all_own_pads_are_one_a_late_input_is_seen(symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PadScope, "self_key", lambda *_: bytes(32))
    world = World(symbols, 4, 1)
    seen = opened(world, (0, 1, 2))
    assert {(0, 3): 1} in world.leaks([seen], ())
