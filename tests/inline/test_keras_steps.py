# SPDX-License-Identifier: Apache-2.0
"""What Keras's step does beside the optimizer's rule: gradients that pile up or are not there, losses, masks."""

import numpy as np
import pytest
from inline.federated import RATE, weights_of, world
from inline.keras_models import EAGERLY, X, Y, batches, bind, ready, stock
from inline.keras_steps import ALICE, BOB, POOLED, joint_steps, keras_steps, sequential, without_pull

from fedray.backends.backend import Batch
from fedray.backends.keras.model import KerasBackend
from fedray.ml.nn.plan import plan_fit

pytestmark = pytest.mark.usefixtures("kernels_kept")

TOKENS = np.random.default_rng(0).integers(0, 5, (60, 4))


@pytest.mark.parametrize("strategy", [pytest.param("fed_avg_g", marks=pytest.mark.slow), "fed_avg_w"])
def test_accumulated_gradients_live_on_over_rounds_of_uneven_parties(start, strategy):
    """Stock Keras models, averaged by hand after every round: a party without rows in a round takes part in no step."""
    sizes = {"alice": 20, "bob": 20, "carol": 2}
    fed = world(start, rows=tuple(sizes.values()))
    accumulating = sequential(
        lambda keras: keras.layers.Dense(3, activation="softmax"),
        optimizer=lambda optimizers: optimizers.SGD(RATE, gradient_accumulation_steps=2),
        loss="categorical_crossentropy",
    )
    model = fed.model(accumulating, strategy=strategy)
    center = weights_of(model)
    stocks = [accumulating() for _ in sizes]
    for epochs in (1, 2):
        model.fit(fed.x, fed.y, epochs=epochs, batch_size=7, shuffle=False, verbose=0)
        plan = plan_fit(sizes, seed=3, batch_size=7, epochs=epochs, shuffle=False)
        for segment in plan:
            dealt = [plan.sampling.deal(name, rows, segment.epoch) for name, rows in sizes.items()]
            for one in segment.rounds:
                held = [[batch.rows for step in steps[one.start : one.stop] for batch in step] for steps in dealt]
                center = averaged(stocks, center, fed.parts, held, pooled=strategy == "fed_avg_g")
    for found, wanted in zip(weights_of(model), center, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_what_a_party_has_piled_up_for_its_own_tensors_is_not_lost_in_a_round_without_rows():
    builder = sequential(
        lambda keras: keras.layers.Dense(3),
        optimizer=lambda optimizers: optimizers.SGD(1.0, gradient_accumulation_steps=2),
    )
    whole, everything = ready(builder)
    moved = whole.gradient(everything, batches(10))[0][-3:]
    backend, data = ready(builder, local=["*/bias"])
    mean, _ = backend.gradient(data, batches(10))
    backend.apply_gradient(mean)
    backend.apply_gradient(mean)
    bias = backend._model.layers[-1].bias.numpy()
    np.testing.assert_allclose(bias, -0.5 * moved, atol=1e-6)


def averaged(stocks, center, parts, held, pooled):
    """Trains stock models on what each party holds in a round; returns their mean, or what one makes of all rows."""
    if pooled:
        rows = [(x[batch], y[batch]) for (x, y), mine in zip(parts, held, strict=True) for batch in mine]
        stocks[0].set_weights(center)
        stocks[0].train_on_batch(*(np.concatenate(arrays) for arrays in zip(*rows, strict=True)))
        return stocks[0].get_weights()
    total, sums = 0, [0.0 for _ in center]
    for stock_model, (x, y), mine in zip(stocks, parts, held, strict=True):
        stock_model.set_weights(center)
        for rows in mine:
            stock_model.train_on_batch(x[rows], y[rows])
        count = sum(map(len, mine))
        total, sums = total + count, [s + count * w for s, w in zip(sums, stock_model.get_weights(), strict=True)]
    return [s / total for s in sums]


def with_unused(keras):
    class Unused(keras.layers.Layer):
        def build(self, shape):
            self.unused = self.add_weight(shape=(3,), initializer="ones", name="unused")

        def call(self, x):
            return x

    return Unused()


UNTOUCHED = pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")
"""Keras says so of a variable that the loss does not touch, as it should."""


@UNTOUCHED
def test_a_variable_that_the_loss_does_not_touch_is_left_alone():
    """Keras gives it no gradient; with one of zeros, weight decay would shrink it."""
    builder = sequential(
        lambda keras: keras.layers.Dense(3),
        with_unused,
        optimizer=lambda optimizers: optimizers.AdamW(0.1, weight_decay=0.3),
    )
    backend, data = ready(builder)
    start, first = backend.weights().copy(), backend.snapshot()
    expected = keras_steps(backend, builder, start, POOLED)
    assert expected[-3:].tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(joint_steps(backend, data), expected, atol=2e-6)
    backend.restore(first)
    backend.set_weights(start)
    pulled = without_pull(backend, data, [Batch(rows) for rows in POOLED])
    np.testing.assert_allclose(pulled, expected, atol=2e-6)


@UNTOUCHED
@pytest.mark.parametrize("eager", EAGERLY)
def test_a_party_that_has_had_no_rows_takes_the_same_step(eager):
    def builder():
        model = sequential(
            lambda keras: keras.layers.Dense(3),
            with_unused,
            lambda keras: keras.layers.BatchNormalization(),
            optimizer=lambda optimizers: optimizers.AdamW(0.1, weight_decay=0.3),
        )()
        model.run_eagerly = eager
        return model

    backend, data = ready(builder)
    mean, _ = backend.gradient(data, batches(10))
    backend.apply_gradient(mean)
    without, _ = ready(builder)
    without.apply_gradient(mean)
    assert without.weights().tolist() == backend.weights().tolist()
    assert without.take_metrics()[0].count == 0


def with_tracker():
    """A model as in Keras's guide: a loss of its own, tracked in a metric of its own, and called as it likes."""
    import keras

    class Own(keras.Model):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            self.tracker = keras.metrics.Mean("loss")

        def compute_loss(self, x, y, predicted, weights, training=True):
            loss = keras.ops.mean((predicted - y) ** 2)
            self.tracker.update_state(loss)
            return loss

        @property
        def metrics(self):
            return [self.tracker]

    inputs = keras.Input((4,))
    model = Own(inputs, keras.layers.Dense(3)(inputs))
    model.compile(optimizer="sgd", run_eagerly=True)
    return model


def test_a_loss_that_tracks_itself_is_counted_once():
    backend, data = ready(with_tracker)
    first, start = backend.snapshot(), backend.weights().copy()
    trained, *_ = backend.train(start, data, batches(20, 5))
    (plain,) = backend.take_metrics()
    backend.restore(first)
    backend.set_weights(start)
    pulled = without_pull(backend, data, batches(20, 5))
    np.testing.assert_allclose(pulled, trained, atol=1e-6)
    (found,) = backend.take_metrics()
    assert (found.name, found.count) == (plain.name, plain.count) == ("loss", 2.0)
    assert float(found) == pytest.approx(float(plain), rel=1e-5)


def test_copies_of_the_weights_follow_weights_that_are_loaded():
    """Keras builds its optimizer at the first step, here it is built with the model."""
    builder = sequential(
        lambda keras: keras.layers.Dense(3), optimizer=lambda optimizers: optimizers.ScheduleFreeAdamW(0.1)
    )
    import keras

    if not hasattr(keras.optimizers, "ScheduleFreeAdamW"):
        pytest.skip("this Keras has no ScheduleFreeAdamW")
    backend, data = ready(builder)
    first, loaded = backend.snapshot(), backend.weights() + np.float32(0.5)
    backend.set_weights(loaded)
    np.testing.assert_allclose(joint_steps(backend, data), keras_steps(backend, builder, loaded, POOLED), atol=2e-6)
    backend.restore(first)
    flat = loaded
    for rows in POOLED:
        flat = backend.train(flat, data, [Batch(rows)])[0].copy()
    np.testing.assert_allclose(flat, keras_steps(backend, builder, loaded, POOLED), atol=2e-6)


@pytest.mark.parametrize(
    "optimizer", ["adam", *(pytest.param(one, marks=pytest.mark.slow) for one in ("sgd", "clipnorm"))]
)
def test_the_gradient_of_an_embedding_adds_up_the_occurrences_of_a_row(optimizer):
    """As a matrix has it; Keras's own step squares and clips each occurrence by itself."""

    def made(optimizers):
        return {"adam": optimizers.Adam(0.1), "clipnorm": optimizers.SGD(1.0, clipnorm=0.01)}.get(
            optimizer, optimizers.SGD(0.1)
        )

    def matrix(keras):
        class Matrix(keras.layers.Layer):
            def build(self, shape):
                self.matrix = self.add_weight(shape=(5, 2), initializer="uniform", name="embeddings")

            def call(self, x):
                return keras.ops.one_hot(x, 5) @ self.matrix

        return Matrix()

    after = (lambda keras: keras.layers.Flatten(), lambda keras: keras.layers.Dense(3))
    embedded = sequential(lambda keras: keras.layers.Embedding(5, 2), *after, optimizer=made, dtype="int32")
    multiplied = sequential(matrix, *after, optimizer=made, dtype="int32")
    backend, data = ready(embedded, x=TOKENS)
    start, first = backend.weights().copy(), backend.snapshot()
    expected = keras_steps(backend, multiplied, start, POOLED, x=TOKENS)
    np.testing.assert_allclose(joint_steps(backend, data), expected, atol=2e-6)
    backend.restore(first)
    backend.set_weights(start)
    pulled = without_pull(backend, data, [Batch(rows) for rows in POOLED])
    np.testing.assert_allclose(pulled, expected, atol=2e-6)


@pytest.mark.parametrize("loss", ["masked", "mean_with_sample_weight"])
def test_a_loss_that_is_no_mean_over_rows_is_divided_in_each_party(loss):
    """The step is the mean by rows of the steps that Keras takes on each party's rows."""
    if loss == "masked":
        layers = (
            lambda keras: keras.layers.Reshape((4, 1)),
            lambda keras: keras.layers.Masking(0.0),
            lambda keras: keras.layers.Dense(3),
        )
        x, y, weight = np.where(X > 0, X, 0), np.repeat(Y[:, None], 4, axis=1), None
        builder = sequential(*layers)
    else:
        x, y, weight = X, Y, np.linspace(0, 3, 60, dtype=np.float32)
        builder = sequential(
            lambda keras: keras.layers.Dense(3),
            loss=lambda losses: losses.MeanSquaredError(reduction="mean_with_sample_weight"),
        )
    backend = KerasBackend(builder, seed=1)
    data = bind(backend, x, y, sample_weight=weight)
    start, expected = backend.weights().copy(), 0
    for rows in (ALICE[0], BOB[0]):
        model = stock(backend, builder, start)
        model.train_on_batch(x[rows], y[rows], None if weight is None else weight[rows])
        expected = expected + len(rows) / 8 * backend.spec.pack(model.get_weights())
    np.testing.assert_allclose(joint_steps(backend, data, (ALICE[:1], BOB[:1])), expected, atol=2e-6)
