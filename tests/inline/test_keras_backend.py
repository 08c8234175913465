# SPDX-License-Identifier: Apache-2.0
"""The Keras backend in one process: it trains as Keras does, behind one flat vector."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from inline.keras_models import (
    CLASS,
    EAGERLY,
    X,
    Y,
    batches,
    bind,
    dense,
    hooked_by,
    in_order,
    noisy,
    one_matrix,
    ready,
    stock,
)

from fedray.backends.keras.model import KerasBackend
from fedray.errors import PlanError
from fedray.strategies import make_strategy

pytestmark = pytest.mark.usefixtures("kernels_kept")


@pytest.fixture(scope="module")
def traced():
    """The noisy backend and its data, for all tests that begin where it was built: every graph is traced once."""
    backend, data = ready(noisy)
    return backend, data, backend.weights().copy(), backend.snapshot()


@pytest.fixture
def built(traced):
    """Returns that backend as it was built, and its data."""
    backend, data, weights, state = traced
    backend.set_weights(weights)
    backend.restore(state)
    return backend, data


def keras_fit(backend, builder, start, batch_size, **arguments):
    """Trains the same model with Keras's own fit from the same weights; returns weights and history."""
    reference = stock(backend, builder, start)
    history = reference.fit(X, Y, batch_size=batch_size, shuffle=False, verbose=0, **arguments).history
    return backend.spec.pack(reference.get_weights()), history


def test_a_round_trains_exactly_as_keras_fit_does():
    backend, data = ready(dense("adam"))
    start = backend.weights()
    trained, rows, _ = backend.train(start, data, in_order(60, 16))
    expected, history = keras_fit(backend, dense("adam"), start, 16)
    assert rows == 60
    np.testing.assert_allclose(trained, expected, rtol=1e-5, atol=1e-6)
    loss, accuracy = backend.take_metrics()
    assert float(loss) == pytest.approx(history["loss"][0], rel=1e-5)
    assert float(accuracy) == pytest.approx(history["accuracy"][0])
    assert (loss.name, loss.count, accuracy.count) == ("loss", 60.0, 60.0)


def test_the_optimizer_keeps_its_state_over_rounds():
    eager = dense("adam", run_eagerly=True)
    backend, data = ready(eager)
    start = backend.weights()
    flat = start
    for batch in in_order(60, 16):
        flat, *_ = backend.train(flat, data, [batch])
    again, data = ready(eager)
    whole, *_ = again.train(start, data, in_order(60, 16))
    assert flat.tolist() == whole.tolist()


@pytest.mark.parametrize("weights", ["sample_weight", "class_weight"])
def test_weights_of_rows_and_classes_are_those_of_keras(weights):
    value = {0: 0.5, 2: 3.0} if weights == "class_weight" else np.linspace(0, 2, 60)
    builder = dense(run_eagerly=weights == "class_weight")
    backend = KerasBackend(builder, seed=1)
    data = bind(backend, X, Y, **{weights: value})
    start = backend.weights()
    trained, *_ = backend.train(start, data, in_order(60, 16))
    expected, history = keras_fit(backend, builder, start, 16, **{weights: value})
    np.testing.assert_allclose(trained, expected, rtol=1e-5, atol=1e-6)
    assert float(backend.take_metrics()[0]) == pytest.approx(history["loss"][0], rel=1e-5)


def test_class_weights_read_class_numbers_and_one_hot_labels_alike():
    one_hot = bind(KerasBackend(dense(), seed=1), X, Y, class_weight={1: 5.0})
    numbers = bind(KerasBackend(dense(loss="sparse_categorical_crossentropy"), seed=1), X, CLASS, class_weight={1: 5.0})
    expected = np.where(CLASS == 1, 5.0, 1.0).tolist()
    assert one_hot.tensors[2].numpy().tolist() == numbers.tensors[2].numpy().tolist() == expected


def test_batchnorm_statistics_are_in_the_vector_behind_the_trainables_and_counters_are_not(built):
    backend, data = built
    names = backend.spec.names
    assert names == (
        "dense/kernel",
        "dense/bias",
        "batch_normalization/gamma",
        "batch_normalization/beta",
        "dense_1/kernel",
        "dense_1/bias",
        "batch_normalization/moving_mean",
        "batch_normalization/moving_variance",
    )
    assert backend.spec.trainable == backend.spec.size - 12
    trained, *_ = backend.train(backend.weights(), data, batches(30))
    mean = dict(zip(names, backend.spec.unpack(trained), strict=True))["batch_normalization/moving_mean"]
    assert np.abs(mean).min() > 0


def test_the_model_stands_where_the_round_has_left_it(built):
    backend, data = built
    trained, *_ = backend.train(backend.weights(), data, batches(30, 30))
    assert backend.weights().tolist() == trained.tolist()
    backend.set_weights(np.arange(backend.spec.size, dtype=np.float32))
    assert backend.weights().tolist() == list(range(backend.spec.size))


