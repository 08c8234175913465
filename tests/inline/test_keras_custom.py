# SPDX-License-Identifier: Apache-2.0
"""Models with a train_step of their own on the Keras backend."""

import numpy as np
import pytest
from inline.keras_models import batches, hooked_by, in_order, ready

from fedray.backends.keras.model import KerasBackend
from fedray.errors import PlanError
from fedray.metrics import Word
from fedray.strategies import make_strategy


def own_step(returns="metrics"):
    """Keras's guide to customizing fit, which unpacks x and y."""

    def builder():
        import keras
        import tensorflow as tf

        class Own(keras.Model):
            def train_step(self, data):
                x, y = data
                with tf.GradientTape() as tape:
                    loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
                gradients = tape.gradient(loss, self.trainable_variables)
                self.optimizer.apply([2.0 * gradient for gradient in gradients], self.trainable_variables)
                if returns == "values":
                    return {"loss": loss, "twice": 2.0 * loss}
                for metric in self.metrics:
                    if metric.name == "loss":
                        metric.update_state(loss, sample_weight=tf.shape(x)[0])
                    else:
                        metric.update_state(y, self(x))
                return {metric.name: metric.result() for metric in self.metrics}

        inputs = keras.Input((4,))
        model = Own(inputs, keras.layers.Dense(3)(inputs))
        model.compile(loss="mse", optimizer="sgd", metrics=["mae"], run_eagerly=returns == "values")
        return model

    return builder


def test_it_gets_x_and_y_as_from_keras_fit_and_its_step_is_the_one_taken():
    backend, data = ready(own_step())
    start = backend.weights()
    gradient = _gradient(start)
    trained, rows, _ = backend.train(start, data, batches(60))
    assert rows == 60
    np.testing.assert_allclose(trained, start - 2 * 0.01 * gradient, rtol=1e-4, atol=1e-6)
    assert [(m.name, m.count) for m in backend.take_metrics()] == [("loss", 60.0), ("mae", 60.0)]


def _gradient(start):
    def builder():
        import keras

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile(loss="mse", optimizer="sgd", run_eagerly=True)
        return model

    backend, data = ready(builder)
    backend.set_weights(start)
    return backend.gradient(data, batches(60))[0]


def test_values_that_no_metric_keeps_are_averaged_over_rows():
    backend, data = ready(own_step("values"))
    words = backend.facts().train_words
    # Nothing of a step of the user's own is declared whole.
    assert words == tuple(Word(name, False) for name in ("loss/0", "loss/1", "twice/0", "twice/1"))
    backend.set_learning_rate(0.0)
    start = backend.weights()
    backend.train(start, data, batches(10, 50))
    twice = backend.take_metrics()[1]
    whole = float(backend.evaluate(data, in_order(60, 60))[0])
    assert (twice.name, twice.count) == ("twice", 60.0)
    assert float(twice) == pytest.approx(2 * whole, rel=1e-5)
    before = backend.snapshot()
    backend.train(start, data, batches(10))
    backend.restore(before)
    assert backend.take_metrics()[1].count == 0.0


def test_strategies_that_need_its_gradient_refuse_it_by_name():
    backend, data = ready(own_step())
    start = backend.weights()
    prox = make_strategy("fed_prox", {"mu": 0.1})
    for name in ("fed_prox", "fed_avg_g"):
        with pytest.raises(
            PlanError, match=f"has a custom train_step, which strategy '{name}' cannot be combined with"
        ):
            backend.check_strategy(make_strategy(name))
    backend.check_strategy(make_strategy("fed_avg_w"))
    with pytest.raises(PlanError, match="custom train_step, which a strategy that changes gradients"):
        backend.train(start, data, batches(60), *hooked_by(prox, backend, start))
    with pytest.raises(PlanError, match="custom train_step, which a strategy that averages gradients"):
        backend.gradient(data, batches(60))


def autoencoder():
    import keras
    import tensorflow as tf

    class Auto(keras.Model):
        def train_step(self, x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x, training=True) - x) ** 2)
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"reconstruction": loss}

        def test_step(self, x):
            return {"reconstruction": tf.reduce_mean((self(x) - x) ** 2)}

    inputs = keras.Input((4,))
    model = Auto(inputs, keras.layers.Dense(4)(keras.layers.Dense(2)(inputs)))
    model.compile(optimizer="adam")
    return model


def test_a_model_without_labels_is_handed_x_alone():
    backend, data = ready(autoencoder, y=None)
    first = float(backend.evaluate(data, in_order(60, 20))[0])
    flat = backend.weights()
    for _ in range(30):
        flat, *_ = backend.train(flat, data, batches(30, 30))
    (metric,) = backend.evaluate(data, in_order(60, 20))
    assert (metric.name, metric.count) == ("reconstruction", 60.0)
    assert float(metric) < first
    assert [m.name for m in backend.take_metrics()] == ["reconstruction"]


def test_a_compute_loss_of_the_users_own_is_used_under_a_hook_too():
    def builder():
        import keras

        class Doubled(keras.Model):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
                return 2.0 * super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)

        inputs = keras.Input((4,))
        model = Doubled(inputs, keras.layers.Dense(3)(inputs))
        model.compile(loss="mse", optimizer="sgd", run_eagerly=True)
        return model

    backend, data = ready(builder)
    start = backend.weights()
    np.testing.assert_allclose(backend.gradient(data, batches(60))[0], 2 * _gradient(start), rtol=1e-4, atol=1e-6)


def test_random_numbers_without_a_seed_are_reproducible_and_go_back_with_a_round():
    """keras.random without a seed draws from a global generator, which the trace makes and the backend adopts."""

    def builder():
        import keras

        class Noise(keras.layers.Layer):
            def call(self, x, training=False):
                return x + keras.random.normal((4,)) if training else x

        model = keras.Sequential([keras.Input((4,)), Noise(), keras.layers.Dense(3)])
        model.compile(loss="mse", optimizer="sgd")
        return model

    results = []
    for _ in range(2):
        backend, data = ready(builder)
        start, *_ = backend.train(backend.weights(), data, batches(20))
        before = backend.snapshot()
        first, _, left = backend.train(start, data, batches(20, 20))
        for kept, value in zip(left["variables"], backend.snapshot()["variables"], strict=True):
            assert kept.numpy().tolist() == value.numpy().tolist()
        backend.restore(before)
        assert backend.train(start, data, batches(20, 20))[0].tolist() == first.tolist()
        assert backend.train(start, data, batches(20, 20))[0].tolist() != first.tolist()
        results.append(first.tolist())
    assert results[0] == results[1]


def test_a_model_that_replaces_keras_own_functions_is_refused():
    def builder():
        import keras

        class Own(keras.Model):
            def make_train_function(self, force=False):
                return None

        inputs = keras.Input((4,))
        model = Own(inputs, keras.layers.Dense(3)(inputs))
        model.compile(loss="mse", optimizer="sgd")
        return model

    with pytest.raises(PlanError, match="overrides make_train_function"):
        KerasBackend(builder, seed=1)
