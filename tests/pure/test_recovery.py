# SPDX-License-Identifier: Apache-2.0
"""Sums that survive dropouts: exact over the survivors, whoever falls silent and whenever, or aborted for a reason."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure.masking_kit import encode
from pure.recovery_kit import covered

from fedray.errors import ProtocolError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster, verify
from fedray.protocol.fixed_point import decode
from fedray.protocol.manifest import ExactTotal, Manifest, Tensor
from fedray.protocol.opened import OpenedSum
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.recovery.thresholds import Thresholds, propose, ring_of
from fedray.protocol.scheme import Contribution, Opened, RoundContext

MANIFEST = Manifest(
    (Tensor("kernel", (3, 2), "float32"), Tensor("bias", (5,), "float64")),
    (ExactTotal("seen", whole=True), ExactTotal("right", whole=True)),
)
BATCH = 8


class Session:
    """A rehearsal for many rounds, with a new batch of keys whenever the last one is used up."""

    def __init__(self, parties: int, ring: int, degree: int, t_share: int) -> None:
        self.encoding = Encoding(ring, weight_bound=5)
        self._degree, self._t_share = degree, t_share
        with pytest.MonkeyPatch.context() as patch:
            # Sparse graphs this small fall apart too often to be accepted; the arithmetic is the same.
            patch.setattr("fedray.protocol.recovery.thresholds.check_sparse", lambda *_: None)
            self.rehearsal = Rehearsal(parties, self._configure)
            self.thresholds = Thresholds.of(self.rehearsal.config)
        self._numbers = self._rounds()

    def next_round(self) -> int:
        return next(self._numbers)

    def _configure(self, roster: Roster) -> Config:
        config = replace(propose(roster, ["server"], self.encoding, batch=BATCH), t_share=self._t_share)
        sparse = self._degree < len(roster.names) - 1
        return replace(config, graph="chosen", degree=self._degree) if sparse else config

    def _rounds(self) -> Iterator[int]:
        number = 0
        while True:
            if number % BATCH == 0:
                self.rehearsal.prepare(number)
            yield number
            number += 1


@lru_cache(maxsize=128)
def session(parties: int, ring: int, degree: int, t_share: int) -> Session:
    return Session(parties, ring, degree, t_share)


def context(number: int, manifest: Manifest = MANIFEST) -> RoundContext:
    return RoundContext(number, secrets.token_bytes(32), b"settings", manifest)


def contribution(seed: int, weight: int = 1, manifest: Manifest = MANIFEST) -> Contribution:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=manifest.size).astype(np.float32)
    return Contribution(values, weight, rng.integers(0, 50, len(manifest.metrics)).astype(np.float64))


def plain_sum(of: Session, inputs: dict[str, Contribution], members: list[str]) -> Opened:
    parties = of.rehearsal.config.parties
    words = [encode(of.encoding, parties, MANIFEST, inputs[name]) for name in members]
    total = np.sum(words, axis=0, dtype=words[0].dtype)
    return decode(of.encoding, parties, MANIFEST, OpenedSum(total, tuple(members)))


def may_open(of: Session, number: int, members: list[int], signers: list[int], answering: list[int]) -> bool:
    """Whether a round must open, from the rules alone."""
    thresholds, server = of.thresholds, of.rehearsal.server
    graph = thresholds.graph
    ring = ring_of(graph, server._gseed, server.sid, number)
    if len(members) < thresholds.least_members or graph.parties - len(members) > graph.dropouts:
        return False
    if len(signers) < thresholds.signatures:
        return False
    for owner in range(graph.parties):
        holders = {*graph.neighbours(ring, owner), owner}
        if min(len(holders & set(members)), len(holders & set(answering))) < graph.share_threshold:
            return False
    return True


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Session, list[int], int]:
    """A session, when each party falls silent (3: never), and a seed of inputs."""
    parties = draw(st.integers(2, 9))
    ring = draw(st.sampled_from([32, 64]))
    sparse = parties >= 7 and draw(st.booleans())
    degree = draw(st.sampled_from([4, parties // 2 // 2 * 2])) if sparse else parties - 1
    colluders = max(1, (parties - 1) // 3) if parties > 2 else 0
    t_share = draw(st.integers(2, degree)) if sparse else draw(st.integers(colluders + 1, parties))
    silent = draw(st.lists(st.sampled_from([3, 3, 3, 3, 2, 1, 0]), min_size=parties, max_size=parties))
    return session(parties, ring, degree, t_share), silent, draw(st.integers(0, 1 << 32))


@given(rounds())
def test_the_opened_sum_is_that_of_the_survivors_or_nothing(case: tuple[Session, list[int], int]) -> None:
    of, silent, seed = case
    names, number = of.rehearsal.names, of.next_round()
    inputs = {name: contribution(seed + i, 1 + i % 5) for i, name in enumerate(names) if silent[i] > 0}
    members = [i for i, stage in enumerate(silent) if stage > 0]
    signing = [i for i in members if silent[i] > 1]
    unmasking = [i for i in signing if silent[i] > 2]
    silent_at = {names[i] for i in set(members) - set(signing)}, {names[i] for i in set(signing) - set(unmasking)}
    if not may_open(of, number, members, signing, unmasking):
        with pytest.raises(ProtocolError, match="aborted"):
            of.rehearsal.sum(context(number), inputs, *silent_at)
        return
    opened = of.rehearsal.sum(context(number), inputs, *silent_at)
    expected = plain_sum(of, inputs, [names[i] for i in members])
    assert opened.parties == expected.parties
    assert opened.weight == expected.weight
    assert opened.values.tobytes() == expected.values.tobytes()
    assert opened.metrics.tobytes() == expected.metrics.tobytes()


def test_hypothesis_reaches_rounds_that_open_without_a_party() -> None:
    of = session(5, 64, 4, 3)
    names, number = of.rehearsal.names, of.next_round()
    inputs = {name: contribution(i) for i, name in enumerate(names[1:])}
    opened = of.rehearsal.sum(context(number), inputs)
    assert opened.parties == names[1:]


@pytest.mark.parametrize("stage", range(3))
def test_a_round_counts_whom_the_rules_count(stage: int) -> None:
    of = session(4, 64, 3, 3)
    names, number = of.rehearsal.names, of.next_round()
    inputs = {name: contribution(i) for i, name in enumerate(names) if stage > 0 or name != names[2]}
    silent = ({names[2]} if stage == 1 else set(), {names[2]} if stage == 2 else set())
    opened = of.rehearsal.sum(context(number), inputs, *silent)
    assert (names[2] in opened.parties) == (stage > 0)


def test_a_dropped_party_takes_part_in_the_next_round() -> None:
    of = session(4, 64, 3, 3)
    names = of.rehearsal.names
    for dropped in names:
        number = of.next_round()
        inputs = {name: contribution(number, 2) for name in names if name != dropped}
        assert of.rehearsal.sum(context(number), inputs).parties == tuple(inputs)


def test_the_next_batch_is_prepared_while_the_present_one_is_in_use() -> None:
    rehearsal = session_with(batch=3)
    rehearsal.prepare(0)
    inputs = {name: contribution(i) for i, name in enumerate(rehearsal.names)}
    messages = {name: shield.prepare(1, 3) for name, shield in rehearsal.shields.items()}
    for number in range(5):  # one exchange of the set-up beside each of the first three rounds
        assert rehearsal.sum(context(number), inputs).parties == rehearsal.names
        if number < 3:
            for name, message in messages.items():
                rehearsal.server.add_set_up(name, 1, message)
            answers = {name: rehearsal.server.set_up_answer(1, number, name) for name in rehearsal.names}
            messages = {name: shield.absorb(answers[name]) for name, shield in rehearsal.shields.items()}
        if number == 2:
            assert set(messages.values()) == {None}
            assert {covered(shield) for shield in rehearsal.shields.values()} == {3}


def session_with(parties: int = 4, batch: int = 4, bits: int = 64) -> Rehearsal:
    encoding = Encoding(bits, weight_bound=5)
    return Rehearsal(parties, lambda roster: propose(roster, ["server"], encoding, batch=batch))


@pytest.mark.parametrize("parties", [50, pytest.param(100, marks=pytest.mark.slow)])
def test_a_sparse_graph_of_many_parties_with_some_of_them_gone(parties: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # All parties check the same signatures, five of each: here every one of them is checked once.
    once = lru_cache(maxsize=None)(verify)
    for module in ("handshake", "recovery.key_directory", "recovery.key_batch", "recovery.unmasking"):
        monkeypatch.setattr(f"fedray.protocol.{module}.verify", once)
    rehearsal = session_with(parties, batch=1, bits=32)
    rehearsal.prepare(0)
    inputs = {name: contribution(i) for i, name in enumerate(rehearsal.names) if i % 20}
    opened = rehearsal.sum(context(0), inputs, set(rehearsal.names[1:3]), {rehearsal.names[-2]})
    assert opened.parties == tuple(inputs)
    assert opened.weight == len(inputs) == parties - len(range(0, parties, 20))
    assert rehearsal.config.graph == "chosen"