@pytest.mark.parametrize("run_eagerly", EAGERLY)
def test_two_runs_with_one_seed_are_bit_equal(run_eagerly):
    results = []
    for _ in range(2):
        backend, data = ready(lambda: noisy(run_eagerly), noise_seed=5)
        flat = backend.weights()
        for _ in range(3):
            flat, *_ = backend.train(flat, data, batches(13, 20, 27))
        results.append((flat.tolist(), [float(m) for m in backend.take_metrics()]))
    assert results[0] == results[1]


def test_parties_start_equal_and_draw_their_own_noise():
    alice, alices = ready(lambda: noisy(run_eagerly=True), noise_seed=1)
    bob, bobs = ready(lambda: noisy(run_eagerly=True), noise_seed=2)
    assert alice.spec == bob.spec
    assert alice.weights().tolist() == bob.weights().tolist()
    assert alice.fingerprint() == bob.fingerprint()
    assert (
        alice.train(alice.weights(), alices, batches(60))[0].tolist()
        != bob.train(bob.weights(), bobs, batches(60))[0].tolist()
    )
    assert alice.weights().tolist() != KerasBackend(noisy, seed=2).weights().tolist()


@pytest.mark.slow  # in `test_fl_model_runs.py` they are in threads, too, and two runs are equal
@pytest.mark.parametrize("run_eagerly", [True, False])
def test_parties_in_threads_do_what_parties_in_turn_do(run_eagerly):
    def party(number):
        backend, data = ready(lambda: noisy(run_eagerly), noise_seed=number)
        flat = backend.weights()
        for _ in range(3):
            flat, *_ = backend.train(flat, data, batches(13, 20, 27))
        return flat.tolist(), [float(metric) for metric in backend.take_metrics()]

    in_turn = [party(number) for number in range(2)]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(party, range(2))) == in_turn


