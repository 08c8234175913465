# SPDX-License-Identifier: Apache-2.0
"""Keras models with several inputs and outputs behind one flat vector: they train and are measured as in Keras."""

import numpy as np
import pytest
from inline.keras_models import CLASS, EAGERLY, X, batches, bind, in_order, stock
from inline.several import (
    AGE,
    FORM_AND_WEIGHTED,
    FORMS,
    HEAVY,
    HEIGHT,
    LIGHT,
    shared_layer,
    two_by_two,
    two_inputs,
    wide_and_deep,
)

from fedray.backends.keras.model import KerasBackend
from fedray.errors import DataError, PlanError
from fedray.metrics import Mean, merge
from fedray.tree import Tree

pytestmark = pytest.mark.usefixtures("kernels_kept")

PARTS = (slice(0, 13), slice(13, 40), slice(40, 60))


def cut(nest, part):
    return None if nest is None else Tree(nest).map(lambda array: array[part]).nest


def in_keras(outputs, nest):
    """Keras itself cannot find weights by name where outputs are a list."""
    return [nest["kind"], nest["height"]] if outputs is list and isinstance(nest, dict) else nest


def values(metrics):
    return {metric.name: float(metric) for metric in metrics}


@pytest.mark.parametrize(("form", "weighted"), FORM_AND_WEIGHTED)
def test_a_round_trains_and_measures_as_keras_fit_does(form, weighted):
    outputs, x, y, weights = FORMS[form]
    weights = weights if weighted else None
    scores = {"kind": ["accuracy"], "height": ["mse"]}
    weighted_metrics = list(scores.values()) if outputs is list else scores
    builder = two_by_two(outputs, run_eagerly=outputs is list, weighted_metrics=weighted_metrics)
    backend = KerasBackend(builder, seed=1)
    data = bind(backend, x, y, weights)
    start = backend.weights().copy()
    trained, rows, _ = backend.train(start, data, in_order(60, 20))
    reference = stock(backend, builder, start)
    fed = x, *(in_keras(outputs, nest) for nest in (y, weights))
    history = reference.fit(*fed[:2], sample_weight=fed[2], batch_size=20, shuffle=False, verbose=0).history
    assert rows == 60
    np.testing.assert_allclose(trained, backend.spec.pack(reference.get_weights()), rtol=1e-5, atol=1e-6)
    found = values(backend.take_metrics())
    assert sorted(found) == sorted(history)
    assert {"loss", "kind_loss", "height_loss", "kind_weighted_accuracy", "height_mae", "height_rmse"} <= set(found)
    assert found == pytest.approx({name: values[0] for name, values in history.items()}, rel=1e-4)


@pytest.mark.parametrize("form", list(FORMS))
def test_metrics_of_every_output_merge_to_those_of_all_rows_whatever_the_batches(form):
    outputs, x, y, weights = FORMS[form]
    builder = two_by_two(outputs, run_eagerly=True)
    backend = KerasBackend(builder, seed=1)
    local = []
    for part in PARTS:
        data = bind(backend, cut(x, part), cut(y, part), cut(weights, part))
        local.append(backend.evaluate(data, in_order(data.rows, 8)))
    reference = stock(backend, builder, backend.weights())
    fed = x, *(in_keras(outputs, nest) for nest in (y, weights))
    expected = reference.evaluate(*fed[:2], sample_weight=fed[2], batch_size=60, verbose=0, return_dict=True)
    merged = backend.finish(merge(local))
    assert values(merged) == pytest.approx(expected, rel=1e-5)
    counts = {metric.name: metric.count for metric in merged if isinstance(metric, Mean)}
    assert (counts["kind_loss"], counts["height_loss"], counts["loss"]) == (60.0, 60.0, 60.0)
    averages = np.mean([values(metrics)["height_loss"] for metrics in local])
    assert averages != pytest.approx(expected["height_loss"], rel=1e-3), "else averaging would pass this test"


