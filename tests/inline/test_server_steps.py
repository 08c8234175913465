# SPDX-License-Identifier: Apache-2.0
"""Strategies whose server half takes steps, in each party: held against NumPy over sessions, and what they keep."""

from dataclasses import replace

import numpy as np
import pytest
from inline.federated import weights_of, world
from inline.keras_models import noisy

from fedray.ml.nn.numpy import LinearRegression
from fedray.party.rounds.server import RoundServer
from fedray.party.training import model_rounds
from fedray.party.training.following import Following
from fedray.party.training.trainer import Trainer
from fedray.runtime.session import running
from fedray.security.aggregation import PlainAggregator, SecureAggregator
from fedray.strategies import STRATEGIES
from fedray.strategies.strategy import Strategy, Uplink

pytestmark = pytest.mark.usefixtures("kernels_kept")

ADAM = {"server_learning_rate": 0.05, "beta_1": 0.8, "beta_2": 0.95, "tau": 0.01}
TARGETS = np.random.default_rng(5).normal(size=(60, 1))


@pytest.fixture
def opened(monkeypatch):
    """Returns the means that the first party reads in training, and in how many sessions."""
    seen = {"means": [], "sessions": 0}
    advance, begin = Following.advance, RoundServer.begin

    def watched(self, opened):  # and not one whose values did not fit
        if self._model.party == "alice":
            seen["means"].append(np.array(opened.values, np.float64))
        return advance(self, opened)

    def counted(self, *arguments):
        seen["sessions"] += 1
        return begin(self, *arguments)

    monkeypatch.setattr(Following, "advance", watched)
    monkeypatch.setattr(RoundServer, "begin", counted)
    return seen


class Reference:
    """Reddi et al., ICLR 2021, algorithm 2, written out once more; float64 throughout."""

    def __init__(self, weights):
        self.weights = np.array(weights, np.float64)
        self.m, self.v = np.zeros_like(self.weights), np.full_like(self.weights, ADAM["tau"] ** 2)

    def take(self, means):
        for mean in means:
            self.m = ADAM["beta_1"] * self.m + (1 - ADAM["beta_1"]) * mean
            self.v = ADAM["beta_2"] * self.v + (1 - ADAM["beta_2"]) * mean**2
            step = ADAM["server_learning_rate"] * self.m / (np.sqrt(self.v) + ADAM["tau"])
            self.weights = self.weights + step
        means.clear()


def flat(model):
    return np.concatenate([np.ravel(array) for array in weights_of(model)])


def regression():
    return LinearRegression(features=4, learning_rate=0.05, dtype="float64")


def adam_world(start, **settings):
    fed = world(start, rows=(25, 20, 15), y=TARGETS, backend="numpy", **settings)
    return fed, fed.model(regression, strategy="fed_adam", strategy_parameters=ADAM)


def test_fed_adam_is_the_papers_over_sessions_evaluations_and_batch_sizes(start, opened):
    fed, model = adam_world(start)
    reference = Reference(flat(model))
    rounds = 0
    for batch_size in (5, 3, 8):
        model.fit(fed.x, fed.y, epochs=2, batch_size=batch_size, verbose=0)
        rounds += len(opened["means"])
        reference.take(opened["means"])
        np.testing.assert_allclose(flat(model), reference.weights, rtol=0, atol=1e-12)
        for _ in range(7):
            model.evaluate(fed.x, fed.y, verbose=0)
    assert rounds >= 20
    assert opened["sessions"] > 3, "a new session must have begun in between, or nothing was shown"


def test_parties_that_forget_at_a_new_session_would_be_found(start, opened, monkeypatch):
    """The broken variant: the moments begin anew whenever the model is handed round."""
    unpack = model_rounds.unpack
    monkeypatch.setattr(model_rounds, "unpack", lambda message, model: unpack(replace(message, state=None), model))
    fed, model = adam_world(start)
    reference = Reference(flat(model))
    for batch_size in (5, 3):
        model.fit(fed.x, fed.y, batch_size=batch_size, verbose=0)
        reference.take(opened["means"])
    assert np.abs(flat(model) - reference.weights).max() > 1e-3


def test_moments_end_with_the_weights_they_belong_to(start, opened, tmp_path):
    fed, model = adam_world(start)
    model.save(tmp_path / "first.npz")
    model.fit(fed.x, fed.y, batch_size=5, verbose=0)
    opened["means"].clear()
    model.load(tmp_path / "first.npz")
    reference = Reference(flat(model))
    model.fit(fed.x, fed.y, batch_size=5, verbose=0)
    reference.take(opened["means"])
    np.testing.assert_allclose(flat(model), reference.weights, rtol=0, atol=1e-12)