@pytest.mark.parametrize("policy", [pytest.param("mixed_bfloat16", marks=pytest.mark.slow), "mixed_float16"])
def test_mixed_precision_averages_the_full_precision_weights(policy):
    def builder():
        import keras

        layers = [keras.layers.Dense(5, dtype=policy), keras.layers.Dense(3, dtype=policy)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        model.compile(loss="mse", optimizer="adam")
        return model

    backend, data = ready(builder)
    trained, *_ = backend.train(backend.weights(), data, batches(30, 30))
    assert {param.dtype for param in backend.spec.params} == {"float32"}
    assert np.isfinite(trained).all()
    assert backend.predict(data, batches(60)).nest.shape == (60, 3)


@pytest.mark.parametrize("run_eagerly", EAGERLY)
def test_a_recurrent_model_over_sequences_of_two_lengths(run_eagerly):
    def builder():
        import keras
        from keras import layers

        model = keras.Sequential([keras.Input((None, 2)), layers.GRU(4, recurrent_dropout=0.2), layers.Dense(3)])
        model.compile(loss="mse", optimizer="sgd", run_eagerly=run_eagerly)
        return model

    backend, data = ready(builder, x=X.reshape(60, 2, 2))
    longer = bind(backend, X.reshape(30, 4, 2), Y[:30])
    flat, *_ = backend.train(backend.weights(), data, batches(20, 40))
    _, rows, _ = backend.train(flat, longer, batches(30))
    assert rows == 30
    assert backend.take_metrics()[0].count == 90


@pytest.mark.parametrize("run_eagerly", EAGERLY)
def test_building_leaves_the_callers_generators_alone(run_eagerly):
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    backend, data = ready(lambda: noisy(run_eagerly))
    backend.train(backend.weights(), data, batches(8))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize("hooked", [False, True])
def test_training_returns_the_state_that_it_leaves(built, hooked):
    backend, data = built
    start = backend.weights()
    prox = make_strategy("fed_prox", {"mu": 0.1})
    more = hooked_by(prox, backend, start) if hooked else ()
    first, _, left = backend.train(start, data, batches(20), *more)
    assert states(left) == states(backend.snapshot())
    backend.train(first, data, batches(20), *more)
    assert states(left) != states(backend.snapshot())
    backend.restore(left)
    assert states(left) == states(backend.snapshot())


def test_graphs_stay_prepared_when_more_rows_of_the_same_form_are_bound(built, monkeypatch):
    backend, data = built
    backend.train(backend.weights(), data, batches(20))

    def seeding(_seed):
        raise AssertionError("TensorFlow drops every prepared graph when it is seeded")

    monkeypatch.setattr(backend._keras.utils, "set_random_seed", seeding)
    more = bind(backend, X[:30], Y[:30])
    assert backend.train(backend.weights(), more, batches(20))[1] == 20
    with pytest.raises(AssertionError, match="seeded"):
        bind(backend, X.astype(np.int32), Y)


def states(snapshot):
    """Returns what a snapshot holds, as bytes and numbers."""
    sums, rows = snapshot["logs"]
    return [value.numpy().tobytes() for value in snapshot["variables"]], sums.tolist(), rows


def test_restore_takes_a_round_back_whole(built):
    backend, data = built
    start, *_ = backend.train(backend.weights(), data, batches(20))
    before = backend.snapshot()
    first, *_ = backend.train(start, data, batches(20, 20))
    metrics = backend.take_metrics()
    backend.restore(before)
    second, *_ = backend.train(start, data, batches(20, 20))
    assert second.tolist() == first.tolist()
    assert backend.take_metrics() == metrics
    backend.restore(before)
    assert backend.take_metrics()[0].count == 20


def test_a_round_without_rows_gives_back_what_it_got(built):
    backend, data = built
    start = np.linspace(-1, 1, backend.spec.size, dtype=np.float32)
    trained, rows, _ = backend.train(start, data, [])
    assert (trained.tolist(), rows) == (start.tolist(), 0)
    assert [m.count for m in backend.take_metrics()] == [0.0, 0.0]


@pytest.mark.parametrize("run_eagerly", EAGERLY)
def test_a_party_without_rows_takes_part(run_eagerly):
    backend = KerasBackend(lambda: noisy(run_eagerly), seed=1)
    data = bind(backend, X[:0], Y[:0])
    assert data.rows == 0
    assert backend.evaluate(data, [])[0].count == 0
    assert backend.predict(data, []).nest.shape == (0, 3)


@pytest.mark.parametrize("builder", [one_matrix, pytest.param(noisy, marks=pytest.mark.slow)])
def test_training_changes_neither_the_vector_it_was_given_nor_one_it_has_returned(builder):
    backend, data = ready(builder)
    start = np.zeros(backend.spec.size, np.float32)
    first, *_ = backend.train(start, data, batches(30))
    kept = first.copy()
    backend.train(first, data, batches(30))
    assert not start.any()
    assert first.tolist() == kept.tolist()


def test_batches_of_any_size_and_number_share_one_trace():
    traced = []

    def builder():
        import keras

        class Counting(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(3)

            def call(self, x):
                traced.append(tuple(x.shape))
                return self.dense(x)

        model = Counting()
        model.compile(loss="mse", optimizer="sgd", metrics=["mae"])
        return model

    backend, data = ready(builder)
    flat = backend.weights()
    prox = [make_strategy("fed_prox", {"mu": 0.1}) for _ in range(2)]
    backend.train(flat, data, batches(10))
    backend.train(flat, data, batches(10), *hooked_by(prox[0], backend, flat))
    backend.evaluate(data, batches(10))
    backend.predict(data, batches(10))
    backend.gradient(data, batches(10))
    other = bind(backend, X[:33], Y[:33])
    before = len(traced)
    for sizes in ((7,), (3, 9), (1, 2, 3), (33,)):
        backend.train(flat, other, batches(*sizes))
        backend.train(flat, other, batches(*sizes), *hooked_by(prox[1], backend, flat))
        backend.evaluate(other, batches(*sizes))
        backend.predict(other, batches(*sizes))
        backend.gradient(other, batches(*sizes))
        backend.apply_gradient(flat)
        backend.set_learning_rate(0.3)
    assert len(traced) == before


def test_evaluate_is_that_of_keras_and_leaves_training_metrics_alone(built):
    backend, data = built
    flat, *_ = backend.train(backend.weights(), data, batches(30))
    evaluated = backend.evaluate(data, in_order(60, 16))
    assert backend.take_metrics()[0].count == 30
    reference = stock(backend, noisy, flat)
    expected = reference.evaluate(X, Y, batch_size=16, verbose=0, return_dict=True)
    assert {m.name: float(m) for m in evaluated} == pytest.approx(expected, rel=1e-5)


def test_predict_is_that_of_keras():
    backend, data = ready(dense())
    reference = stock(backend, dense(), backend.weights())
    predicted = backend.predict(data, in_order(60, 16)).nest
    assert predicted.shape == (60, 3)
    np.testing.assert_allclose(predicted, reference.predict(X, verbose=0), rtol=1e-5)


def test_a_model_that_waits_for_data_is_built_from_it():
    def builder():
        import keras

        model = keras.Sequential([keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.Dense(3)])
        model.compile(loss="mse", optimizer="adam", metrics=["mae"], run_eagerly=True)
        return model

    backend = KerasBackend(builder, seed=1)
    with pytest.raises(PlanError, match="learns its shape from the data; call fit or evaluate first"):
        backend.weights()
    data = bind(backend, X, Y)
    assert backend.weights().tolist() == ready(builder)[0].weights().tolist()
    trained, *_ = backend.train(backend.weights(), data, batches(30))
    assert trained.shape == (backend.spec.size,)


def test_double_precision_travels_in_double_precision():
    def builder():
        import keras

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="float64")])
        model.compile(loss="mse", optimizer="sgd")
        return model

    backend, data = ready(builder)
    assert backend.spec.dtype == np.float64
    start = np.full(backend.spec.size, 1 / 3)
    assert backend.train(start, data, [])[0].tolist() == start.tolist()