@pytest.mark.parametrize("run_eagerly", EAGERLY)
def test_a_hooked_round_and_a_gradient_measure_every_output_too(run_eagerly):
    builder = two_by_two(run_eagerly=run_eagerly)
    backend = KerasBackend(builder, seed=1)
    data = bind(backend, [X, AGE], [CLASS, HEIGHT])
    start = backend.weights().copy()
    plain, *_ = backend.train(start, data, in_order(60, 7))
    expected = values(backend.take_metrics())
    hooked, *_ = backend.train(start, data, in_order(60, 7), lambda _, gradient, __: gradient, {})
    assert values(backend.take_metrics()) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(hooked, plain, rtol=1e-5, atol=1e-6)
    backend.set_weights(start)
    gradient, _ = backend.gradient(data, in_order(60, 7))
    assert values(backend.take_metrics())["height_loss"] == pytest.approx(
        values(backend.evaluate(data, batches(60)))["height_loss"], rel=1e-5
    )
    one, *_ = backend.train(start, data, batches(60))
    np.testing.assert_allclose(one, start - 0.2 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", list(FORMS))
def test_predictions_are_nested_as_the_outputs(form):
    outputs, x, y, _ = FORMS[form]
    builder = two_by_two(outputs, run_eagerly=True)
    backend = KerasBackend(builder, seed=1)
    data = bind(backend, x, y)
    found = backend.predict(data, in_order(60, 16))
    expected = stock(backend, builder, backend.weights()).predict(x, verbose=0)
    assert type(found.nest) is outputs
    assert found.same_form(Tree(expected))
    for one, other in zip(found.leaves(), Tree(expected).leaves(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    nothing = backend.predict(bind(backend, cut(x, slice(0)), cut(y, slice(0))), [])
    assert sorted(leaf.shape for leaf in nothing.leaves()) == [(0, 1), (0, 3)]


def test_one_array_of_weights_counts_for_every_output_and_none_counts_rows_alike():
    backend = KerasBackend(two_by_two(run_eagerly=True), seed=1)
    gradients = {
        name: backend.gradient(bind(backend, [X, AGE], [CLASS, HEIGHT], weights), batches(60))[0].tolist()
        for name, weights in {
            "one": HEAVY,
            "both": [HEAVY, HEAVY],
            "first": [HEAVY, None],
            "ones": [HEAVY, np.ones(60)],
            "neither": None,
        }.items()
    }
    assert gradients["one"] == gradients["both"] != gradients["first"]
    assert gradients["first"] == gradients["ones"] != gradients["neither"]


def test_an_output_without_a_loss_is_predicted_and_not_trained():
    changed = {"loss": {"kind": "sparse_categorical_crossentropy"}, "loss_weights": None, "metrics": None}
    builder = two_by_two(dict, run_eagerly=True, **changed)
    backend = KerasBackend(builder, seed=1)
    data = bind(backend, {"image": X, "age": AGE}, {"kind": CLASS, "height": HEIGHT})
    gradient, _ = backend.gradient(data, batches(60))
    parts = dict(zip(backend.spec.names, backend.spec.unpack(gradient), strict=True))
    assert parts["kind/kernel"].any()
    assert not parts["height/kernel"].any()
    assert sorted(backend.predict(data, batches(60)).nest) == ["height", "kind"]


@pytest.mark.parametrize("run_eagerly", EAGERLY)
def test_a_dict_of_inputs_to_a_model_with_one_output(run_eagerly):
    def builder():
        return two_inputs(run_eagerly)

    backend = KerasBackend(builder, seed=1)
    data = bind(backend, {"image": X, "age": AGE}, CLASS, class_weight={1: 5.0})
    listed = bind(backend, [X, AGE], CLASS, class_weight={1: 5.0})
    start = backend.weights().copy()
    trained, *_ = backend.train(start, data, in_order(60, 20))
    assert [metric.name for metric in backend.take_metrics()] == ["loss", "accuracy"]
    assert backend.train(start, listed, in_order(60, 20))[0].tolist() == trained.tolist()
    reference = stock(backend, builder, start)
    reference.fit({"image": X, "age": AGE}, CLASS, class_weight={1: 5.0}, batch_size=20, shuffle=False, verbose=0)
    np.testing.assert_allclose(trained, backend.spec.pack(reference.get_weights()), rtol=1e-5, atol=1e-6)


def test_a_model_class_that_takes_a_dict_learns_its_shapes_from_it():
    backend = KerasBackend(wide_and_deep, seed=1)
    data = bind(backend, {"image": X, "age": AGE}, HEIGHT)
    trained, rows, _ = backend.train(backend.weights(), data, in_order(60, 16))
    assert rows == 60
    assert np.isfinite(trained).all()
    assert backend.predict(data, batches(60)).nest.shape == (60, 1)


def test_a_train_step_of_the_users_own_gets_what_the_user_passed():
    seen = []

    def builder():
        import keras
        import tensorflow as tf

        class Own(keras.Model):
            def train_step(self, data):
                x, y = data
                seen.append((sorted(x), sorted(y)))
                with tf.GradientTape() as tape:
                    kind, height = self(x, training=True)
                    loss = tf.reduce_mean(tf.square(height - y["height"])) + tf.reduce_mean(kind)
                gradients = tape.gradient(loss, self.trainable_variables)
                self.optimizer.apply(gradients, self.trainable_variables)
                return {"own": loss}

        inputs, shared = shared_layer()
        model = Own(inputs, [keras.layers.Dense(3, name="kind")(shared), keras.layers.Dense(1, name="height")(shared)])
        model.compile(optimizer="sgd")
        return model

    backend = KerasBackend(builder, seed=1)
    data = bind(backend, {"image": X, "age": AGE}, {"height": HEIGHT})
    backend.train(backend.weights(), data, in_order(60, 16))
    assert seen[-1] == (["age", "image"], ["height"])
    assert values(backend.take_metrics())["own"] > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"y": {"kind": CLASS}},
            DataError,
            r"y: .* expects y\[0\], y\[1\] \(or a dict .* kind, height\), found y\['kind'\]",
        ),
        (
            {"y": [CLASS, X]},
            DataError,
            r"y\[1\]: the loss 'mean_squared_error' expects rows of shape \(1,\), found \(4,\)",
        ),
        ({"y": [CLASS + 1, HEIGHT]}, DataError, r"y\[0\]: .*expects class numbers from 0 to 3 - 1, found others"),
        (
            {"y": [CLASS, HEIGHT[:9]]},
            DataError,
            r"found rows of x\['age'\]: 60, x\['image'\]: 60, y\[0\]: 60, y\[1\]: 9",
        ),
        ({"x": {"image": X, "years": AGE}}, DataError, r"x: .* keys image, age\), found x\['image'\], x\['years'\]"),
        (
            {"x": {"image": X, "age": X}},
            DataError,
            r"x\['age'\]: model '.*' expects rows of shape \(1,\), found \(4,\)",
        ),
        ({"sample_weight": [HEAVY]}, DataError, r"sample_weight: .*found sample_weight\[0\]"),
        ({"sample_weight": [HEAVY, LIGHT[:9]]}, DataError, r"sample_weight\[1\]: 9"),
        ({"class_weight": {0: 1.0}}, PlanError, "class_weight: works for a model with one output only"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(arguments, error, message):
    backend = KerasBackend(two_by_two(), seed=1)
    with pytest.raises(error, match=message):
        bind(backend, **{"x": {"image": X, "age": AGE}, "y": [CLASS, HEIGHT], **arguments})


def test_a_list_for_a_dict_of_outputs_would_leave_their_order_to_chance():
    backend = KerasBackend(two_by_two(dict), seed=1)
    with pytest.raises(DataError, match=r"y: model '.*' expects y\['height'\], y\['kind'\], found y\[0\], y\[1\]"):
        bind(backend, {"image": X, "age": AGE}, [CLASS, HEIGHT])
