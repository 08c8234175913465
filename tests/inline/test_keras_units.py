# SPDX-License-Identifier: Apache-2.0
"""Keras models in any unit: features of metres and of nanometres, and the statistics of batch normalization."""

import numpy as np
import pytest
from inline.federated import weights_of, world

import fedray as sf
from fedray.strategies import STRATEGIES

pytestmark = pytest.mark.usefixtures("kernels_kept")

RNG = np.random.default_rng(3)
X = RNG.normal(size=(32, 3)).astype(np.float32)
Y = (X @ [1.0, -2.0, 0.5]).astype(np.float32)[:, None]


def linear(unit, adam=False):
    """A linear model of features in a unit; its weights and its steps are in the inverse of it."""

    def builder():
        import keras

        start = keras.initializers.Constant(0.1 / unit)
        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer=start)
        model = keras.Sequential([keras.Input((3,)), dense])
        rate = 0.1 / unit if adam else 0.1 / unit**2
        made = keras.optimizers.Adam(rate, epsilon=1e-12) if adam else keras.optimizers.SGD(rate)
        model.compile(loss="mse", optimizer=made, run_eagerly=True)
        return model

    return builder


def trained(start, unit, strategy):
    fed = world(start, (16, 16), x=X * np.float32(unit), y=Y)
    settings = {"server_learning_rate": 0.1 / unit, "tau": 1e-3 / unit} if strategy == "fed_adam" else {}
    model = fed.model(linear(unit), strategy=strategy, strategy_parameters=settings)
    model.fit(fed.x, fed.y, epochs=2, batch_size=8, verbose=0)
    found = weights_of(model)[0] * unit
    sf.shutdown()
    return found


CASES = [
    pytest.param(s, u, marks=() if (s, u) == ("fed_avg_g", 1e9) else pytest.mark.slow)
    for s in STRATEGIES
    for u in (1e9, 1e-9, 1e15, 1e-15)
]


@pytest.mark.parametrize(("strategy", "unit"), CASES)
def test_metres_and_nanometres_come_to_the_same_model(start, strategy, unit):
    metres, others = (trained(start, one, strategy) for one in (1.0, unit))
    assert np.abs(metres - 0.1).max() > 0.1, "it has moved"
    np.testing.assert_allclose(others, metres, rtol=3e-6)


@pytest.mark.parametrize("strategy", ["fed_avg_w", pytest.param("fed_avg_g", marks=pytest.mark.slow)])
def test_batch_normalization_keeps_the_variance_of_small_features(start, strategy):
    """Features of 1e-6 have a variance of 1e-12, beside which the first one, 1, is enormous."""
    x = X * np.float32(1e-6) + np.float32(3e-6)

    def builder():
        import keras

        normal = keras.layers.BatchNormalization(momentum=0.0, epsilon=1e-14)
        model = keras.Sequential([keras.Input((3,)), normal, keras.layers.Dense(1)])
        model.compile(loss="mse", optimizer="sgd", run_eagerly=True)
        return model

    fed = world(start, (12, 20), x=x, y=Y)
    model = fed.model(builder, strategy=strategy)
    model.fit(fed.x, fed.y, epochs=1, batch_size=32, verbose=0)
    _, _, mean, variance = model.global_model().layers[0].get_weights()
    parts = [part for part, _ in fed.parts]
    for found, statistic in ((mean, np.mean), (variance, np.var)):
        expected = sum(len(part) * statistic(part.astype(float), axis=0) for part in parts) / len(x)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
