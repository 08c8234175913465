# SPDX-License-Identifier: Apache-2.0
"""The Keras backend in one process: it trains as Keras does, behind one flat vector."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fedray.backends.backend import Batch
from fedray.backends.keras import KerasBackend
from fedray.party.batches import in_order

RNG = np.random.default_rng(7)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = np.eye(3, dtype=np.float32)[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]


def dense(optimizer="sgd", metrics=("accuracy",), **compile_arguments):
    def builder():
        import keras

        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(3, activation="softmax")]
        )
        model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=list(metrics), **compile_arguments)
        return model

    return builder


def noisy():
    import keras
    from keras import layers

    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, optimizer="adam", metrics=["accuracy"])
    return model


def batches(*sizes, start=0):
    bounds = np.cumsum([start, *sizes])
    return [Batch(np.arange(a, b)) for a, b in pairwise(bounds)]


def test_a_round_trains_exactly_as_keras_fit_does():
    backend = KerasBackend(dense("adam"), seed=1)
    data = backend.bind(X, Y)
    start = backend.weights()
    trained, rows = backend.train(start, data, in_order(60, 16))

    import keras

    reference = dense("adam")()
    reference.set_weights(backend.spec.unpack(start))
    history = reference.fit(X, Y, batch_size=16, shuffle=False, verbose=0).history
    assert rows == 60
    np.testing.assert_allclose(trained, backend.spec.pack(reference.get_weights()), rtol=1e-5, atol=1e-6)
    loss, accuracy = backend.take_metrics()
    assert float(loss) == pytest.approx(history["loss"][0], rel=1e-5)
    assert float(accuracy) == pytest.approx(history["accuracy"][0])
    assert (loss.name, loss.count, accuracy.count) == ("loss", 60.0, 60.0)
    assert keras.backend.backend() == "tensorflow"
