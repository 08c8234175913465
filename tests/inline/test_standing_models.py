# SPDX-License-Identifier: Apache-2.0
"""Training that leaves the model as it is, or comes back to an earlier one, goes on in the session that it has."""

import numpy as np
import pytest
from inline.dropouts import PATCHED, lets_end
from inline.federated import as_bytes, world

import fedray as sf
from fedray.errors import FedRayError
from fedray.ml.nn.numpy import LinearRegression
from fedray.rounds.sum_session import SumSession
from fedray.security.aggregation import PlainAggregator, SecureAggregator, SPUAggregator
from fedray.utils.testing import cluster_def

ONES = np.ones((36, 1), np.float32)
AGGREGATORS = {
    "abandon": lambda fed: SecureAggregator(fed.server, fed.devices, on_dropout="abandon"),
    "recover": lambda fed: SecureAggregator(fed.server, fed.devices, on_dropout="recover"),
    "shares": lambda _fed: SPUAggregator(sf.SPU(cluster_def(["alice", "bob"]))),
    "plain": lambda fed: PlainAggregator(fed.server, fed.devices),
}


@pytest.fixture(autouse=True)
def sessions(monkeypatch):
    """Puts back what a party that ends replaces, and lists the sessions that are opened."""
    for cls, name in PATCHED:
        monkeypatch.setattr(cls, name, getattr(cls, name))
    opened = []
    original = SumSession.open

    def watched(self, config, parties=None):
        opened.append(parties)
        original(self, config, parties)

    monkeypatch.setattr(SumSession, "open", watched)
    return opened


def swinging():
    """One number per row, all alike: a step leads to the other side of the target, and the next one back."""
    return LinearRegression(features=1, learning_rate=0.5)


def resting():
    return LinearRegression(features=1, learning_rate=0.0)


@pytest.mark.parametrize(
    ("aggregator", "builder"),
    [
        pytest.param(aggregator, builder, marks=[pytest.mark.slow] * (aggregator not in quick))
        for builder, quick in ((swinging, ("recover", "shares")), (resting, ("abandon",)))
        for aggregator in AGGREGATORS
    ],
)
def test_a_model_may_come_back(start, sessions, aggregator, builder):
    fed = world(start, rows=(12, 12, 12), backend="numpy", x=ONES, y=0 * ONES)
    model = fed.model(builder, aggregator=AGGREGATORS[aggregator](fed))
    before = as_bytes(model)
    history = model.fit(fed.x, fed.y, batch_size=4, epochs=2, verbose=0)
    np.testing.assert_allclose(history.history["loss"], history.history["loss"][0])
    # The same rows once more, and in an order of their own: a further pass, and no repetition.
    for more in ({"random_seed": 3}, {"random_seed": 3}, {"shuffle": False, "epochs": 3}):
        model.fit(fed.x, fed.y, **({"batch_size": 4, "epochs": 1, "verbose": 0} | more))
    assert len(sessions) == 1
    # An odd number of steps ends on the other side.
    assert (as_bytes(model) == before) == (builder is resting)


@pytest.mark.parametrize("builder", [swinging, pytest.param(resting, marks=pytest.mark.slow)])
def test_a_model_that_comes_back_may_be_evaluated_as_often_as_need_be(start, sessions, builder):
    """Parties count evaluations of one model in a session: the driver opens another one in time, and no earlier."""
    fed = world(start, rows=(12, 12, 12), backend="numpy", x=ONES, y=0 * ONES)
    model = fed.model(builder)
    model.fit(fed.x, fed.y, batch_size=4, epochs=16, verbose=0, validation_data=(fed.x, fed.y))
    assert len(sessions) == (3 if builder is resting else 2)


@pytest.mark.parametrize("mode", ["abandon", "recover"])
def test_without_a_party_rows_that_it_was_summed_with_are_not_summed_again(start, capsys, mode):
    """On a model that stands still the others go on with rows that are new to it, and with no second pass.

    All gradients of a pass over everybody, less those of a pass without bob, would be bob's.
    """
    numbers = np.random.default_rng(0).normal(size=(48, 1))
    fed = world(start, rows=(12,) * 4, backend="numpy", x=numbers, y=numbers**2)
    model = fed.model(resting, aggregator=AGGREGATORS[mode](fed), strategy="fed_avg_g")
    lets_end(fed.devices[1], fed.server, "before its input leaves", number=1)
    # The rest of the epoch goes on; a further one does not.
    with pytest.raises(FedRayError, match=r"rows were already summed .* change what keeps the model as it is"):
        model.fit(fed.x, fed.y, batch_size=4, epochs=2, verbose=2)
    assert "epoch: 1/2" in capsys.readouterr().out
