# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules go by the batches that all have planned, every other count of an optimizer by its own."""

import numpy as np
import pytest
from inline.federated import by_hand, softmax, weights_of, world
from inline.keras_models import X, Y, batches, dense, ready, stock
from inline.test_keras_refusals import needs_several

from fedray.errors import PlanError

pytestmark = pytest.mark.usefixtures("kernels_kept")


def scheduled(kind, run_eagerly=False, scaled=False):
    """A model whose rate is 0.5 at step 0 and a tenth of that at each further one."""

    def builder():
        import keras

        rate = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.1)
        optimizer = getattr(keras.optimizers, kind)(rate)
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
        return dense(optimizer, run_eagerly=run_eagerly)()

    return builder


def by_keras(backend, kind, start, rates):
    """The weights after one batch of 10 rows at each of these rates, in file order, by plain Keras."""
    import keras

    optimizer = getattr(keras.optimizers, kind)(0.0)
    model = stock(backend, dense(optimizer), start)
    for place, rate in enumerate(rates):
        optimizer.learning_rate = rate
        rows = slice(10 * place, 10 * place + 10)
        model.train_on_batch(X[rows], Y[rows])
    return np.concatenate([np.ravel(weight) for weight in model.get_weights()])


@pytest.mark.parametrize(
    ("kind", "run_eagerly", "scaled"),
    [("SGD", True, True), ("Adam", True, False), pytest.param("Adam", False, False, marks=pytest.mark.slow)],
)
def test_a_schedule_goes_by_planned_batches_and_bias_correction_by_those_taken(kind, run_eagerly, scaled):
    backend, data = ready(scheduled(kind, run_eagerly, scaled))
    start = backend.weights().copy()
    places, flat = batches(*[10] * 6), start
    for first, planned, taken in ((0, 1, places[:3]), (1, 2, places[3:5]), (3, 1, places[5:])):
        backend.begin_round(first, planned, 0)
        assert backend.learning_rate() == pytest.approx(0.5 * 0.1**first)
        flat, *_ = backend.train(flat, data, taken)
    expected = by_keras(backend, kind, start, [0.5, 0.5, 0.5, 0.05, 0.005, 0.0005])
    np.testing.assert_allclose(flat, expected, rtol=0, atol=2e-6)


def test_a_party_without_rows_is_no_step_behind_and_a_round_put_back_is_none_ahead():
    backend, data = ready(scheduled("SGD", run_eagerly=True))
    kept = backend.snapshot()
    backend.begin_round(0, 4, 0)
    backend.train(backend.weights(), data, batches(10, 10))
    backend.restore(kept)
    backend.begin_round(2, 1, 0)
    assert backend.learning_rate() == pytest.approx(0.005)
    start = backend.weights().copy()
    flat, *_ = backend.train(start, data, batches(10))
    np.testing.assert_allclose(flat, by_keras(backend, "SGD", start, [0.005]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("strategy", [pytest.param("fed_avg_w", marks=pytest.mark.slow), "fed_avg_g"])
def test_uneven_parties_are_at_the_same_step_of_a_schedule_in_every_fit(start, strategy):
    """60 rows and 2 make two rounds, of three batches at one party and one at the other; the rate ends after both."""

    def builder():
        import keras

        model = softmax()()
        model.optimizer = None
        rate = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.0])
        model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.SGD(rate), run_eagerly=True)
        return model

    fed = world(start, rows=(58, 2))
    model = fed.model(builder, strategy=strategy)
    before = weights_of(model)
    model.fit(fed.x, fed.y, batch_size=10, verbose=0)
    once = weights_of(model)
    expected = by_hand(before, fed.parts, strategy=strategy, batch_size=10, epochs=1)
    for found, wanted in zip(once, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)
    model.fit(fed.x, fed.y, batch_size=10, verbose=0)
    for found, wanted in zip(weights_of(model), once, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-8)


def of_two_optimizers():
    import keras

    decay = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.1)
    chosen = {True: keras.optimizers.SGD(decay), False: keras.optimizers.SGD(0.25)}
    both = keras.optimizers.MultiOptimizer(lambda variable: chosen["kernel" in variable.path])
    return dense(both, run_eagerly=True)()


@needs_several
def test_each_of_several_optimizers_is_where_its_own_schedule_is_and_none_has_the_rate(start, tmp_path):
    backend, data = ready(of_two_optimizers)
    flat = kept = backend.weights().copy()
    for first in (0, 2):  # a batch of somebody else's lies between
        backend.begin_round(first, 1, 0)
        flat, *_ = backend.train(flat, data, batches(10))
    plain = stock(backend, of_two_optimizers, kept)
    plain.optimizer.build(plain.trainable_variables)
    for wait in (0, 1):
        for optimizer in plain.optimizer.optimizers:
            optimizer.iterations.assign_add(wait)
        plain.train_on_batch(X[:10], Y[:10])
    np.testing.assert_allclose(flat, np.concatenate([np.ravel(w) for w in plain.get_weights()]), rtol=0, atol=2e-6)
    with pytest.raises(PlanError, match="a MultiOptimizer has no rate of its own"):
        backend.learning_rate()
    with pytest.raises(PlanError, match="a MultiOptimizer has no rate of its own"):
        backend.set_learning_rate(0.1)
    model = world(start).model(of_two_optimizers)
    with pytest.raises(PlanError, match=r"MultiOptimizer cannot be made anew .*; give it functions"):
        model.save(tmp_path / "it.keras")  # Keras would not load it again, for the lambda
