# SPDX-License-Identifier: Apache-2.0
"""A server that spoils one party's local state, and then asks for a new session in which all are told the same again.

The first true sum after that would show the one party's input, beside which the others' are nothing. Linear regression
with momentum: a model with large weights leaves a large step behind, which is made of the party's own rows.
"""

import numpy as np
import pytest
from inline.dropouts import PATCHED, at, happening, lets_end, sleeping
from inline.federated import weights_of, world
from inline.lying_server import Lie, lie
from inline.turned_clock import turn_clock

from fedray.errors import ProtocolError
from fedray.ml.nn.history import Reset
from fedray.ml.nn.numpy import LinearRegression
from fedray.party.rounds.past import Past
from fedray.party.training.trainer import Trainer
from fedray.protocol.recovery.collector import RecoveryCollector
from fedray.rounds.sum_session import SumSession
from fedray.security.aggregation import SecureAggregator

ROWS, BATCH, RATE, MOMENTUM = 24, 4, 0.01, 0.9
LARGE = 1e3
PARTIES, REST = ("alice", "bob", "carol", "dave"), ("alice", "carol", "dave")


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    """Puts back what a party that ends replaces."""
    for cls, name in PATCHED:
        monkeypatch.setattr(cls, name, getattr(cls, name))


def fit(start, mode="abandon", act=lambda _: None, **arguments):
    """Returns what there is, the weights before, and the history of an epoch of six rounds."""
    numbers = np.random.default_rng(0).normal(size=(4 * ROWS, 2)).astype(np.float32)
    fed = world(start, rows=(ROWS,) * 4, backend="numpy", x=numbers, y=numbers[:, :1])
    aggregator = SecureAggregator(fed.server, fed.devices, on_dropout=mode, round_timeout=60.0)
    model = fed.model(
        lambda: LinearRegression(2, learning_rate=RATE, momentum=MOMENTUM), aggregator=aggregator, **arguments
    )
    act(fed)
    before = np.concatenate([array.ravel() for array in weights_of(model)])
    return fed, before, model.fit(fed.x, fed.y, batch_size=BATCH, shuffle=False, verbose=0)


def spoiling(sender, session, number, model):
    """Gives alice large weights for one round and opens nothing; then asks for a new session."""
    large = model + np.array([LARGE, 0, 0], np.float32) if sender == "alice" else model
    if session == 1:
        return Lie("renew") if number == 2 else Lie("opened", model if number else large)
    return None


def spoilt_step(fed):
    """What alice's rows make of the large weight: the step that her momentum keeps, without the rate."""
    x = np.column_stack([fed.parts[0][0][BATCH : 2 * BATCH], np.ones(BATCH)])
    return MOMENTUM * 2 * LARGE * x.T @ x[:, 0] / BATCH


def shown(server, before):
    """What the first sum of the second session shows of a step that is large beside the others'."""
    return 4 * (before - server.opened(2, 0, PARTIES)) / RATE


def test_whoever_was_told_something_else_is_not_summed_with_what_that_left_behind(start, monkeypatch):
    server = lie(monkeypatch, spoiling)
    fed, before, history = fit(start)
    assert np.abs(shown(server, before)).max() < 0.02 * np.abs(spoilt_step(fed)).max()
    assert history.resets == [Reset(0, 0, ("alice",))]


def forget_nothing(monkeypatch):
    monkeypatch.setattr(Trainer, "_begin_anew", lambda self, _: setattr(self._contributor.past, "anew", False))


def say_nothing(monkeypatch):
    monkeypatch.setattr(Past, "before", lambda _, context: context)
    monkeypatch.setattr(SumSession, "compare_histories", lambda *_: None)


@pytest.mark.parametrize("broken", [forget_nothing, say_nothing])
def test_what_is_left_behind_shows_one_party_s_rows(start, monkeypatch, broken):
    """Broken variants: histories are compared and nothing is forgotten; they are neither compared nor in any key."""
    broken(monkeypatch)
    server = lie(monkeypatch, spoiling)
    fed, before, _ = fit(start)
    np.testing.assert_allclose(shown(server, before), spoilt_step(fed), rtol=0.05)


def test_histories_that_differ_open_nothing(start, monkeypatch):
    """Whoever leads the set-up may leave out that they differ: the keys do as well."""
    monkeypatch.setattr(SumSession, "compare_histories", lambda *_: None)
    server = lie(monkeypatch, spoiling)
    with pytest.raises(ProtocolError, match="alice took part with another model, settings or history"):
        fit(start)
    with pytest.raises(ProtocolError, match="noise"):
        server.opened(2, 0, PARTIES)
    everybody_else = server.sent[2, 0].keys() - {"alice"}
    assert len(everybody_else) == 3


def test_an_honest_server_loses_nobody_s_momentum(start):
    *_, history = fit(start)
    assert history.resets == []


@pytest.mark.parametrize("mode", ["abandon", "recover"])
def test_who_ends_for_good(start, mode):
    """Where nobody comes back in a session, the others' optimizers go on; else they begin anew after such a round."""
    *_, history = fit(
        start, mode, lambda fed: lets_end(fed.devices[1], fed.server, "before its input leaves", number=2)
    )
    assert [one.party for one in history.dropouts] == ["bob"]
    assert history.resets == ([] if mode == "abandon" else [Reset(0, 0, ("bob",))])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", ["before its input leaves", "before it signs"])
@pytest.mark.parametrize("strategy", ["fed_avg_w", "fed_avg_g"])
def test_who_comes_back_within_a_session_begins_anew_as_the_others_have(start, tmp_path, monkeypatch, strategy, step):
    """Under fed_avg_g the optimizers make the model: one that began anew a round later would make another one."""
    gate, summed, update = tmp_path / "open", [], Trainer._update
    turn_clock(monkeypatch, "bob", gate)
    build = RecoveryCollector.open

    def watched(self):
        found = build(self)
        summed.append(found.members)
        return found

    def waking(self, segment, batches):
        if self._context.name == "alice" and segment.done == 3:
            gate.touch()
        return update(self, segment, batches)

    monkeypatch.setattr(RecoveryCollector, "open", watched)
    monkeypatch.setattr(Trainer, "_update", waking)
    act = happening("bob", step, 1, sleeping(str(gate)))
    *_, history = fit(start, "recover", lambda fed: at(fed.devices[1], act), strategy=strategy)
    assert summed[0] == PARTIES
    with_input = step == "before it signs"
    assert summed[1] == (PARTIES if with_input else REST)
    assert summed[2] == REST
    assert summed[-1] == PARTIES, "bob is back within the session"
    assert history.faults == []
    assert [(one.party, one.round) for one in history.dropouts] == [("bob", 1 + with_input)]
    assert history.resets == [Reset(0, 0, ("bob",))]
    assert sorted(history.local_history) == list(PARTIES)