def test_moving_statistics_are_averaged_and_not_stepped(start, opened):
    fed = world(start, rows=(30, 30))
    model = fed.model(lambda: noisy(run_eagerly=True), strategy="fed_adam", strategy_parameters=ADAM)
    model.fit(fed.x, fed.y, batch_size=10, verbose=0)
    stock = model.global_model()
    moving = np.concatenate([np.ravel(w.numpy()) for w in stock.non_trainable_weights if "moving" in w.path])
    assert moving.size
    # They stand at the end of what is opened, and come out of the mean with no more than a cast.
    assert moving.tobytes() == opened["means"][-1][-moving.size :].astype(np.float32).tobytes()


def test_learning_with_a_server_step_of_adam_lowers_the_loss(start):
    fed, model = adam_world(start)
    losses = model.fit(fed.x, fed.y, epochs=8, batch_size=10, verbose=0).global_history["loss"]
    assert losses[-1] < 0.9 * losses[0]


OWN = {"alice": 1.0, "bob": 4.0, "carol": 10.0}
"""What each party adds to its control vector, whatever its rows."""


def control() -> Strategy:
    """Two uplinks of which one counts each party once, a downlink, and a state: each party's own number."""

    def begin(state, weights, known):
        return {**state, "known": known["control"]}

    def finish(state, weights, local):
        return state, {"update": local - weights, "control": 0.5 * state["known"] + state["own"]}

    def update(state, weights, means):
        new = (weights + 0.5 * means["update"]).astype(weights.dtype)
        return {}, new, {"control": means["control"].astype(weights.dtype)}

    uplink = (Uplink("update"), Uplink("control", weighted=False))
    return Strategy("control", {}, uplink, finish, update, downlink=("control",), client_begin=begin)


@pytest.mark.parametrize("aggregator", [SecureAggregator, PlainAggregator])
def test_a_second_vector_goes_up_and_down_beside_the_model(start, monkeypatch, opened, aggregator):
    monkeypatch.setitem(STRATEGIES, "control", control)
    begun = []
    update = Trainer._update

    def watched(self, segment, batches):
        if self._state is None:
            self._state = {"own": OWN[self._context.name]}
        begun.append((self._context.name, [vector.copy() for vector in self._model.known]))
        return update(self, segment, batches)

    monkeypatch.setattr(Trainer, "_update", watched)
    fed = world(start, rows=(30, 20, 10), y=TARGETS, backend="numpy")
    model = fed.model(regression, strategy="control", aggregator=aggregator(fed.server, fed.devices))
    for batch_size in (10, 5):  # a new batch size is a new session
        model.fit(fed.x, fed.y, batch_size=batch_size, verbose=0)
    for party in OWN:
        seen = [known for name, known in begun if name == party]
        expected, value = [], 0.0
        for _ in seen:
            expected.append(value)
            value = 0.5 * value + 5.0  # the mean of 1, 4 and 10; by rows it would be 3.5
        assert seen[0] == []
        assert [float(known[0][0]) for known in seen[1:]] == pytest.approx(expected[1:], abs=1e-8)
    assert len(opened["means"][0]) == 2 * len(flat(model))


def test_a_party_without_rows_in_a_round_keeps_its_state_and_is_given_no_gradient(start, monkeypatch):
    """Two rows over eight rounds: the weights must not pass for a gradient where there is none."""
    given = []

    def finish(state, weights, local):
        given.append(np.array_equal(weights, local))
        return state, {"gradient": local}

    def update(state, weights, means):
        return state, means["gradient"].astype(weights.dtype), {}

    made = Strategy("bare", {}, (Uplink("gradient"),), finish, update, local="gradient")
    monkeypatch.setitem(STRATEGIES, "bare", lambda: made)
    fed = world(start, rows=(40, 18, 2), y=TARGETS, backend="numpy")
    fed.model(regression, strategy="bare").fit(fed.x, fed.y, batch_size=5, verbose=0)
    assert len(given) == 8 + 8 + 2
    assert not any(given)


def test_load_goes_on_without_a_party_that_is_lost(start, tmp_path):
    fed = world(start, rows=(15, 15, 15, 15), y=TARGETS, backend="numpy")
    model = fed.model(regression, aggregator=SecureAggregator(fed.server, fed.devices, on_dropout="recover"))
    model.fit(fed.x, fed.y, batch_size=5, verbose=0)
    model.save(tmp_path / "model.npz")
    saved = flat(model)
    model.fit(fed.x, fed.y, batch_size=5, verbose=0)
    running().transport.lose("dave")
    model.load(tmp_path / "model.npz")
    assert flat(model).tobytes() == saved.tobytes()
