# SPDX-License-Identifier: Apache-2.0
"""What every backend must do; a new one joins by its line in the table of cases."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from inline.keras_models import CLASS, X, batches, bind, in_order
from inline.torch_models import NEEDS_TORCH, torch_outputs, torch_softmax

from fedray.backends import BACKENDS, build_at_driver, make_backend
from fedray.errors import DataError, PlanError
from fedray.metrics import merge, words
from fedray.ml.nn.numpy import LinearRegression, SoftmaxRegression
from fedray.strategies import STRATEGIES, make_strategy
from fedray.tree import Tree

pytestmark = pytest.mark.usefixtures("kernels_kept")

RATE = 0.25


def keras_softmax(momentum: float, dtype: str = "float32", eager: bool = False) -> Callable[[], Any]:
    def builder() -> Any:
        import keras

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", dtype=dtype)])
        made = keras.optimizers.SGD(RATE, momentum=momentum)
        model.compile(made, "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=eager)
        return model

    return builder


@dataclass(frozen=True)
class Case:
    """One backend under test.

    Attributes:
        name: Its key in `BACKENDS`.
        plain: Builds a model of 4 features with plain SGD.
        stateful: Builds one whose optimizer keeps a state.
        other: Builds another model of the same shapes.
        y: Labels of `X`.
        stock: Predicts rows with the model that the driver builds.
    """

    name: str
    plain: Callable[[], Any]
    stateful: Callable[[], Any]
    other: Callable[[], Any]
    y: Any
    stock: Callable[[Any, Any], Any] = lambda model, x: model.predict(x)

    def ready(self, builder=None, seed=1, noise_seed=0):
        backend = make_backend(self.name, builder or self.stateful, seed, noise_seed, 1)
        return backend, bind(backend, X, self.y)


def keras_case(eager: bool) -> Case:
    made = (keras_softmax(momentum, eager=eager) for momentum in (0.0, 0.5, 0.75))
    return Case("tensorflow", *made, CLASS)


CASES = {
    "keras": keras_case(eager=True),
    "keras graph": keras_case(eager=False),
    "numpy softmax": Case(
        "numpy",
        lambda: SoftmaxRegression(4, 3, RATE),
        lambda: SoftmaxRegression(4, 3, RATE, momentum=0.5),
        lambda: SoftmaxRegression(4, 3, RATE, momentum=0.75),
        CLASS,
    ),
    "numpy linear": Case(
        "numpy",
        lambda: LinearRegression(4, 2, RATE, dtype="float64"),
        lambda: LinearRegression(4, 2, RATE, momentum=0.5, dtype="float64"),
        lambda: LinearRegression(4, 2, RATE / 2, momentum=0.5, dtype="float64"),
        X[:, :2] - 2 * X[:, 2:],
    ),
    "torch": Case("torch", torch_softmax(0.0), torch_softmax(0.5), torch_softmax(0.75), CLASS, torch_outputs),
}


MARKS = {"keras graph": [pytest.mark.slow], "torch": NEEDS_TORCH}
"""A graph costs ten of the few steps of a test; `tests/inline/test_keras_backend.py` trains with graphs."""


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in CASES])
def case(request):
    return CASES[request.param]


def test_every_framework_of_the_table_is_under_test():
    assert {case.name for case in CASES.values()} == set(BACKENDS)


def test_the_flat_vector_goes_in_and_comes_out(case):
    backend, _ = case.ready()
    values = np.linspace(-1, 1, backend.spec.size).astype(backend.spec.dtype)
    backend.set_weights(values)
    assert backend.weights().tolist() == values.tolist()
    assert backend.weights().dtype == backend.spec.dtype
    assert backend.spec.pack(backend.spec.unpack(values)).tolist() == values.tolist()


def test_the_spec_names_every_word_trainable_ones_first(case):
    spec = case.ready()[0].spec
    trainable = [param.trainable for param in spec.params]
    assert len(set(spec.names)) == len(spec.params)
    assert trainable == sorted(trainable, reverse=True)
    assert spec.size == sum(spec.sizes) >= spec.trainable > 0
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_a_vector_of_another_length_is_refused(case):
    backend, data = case.ready()
    short = backend.weights()[1:]
    for use in (lambda: backend.set_weights(short), lambda: backend.train(short, data, batches(60))):
        with pytest.raises(DataError, match=rf"weights: expected {len(short) + 1} words, found shape"):
            use()


def test_training_moves_the_weights_and_does_so_again_to_the_last_bit(case):
    ends = []
    for _ in range(2):
        backend, data = case.ready(noise_seed=3)
        start = backend.weights().copy()
        trained, rows, _ = backend.train(start, data, batches(13, 20, 27))
        assert rows == 60
        assert backend.weights().tolist() == trained.tolist() != start.tolist()
        ends.append((start.tolist(), trained.tolist(), [float(metric) for metric in backend.take_metrics()]))
    assert ends[0] == ends[1]


def test_parties_start_equal_and_another_seed_starts_elsewhere(case):
    alice, bob, other = case.ready(noise_seed=1)[0], case.ready(noise_seed=2)[0], case.ready(seed=2)[0]
    assert alice.weights().tolist() == bob.weights().tolist() != other.weights().tolist()
    assert alice.facts() == bob.facts() == other.facts()


def test_training_changes_neither_the_vector_it_was_given_nor_one_it_has_returned(case):
    backend, data = case.ready()
    start = np.zeros(backend.spec.size, backend.spec.dtype)
    first, *_ = backend.train(start, data, batches(30))
    kept = first.copy()
    backend.train(first, data, batches(30))
    assert not start.any()
    assert first.tolist() == kept.tolist()


def test_a_gradient_applied_is_a_step_of_plain_sgd(case):
    backend, data = case.ready(case.plain)
    start = backend.weights().copy()
    gradient, rows = backend.gradient(data, batches(20, 40))
    assert rows == 60
    words = backend.spec.trainable
    expected = start[:words] - RATE * gradient[:words]
    backend.set_weights(start)
    backend.apply_gradient(gradient)
    np.testing.assert_allclose(backend.weights()[:words], expected, rtol=1e-6, atol=1e-7)
    trained, *_ = backend.train(start, data, batches(60))
    np.testing.assert_allclose(trained[:words], expected, rtol=1e-5, atol=1e-6)


def test_a_hook_changes_the_gradient_and_sees_its_state(case):
    backend, data = case.ready(case.plain)
    start = backend.weights().copy()
    words = backend.spec.trainable
    anchor = np.linspace(1, 2, words).astype(backend.spec.dtype)

    def towards(state, gradient, weights):
        return 0.0 * gradient + (weights - state["anchor"]) * state["scale"]

    state = {"anchor": anchor, "scale": 1 / RATE}  # a vector over the trainable words, and a number
    trained, *_ = backend.train(start, data, batches(60), towards, state)
    np.testing.assert_allclose(trained[:words], anchor, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_can_be_used(case, name):
    backend, data = case.ready(case.plain)
    strategy = make_strategy(name)
    backend.check_strategy(strategy)
    weights = backend.weights()[: backend.spec.trainable]
    state = strategy.client_begin(strategy.client_init(weights), weights, {})
    assert backend.train(backend.weights(), data, batches(60), strategy.client_hook, state)[1] == 60


def test_restoring_a_snapshot_takes_a_round_back_whole(case):
    backend, data = case.ready()
    start, _, left = backend.train(backend.weights(), data, batches(20))
    before = backend.snapshot()
    runs = []
    for snapshot in (before, left):  # what training returns is the same snapshot
        backend.restore(snapshot)
        trained, *_ = backend.train(start, data, batches(20, 20))
        runs.append((trained.tolist(), backend.loss_so_far(), backend.take_metrics()))
    assert runs[0] == runs[1] == (runs[0][0], runs[0][2][0], runs[0][2])  # the loss so far, looked at for nothing
    backend.restore(before)
    assert backend.take_metrics()[0].count == 20


def test_the_optimizers_state_is_part_of_a_snapshot(case):
    backend, data = case.ready()
    fresh = backend.snapshot()
    start = backend.weights().copy()
    first, *_ = backend.train(start, data, batches(60))
    moving, *_ = backend.train(start, data, batches(60))
    backend.restore(fresh)
    assert backend.train(start, data, batches(60))[0].tolist() == first.tolist() != moving.tolist()


def test_an_optimizer_that_begins_anew_takes_its_first_steps_again(case):
    backend, data = case.ready()
    start = backend.weights().copy()
    first, *_ = backend.train(start, data, batches(20, 40))
    backend.set_learning_rate(2 * backend.learning_rate())
    backend.set_learning_rate(backend.learning_rate() / 2)
    backend.take_metrics()
    moving, *_ = backend.train(start, data, batches(20, 40))
    backend.forget()
    assert backend.take_metrics()[0].count == 60, "what was measured stays"
    assert backend.train(start, data, batches(20, 40))[0].tolist() == first.tolist() != moving.tolist()


def test_metrics_of_two_halves_merge_to_those_of_the_whole(case):
    backend, data = case.ready()
    halves = [bind(backend, X[part], case.y[part]) for part in (slice(0, 13), slice(13, 60))]
    merged = backend.finish(merge([backend.evaluate(half, in_order(half.rows, 8)) for half in halves]))
    whole = backend.evaluate(data, in_order(60, 8))
    assert [metric.name for metric in merged] == [metric.name for metric in whole]
    assert [float(metric) for metric in merged] == pytest.approx([float(metric) for metric in whole], rel=1e-6)
    assert words(whole) == backend.facts().evaluate_words


def test_training_metrics_add_up_until_they_are_taken_and_evaluation_leaves_them_alone(case):
    backend, data = case.ready()
    backend.train(backend.weights(), data, batches(20))
    backend.train(backend.weights(), data, batches(20))
    backend.evaluate(data, batches(60))
    taken = backend.take_metrics()
    assert [metric.count for metric in taken] == [40.0, 40.0]
    assert words(taken) == backend.facts().train_words
    assert [metric.count for metric in backend.take_metrics()] == [0.0, 0.0]
    backend.train(backend.weights(), data, batches(20))
    backend.reset_metrics()
    assert [metric.count for metric in backend.take_metrics()] == [0.0, 0.0]


def test_gradients_are_measured_like_training(case):
    backend, data = case.ready(case.plain)
    start = backend.weights().copy()
    backend.gradient(data, batches(60))
    measured = [float(metric) for metric in backend.take_metrics()]
    backend.set_weights(start)
    assert measured == pytest.approx([float(metric) for metric in backend.evaluate(data, batches(60))], rel=1e-6)


def test_predictions_are_a_tree_of_rows_in_order_whatever_the_batches(case):
    backend, data = case.ready()
    whole = backend.predict(data, batches(60))
    assert isinstance(whole, Tree)
    assert whole.rows == 60
    np.testing.assert_allclose(backend.predict(data, batches(7, 53)).nest, whole.nest, rtol=1e-5, atol=1e-6)
    alone = bind(backend, X[5:8])
    np.testing.assert_allclose(backend.predict(alone, batches(3)).nest, whole.nest[5:8], rtol=1e-5, atol=1e-6)


def test_a_party_without_rows_takes_part(case):
    backend, data = case.ready()
    start = backend.weights().copy()
    trained, rows, _ = backend.train(start, data, [])
    assert (trained.tolist(), rows) == (start.tolist(), 0)
    gradient, rows = backend.gradient(data, [])
    assert (gradient[: backend.spec.trainable].any(), rows) == (False, 0)
    nothing = bind(backend, X[:0], case.y[:0])
    assert [metric.count for metric in backend.evaluate(nothing, [])] == [0.0, 0.0]
    assert backend.predict(nothing, []).nest.shape == (0, *backend.predict(data, batches(60)).nest.shape[1:])


def test_weights_of_rows_scale_the_loss_of_each(case):
    backend, _ = case.ready(case.plain)
    kept = np.arange(60) < 20
    part = bind(backend, X, case.y, kept.astype(np.float64))
    alone = bind(backend, X[kept], case.y[kept])
    weighted, *_ = backend.gradient(part, batches(60))
    expected, *_ = backend.gradient(alone, batches(20))
    np.testing.assert_allclose(weighted, expected * 20 / 60, rtol=1e-4, atol=1e-6)
    loss, expected_loss = (float(backend.evaluate(data, in_order(data.rows, 60))[0]) for data in (part, alone))
    assert loss == pytest.approx(expected_loss * 20 / 60, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X[:50]}, "same length, found rows of x: 50, y: 60"),
        ({"sample_weight": np.ones(3)}, "found rows of x: 60, y: 60, sample_weight: 3"),
        ({"x": np.zeros((60, 5), np.float32)}, "x: .*model .*expects .*found .*5"),
        ({"y": None, "sample_weight": np.ones(60)}, "sample_weight: expected labels y beside it, found none"),
        ({"x": X.astype(object)}, "x: expected rows of numbers, found shape"),
        ({"y": 3.0}, r"y: expected rows of numbers, found shape \(\)"),
        ({"y": np.zeros((60, 7))}, r"y: .*expects .*found \(7,\)"),
        ({"sample_weight": {"a": np.ones(60), "b": np.ones(60)}}, "sample_weight: .*found sample_weight"),
    ],
)
def test_data_that_does_not_fit_is_refused_with_what_was_expected(case, arguments, message):
    backend, _ = case.ready()
    with pytest.raises(DataError, match=message):
        bind(backend, **{"x": X, "y": case.y, **arguments})


def test_both_kinds_of_weights_are_one_too_many(case):
    backend, _ = case.ready()
    with pytest.raises(PlanError, match="class_weight"):
        bind(backend, X, case.y, np.ones(60), {0: 1.0})


def test_rows_without_labels_can_be_predicted_but_not_trained_on(case):
    backend, _ = case.ready()
    data = bind(backend, X)
    assert backend.predict(data, batches(60)).rows == 60
    for use in (backend.evaluate, backend.gradient):
        with pytest.raises(DataError, match="is trained and evaluated on labels, found none"):
            use(data, batches(60))
    with pytest.raises(DataError, match="data: expected what bind returned, found ndarray"):
        backend.evaluate(X, batches(60))


def test_the_learning_rate_can_be_read_and_set(case):
    backend, data = case.ready(case.plain)
    assert backend.learning_rate() == RATE
    backend.set_learning_rate(0.0)
    start = backend.weights().copy()
    assert backend.train(start, data, batches(60))[0].tolist() == start.tolist()
    assert backend.learning_rate() == 0.0


def test_a_saved_model_comes_back_and_local_state_stays(case):
    backend, data = case.ready()
    trained, *_ = backend.train(backend.weights(), data, batches(60))
    content = backend.export_model()
    other, more = case.ready(seed=2)
    other.train(other.weights(), more, batches(60))
    state = other.snapshot()
    other.import_model(content)
    assert other.weights().tolist() == trained.tolist()
    first, *_ = other.train(trained, more, batches(60))
    other.restore(state)
    assert other.train(trained, more, batches(60))[0].tolist() == first.tolist()
    assert backend.export_model("weights")


def test_a_file_of_something_else_is_refused_and_leaves_the_weights(case):
    backend, _ = case.ready()
    before = backend.weights().tolist()
    for content in (b"", b"no model at all"):
        with pytest.raises(DataError, match="the file does not hold the weights of this model"):
            backend.import_model(content)
    assert backend.weights().tolist() == before


def test_arrays_are_the_frameworks_own_and_fit_the_model_that_the_driver_builds(case):
    backend, data = case.ready()
    arrays = backend.arrays()
    stock = build_at_driver(case.name, case.stateful, arrays)
    np.testing.assert_allclose(case.stock(stock, X), backend.predict(data, batches(60)).nest, rtol=1e-5, atol=1e-6)
    other, _ = case.ready(seed=2)
    other.set_arrays(arrays)
    assert other.weights().tolist() == backend.weights().tolist()
    for wrong in (arrays[::-1], [np.full(array.shape, -1e39 if array.dtype == "float32" else "") for array in arrays]):
        with pytest.raises(DataError, match=r"weights: (expected arrays of shapes|array 0( holds num|: expected))"):
            other.set_arrays(wrong)


def test_the_fingerprint_is_that_of_the_model_not_of_its_weights(case):
    backend, data = case.ready()
    first = backend.fingerprint()
    assert len(first) == 32
    backend.train(backend.weights(), data, batches(60))
    assert backend.fingerprint() == case.ready(seed=2)[0].fingerprint() == first
    assert case.ready(case.other)[0].fingerprint() != first


def test_the_model_facts_depend_on_no_data_and_travel(case):
    backend, _ = case.ready()
    facts = backend.facts()
    bind(backend, X[:7], case.y[:7])
    assert backend.facts() == facts == pickle.loads(pickle.dumps(facts))
    assert set(facts.directions.values()) <= {"min", "max"}


def test_a_builder_of_something_else_is_refused(case):
    with pytest.raises(PlanError, match=r"model: expected the builder to return a .*, found dict"):
        make_backend(case.name, dict, 1, 0, 1)
