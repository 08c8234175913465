# SPDX-License-Identifier: Apache-2.0
"""Gradients in reach: fed_prox's hook and fed_avg_g's mean, on the Keras backend."""

import numpy as np
import pytest
from inline.keras_models import EAGERLY, batches, dense, hooked_by, noisy, ready

from fedray.strategies import make_strategy

pytestmark = pytest.mark.usefixtures("kernels_kept")


def test_the_gradient_of_a_round_is_the_mean_over_its_rows():
    backend, data = ready(dense())
    parts, rows = backend.gradient(data, batches(10, 30))
    whole, _ = backend.gradient(data, batches(40))
    assert rows == 40
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-7)
    start = backend.weights()
    backend.apply_gradient(whole)
    np.testing.assert_allclose(backend.weights(), start - 0.01 * whole, rtol=1e-5, atol=1e-7)
    assert backend.take_metrics()[0].count == 80


def test_a_gradient_round_is_a_training_round():
    """One mean gradient applied by Adam is the same step that Keras's train_step makes, BatchNorm included."""

    def builder():
        import keras
        from keras import layers

        model = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.BatchNormalization(), layers.Dense(3)])
        model.compile(loss="mse", optimizer="adam", run_eagerly=True)
        return model

    stepped, data = ready(builder)
    trained, *_ = stepped.train(stepped.weights(), data, batches(40))
    backend, data = ready(builder)
    backend.apply_gradient(backend.gradient(data, batches(40))[0])
    np.testing.assert_allclose(backend.weights(), trained, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("run_eagerly", EAGERLY)
def test_no_rows_have_the_gradient_zero(run_eagerly):
    backend, data = ready(lambda: noisy(run_eagerly))
    gradient, rows = backend.gradient(data, [])
    assert rows == 0
    assert not gradient[: backend.spec.trainable].any()
    assert gradient[backend.spec.trainable :].tolist() == backend.weights()[backend.spec.trainable :].tolist()


@pytest.mark.parametrize("run_eagerly", EAGERLY)
def test_a_hook_that_changes_nothing_changes_nothing(run_eagerly):
    """The step with a gradient in reach is Keras's standard step, regularizers and BatchNorm included."""

    def builder():
        import keras
        from keras import layers

        dense = layers.Dense(6, kernel_regularizer="l2")
        model = keras.Sequential([keras.Input((4,)), dense, layers.BatchNormalization(), layers.Dense(3)])
        model.compile(loss="mse", optimizer="adam", metrics=["mae"], run_eagerly=run_eagerly)
        return model

    backend, data = ready(builder)
    plain, *_ = backend.train(backend.weights(), data, batches(20, 20))
    hooked, same = ready(builder)
    start = hooked.weights()
    prox = make_strategy("fed_prox", {"mu": 0.0})
    pulled, *_ = hooked.train(start, same, batches(20, 20), *hooked_by(prox, hooked, start))
    np.testing.assert_allclose(pulled, plain, rtol=1e-5, atol=1e-7)
    for one, other in zip(backend.take_metrics(), hooked.take_metrics(), strict=True):
        assert (one.name, one.count) == (other.name, other.count)
        assert one.total == pytest.approx(other.total, rel=1e-5)


def test_fed_prox_pulls_towards_the_anchor_of_each_round():
    """SGD with rate 0.1 and mu 5 moves half the way back to the anchor; a frozen first anchor would be seen."""
    prox = make_strategy("fed_prox", {"mu": 5.0})

    def pull(backend, data, start, anchor):
        """What the hook adds to one step: the difference to the same step without it."""
        plain, *_ = backend.train(start, data, batches(60))
        pulled, *_ = backend.train(start, data, batches(60), *hooked_by(prox, backend, anchor))
        return pulled - plain

    backend, data = ready(dense(run_eagerly=True))
    backend.set_learning_rate(0.1)
    start = backend.weights()
    for anchor in (start, start + 1, start - 2):
        expected = -0.5 * (start - anchor)
        np.testing.assert_allclose(pull(backend, data, start, anchor), expected, atol=1e-5)


def test_the_anchor_covers_the_trainable_words_only():
    backend, data = ready(lambda: noisy(run_eagerly=True))
    prox = make_strategy("fed_prox", {"mu": 0.1})
    start = backend.weights()
    trained, *_ = backend.train(start, data, batches(20), *hooked_by(prox, backend, start))
    assert np.isfinite(trained).all()


@pytest.mark.parametrize("run_eagerly", EAGERLY)
def test_embeddings_have_dense_gradients_under_a_hook(run_eagerly):
    def builder():
        import keras
        from keras import layers

        model = keras.Sequential([keras.Input((2,), dtype="int32"), layers.Embedding(5, 3), layers.Flatten()])
        model.add(layers.Dense(3, activation="softmax"))
        model.compile(loss="categorical_crossentropy", optimizer="sgd", run_eagerly=run_eagerly)
        return model

    tokens = np.random.default_rng(0).integers(0, 5, (60, 2))
    plain, data = ready(builder, x=tokens)
    expected, *_ = plain.train(plain.weights(), data, batches(30, 30))
    backend, data = ready(builder, x=tokens)
    start = backend.weights()
    prox = make_strategy("fed_prox", {"mu": 0.0})
    pulled, *_ = backend.train(start, data, batches(30, 30), *hooked_by(prox, backend, start))
    np.testing.assert_allclose(pulled, expected, rtol=1e-5, atol=1e-7)
