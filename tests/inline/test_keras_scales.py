# SPDX-License-Identifier: Apache-2.0
"""Loss scales, fixed and dynamic, where a strategy has the gradient in reach."""

import numpy as np
import pytest
from inline.federated import RATE, by_hand, weights_of, world
from inline.keras_models import Y, batches, ready
from inline.keras_steps import sequential, without_pull

from fedray.errors import DataError

pytestmark = pytest.mark.usefixtures("kernels_kept")


@pytest.mark.parametrize("strategy", ["fed_avg_g", "fed_prox"])
def test_a_scaled_loss_trains_as_one_that_is_not(start, strategy):
    fed = world(start, rows=(20, 10))
    scaled = sequential(
        lambda keras: keras.layers.Dense(3, activation="softmax"),
        optimizer=lambda optimizers: optimizers.SGD(RATE, loss_scale_factor=1024.0),
        loss="categorical_crossentropy",
    )
    parameters = {"mu": 0.5} if strategy == "fed_prox" else {}
    model = fed.model(scaled, strategy=strategy, strategy_parameters=parameters)
    first = weights_of(model)
    history = model.fit(fed.x, fed.y, epochs=2, batch_size=10, verbose=0).history
    expected = by_hand(first, fed.parts, strategy=strategy, **parameters, epochs=2, batch_size=10)
    for found, wanted in zip(weights_of(model), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert history["loss"][1] < history["loss"][0]


def half(keras, **arguments):
    return keras.layers.Dense(3, dtype="mixed_float16", **arguments)


def scaled_by(scale):
    """Half precision under a dynamic loss scale; one of 2^30 overflows at first."""
    return sequential(
        lambda keras: keras.layers.BatchNormalization(),
        half,
        optimizer=lambda optimizers: optimizers.LossScaleOptimizer(optimizers.SGD(0.1), initial_scale=scale),
    )


def test_an_overflow_of_one_party_is_computed_anew_and_no_row_is_lost():
    """Keras would skip the step; if one party did, its weights would no longer be those of the others."""
    found = {}
    for scale in (2.0**4, 2.0**30):
        backend, data = ready(scaled_by(scale))
        gradient, rows = backend.gradient(data, batches(10, 20))
        backend.apply_gradient(gradient)
        (loss,) = backend.take_metrics()
        found[scale] = np.array(gradient), backend.weights().copy(), rows, loss.count, float(loss)
        left = float(backend._model.optimizer.dynamic_scale)
    low, high = found.values()
    assert np.isfinite(high[0]).all()
    np.testing.assert_allclose(high[0], low[0], rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(high[1], low[1], rtol=1e-2, atol=1e-4)
    assert high[2:] == pytest.approx(low[2:])
    assert 1 < left < 2.0**30


def test_an_overflow_under_a_hook_skips_the_step_as_keras_does():
    backend, data = ready(scaled_by(2.0**20))
    first, start = backend.snapshot(), backend.weights().copy()
    trained, *_ = backend.train(start, data, batches(*[5] * 12))
    left = float(backend._model.optimizer.dynamic_scale)
    assert left < 2.0**20
    backend.restore(first)
    backend.set_weights(start)
    np.testing.assert_allclose(without_pull(backend, data, batches(*[5] * 12)), trained, rtol=1e-3, atol=1e-5)
    assert float(backend._model.optimizer.dynamic_scale) == left


def test_a_local_gradient_that_no_scale_makes_finite_stops_the_party():
    builder = sequential(
        lambda keras: keras.layers.Dense(3),
        optimizer=lambda optimizers: optimizers.LossScaleOptimizer(optimizers.SGD(0.1)),
    )
    backend, data = ready(builder, y=np.full_like(Y, np.inf), local=["*/bias"])
    with pytest.raises(DataError, match="gradient of a local tensor is not finite"):
        backend.gradient(data, batches(10))
