# SPDX-License-Identifier: Apache-2.0
"""What a party of recovery decides, records, erases, and sends a second time."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pure.recovery_kit import ALL, Stage, context, contribution, covered, held, inputs

from fedray.errors import ProtocolError
from fedray.protocol.handshake import Handshake
from fedray.protocol.recovery import RecoveryCollector, RecoveryCoordinator, RecoveryShield


@pytest.fixture(scope="module")
def stages() -> Stage:
    return Stage()


@pytest.fixture
def stage(stages: Stage) -> Stage:
    return stages


def test_a_decision_is_recorded_before_it_is_acted_upon(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    survivors = stage.survivors()
    shield, broken = stage.shields[ALL[0]], []

    def full(entry: bytes) -> None:
        broken.append(entry)
        raise OSError("disk full")

    journal = shield._session.journal
    shield._session.journal = full
    with pytest.raises(OSError, match="disk full"):
        shield.reply(survivors.encode())
    with pytest.raises(OSError, match="disk full"):
        shield.reply(stage.quorum(survivors))
    assert not shield._round.released
    assert shield._round._signature == b""
    assert held(shield._round._batch, 0) == (0, 1, 2, 3)
    shield._session.journal = journal
    assert shield.reply(survivors.encode())
    assert shield.reply(stage.quorum(survivors))
    assert len(shield.decisions) == 2
    assert shield.decisions[0] == broken[0] == broken[1]


def test_secrets_are_erased_as_soon_as_they_served() -> None:
    stage = Stage()
    shield = stage.shields[ALL[0]]
    batch = shield._batches.find(0)
    pairs = list(batch._shares[0].values())
    assert all(any(pair) for pair in pairs)
    survivors = stage.survivors()
    assert 0 not in batch._own
    shield.reply(stage.quorum(survivors))
    assert not any(any(pair) for pair in pairs)
    assert held(batch, 0) == ()
    later = [pair for number in (1, 2) for pair in batch._shares[number].values()]
    shield.protect(context(3), contribution(9))  # rounds 1 and 2 went by without this party
    assert not any(any(pair) for pair in later)
    assert set(batch._own) == set()
    stage.rehearsal.prepare(4)
    assert covered(shield) == 4
    shield.protect(context(4), contribution(10))
    assert shield._batches._ready == [shield._round._batch]
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(batch)
    assert shield._session.keys.roots == {}


def test_local_state_is_kept_only_on_a_verified_quorum(stage: Stage) -> None:
    survivors = stage.survivors(but=ALL[3])
    shield = stage.shields[ALL[0]]
    assert shield.survivors(stage.number) is None
    shield.reply(survivors.encode())
    assert shield.survivors(stage.number) is None
    shield.reply(stage.quorum(survivors))
    assert shield.survivors(stage.number) == ALL[:3]


# The same input again.


def test_the_same_input_is_not_sent_again() -> None:
    stage = Stage()
    model = secrets.token_bytes(32)
    for shield in stage.shields.values():
        shield.protect(context(0, model), contribution(3))
    with pytest.raises(ProtocolError, match="same input was sent for round 0"):
        stage.shields[ALL[0]].protect(context(1, model), contribution(3))


def test_freshly_computed_data_is_sent_but_a_model_serves_once_more_only() -> None:
    stage = Stage()
    shield, model = stage.shields[ALL[0]], secrets.token_bytes(32)
    shield.protect(context(0, model), contribution(0))
    shield.protect(context(1, model), contribution(1))
    with pytest.raises(ProtocolError, match="2 rounds of purpose 'train'"):
        shield.protect(context(2, model), contribution(2))


def test_the_same_input_is_not_summed_over_another_set() -> None:
    stage = Stage()
    model = secrets.token_bytes(32)
    order = [replace(context(number, model), purpose="evaluate") for number in range(3)]
    assert stage.rehearsal.sum(order[0], inputs()).parties == ALL
    assert stage.rehearsal.sum(order[1], inputs()).parties == ALL
    with pytest.raises(ProtocolError, match="the difference would show single inputs"):
        stage.rehearsal.sum(order[2], inputs(but=ALL[3]))


def twice(call: Callable[..., Any]) -> Callable[..., Any]:
    """As a transport does that lost the answer: the same call again, which must get the same answer."""

    def again(*arguments: Any) -> Any:
        first, second = call(*arguments), call(*arguments)
        assert [bytes(m) for m in messages(first)] == [bytes(m) for m in messages(second)]
        return first

    return again


def messages(answer: Any) -> list[Any]:
    return list(answer.values()) if isinstance(answer, dict) else [] if answer is None else [answer]


def test_every_message_may_arrive_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    for of, names in [
        (Handshake, ["hello", "confirm"]),
        (RecoveryShield, ["prepare", "absorb", "protect", "reply"]),
        (RecoveryCoordinator, ["add_set_up"]),
        (RecoveryCollector, ["add"]),
    ]:
        for name in names:
            monkeypatch.setattr(of, name, twice(getattr(of, name)))
    stage = Stage()
    for number, silent in enumerate(ALL):
        assert len(stage.rehearsal.sum(context(number), inputs(), {silent}).parties) == 4
    stage.rehearsal.prepare(4)
    assert stage.rehearsal.sum(context(4), inputs(but=ALL[1])).parties == (ALL[0], ALL[2], ALL[3])
