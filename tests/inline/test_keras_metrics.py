# SPDX-License-Identifier: Apache-2.0
"""Metrics of several parties on the Keras backend: summed states, finished by the stock metric."""

import inspect
import re

import numpy as np
import pytest
from inline.keras_models import CLASS, X, Y, batches, binary, bind, dense, in_order, ready

from fedray.backends.keras.model import KerasBackend
from fedray.errors import DataError, PlanError
from fedray.metrics import Mean, Tally, flatten, merge, rebuild, words

pytestmark = pytest.mark.usefixtures("kernels_kept")

TRUE = (CLASS > 0).astype(np.float32)
PARTS = (slice(0, 13), slice(13, 40), slice(40, 60))


def apart_and_together(builder, x=X, y=Y, parts=PARTS, batch_size=8):
    """Metrics of three parties merged and finished, and the metrics over all rows in one place."""
    backend, data = ready(builder, x=x, y=y)
    local = []
    for part in parts:
        bound = bind(backend, x[part], y[part])
        local.append(backend.evaluate(bound, in_order(bound.rows, batch_size)))
    return backend.finish(merge(local)), backend.evaluate(data, in_order(len(x), batch_size)), local


@pytest.mark.parametrize("name", ["AUC", "Precision", "Recall", "TruePositives", "PrecisionAtRecall"])
def test_what_counts_rows_merges_exactly(name):
    def builder():
        import keras

        metric = keras.metrics.PrecisionAtRecall(0.5) if name == "PrecisionAtRecall" else getattr(keras.metrics, name)()
        model = binary()()
        # One of them as a graph; all others are done before it would be traced.
        model.compile(loss="binary_crossentropy", metrics=[metric], run_eagerly=name != "AUC")
        return model

    merged, joint, local = apart_and_together(builder, y=TRUE)
    assert float(merged[1]) == float(joint[1])
    averages = np.mean([float(metrics[1]) for metrics in local])
    assert float(merged[1]) != averages, "else averaging would pass this test"


def test_r2_and_root_mean_squared_error_merge_to_rounding():
    merged, joint, local = apart_and_together(binary("R2Score", "RootMeanSquaredError"), y=TRUE)
    for one, whole, parts in zip(merged[1:], joint[1:], zip(*(m[1:] for m in local), strict=True), strict=True):
        assert isinstance(one, Tally)
        assert float(one) == pytest.approx(float(whole), rel=1e-5)
        assert float(one) != pytest.approx(np.mean([float(part) for part in parts]), rel=1e-3)


def arguments_of(name):
    """Constructor arguments that stock metrics ask for."""
    needed = {
        "MeanIoU": {"num_classes": 3, "sparse_y_true": False, "sparse_y_pred": False},
        "OneHotMeanIoU": {"num_classes": 3},
        "OneHotIoU": {"num_classes": 3, "target_class_ids": [0, 2]},
        "IoU": {"num_classes": 3, "target_class_ids": [0, 2], "sparse_y_true": False, "sparse_y_pred": False},
    }
    at = ("PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity", "SpecificityAtSensitivity")
    return {name.split("At")[1].lower(): 0.5} if name in at else needed.get(name, {})


@pytest.mark.slow  # five times as long as any other here; the test above looks at five of them
def test_every_stock_metric_for_one_hot_labels_merges():
    """Whatever Keras adds later has to be looked at: it is per party only until the table knows it."""
    import keras

    def is_usable(name, kind):
        return (
            inspect.isclass(kind)
            and "Sparse" not in name
            and name not in ("Metric", "Mean", "MeanMetricWrapper", "Sum")
        )

    names = [name for name, kind in vars(keras.metrics).items() if is_usable(name, kind)]
    assert len(names) > 30

    def builder():
        model = dense()()
        metrics = [getattr(keras.metrics, name)(**arguments_of(name)) for name in names]
        model.compile(loss="categorical_crossentropy", metrics=metrics, run_eagerly=True)
        return model

    merged, joint, _ = apart_and_together(builder, batch_size=20)
    backend, data = ready(builder, y=(0.9 * Y + 0.03).astype(np.float32))
    soft = backend.evaluate(data, batches(30, 30))
    assert [m.name for m in merged] == [m.name for m in joint]
    assert len(merged) == len(names) + 1
    for one, whole in zip(merged, joint, strict=True):
        np.testing.assert_allclose(one.result(), whole.result(), rtol=1e-5, atol=1e-6, err_msg=one.name)
    # What is declared whole is so whatever the labels: a fraction would be refused in the middle of a run.
    declared = [(word.name, float(value)) for word, value in zip(words(soft), flatten(soft), strict=True) if word.whole]
    assert len(declared) > 20
    assert [name for name, value in declared if not value.is_integer()] == []
    counting = {name.split("/")[0] for name, _ in declared}
    assert {
        "loss",
        "accuracy",
        "auc",
        "precision",
        "one_hot_mean_io_u",
        "mean_squared_error",
        "root_mean_squared_error",
    } <= counting


def test_the_tutorials_metrics_are_means():
    _, joint, _ = apart_and_together(dense())
    assert [type(metric) for metric in joint] == [Mean, Mean]
    assert [(metric.name, metric.count) for metric in joint] == [("loss", 60.0), ("accuracy", 60.0)]


def test_names_are_those_of_keras_history():
    def builder():
        import keras

        model = dense()()
        metrics = ["accuracy", keras.metrics.CategoricalAccuracy(name="accuracy"), keras.metrics.AUC(name="area")]
        model.compile(loss="categorical_crossentropy", metrics=metrics, weighted_metrics=["mse"], run_eagerly=True)
        return model

    backend, data = ready(builder)
    history = builder().fit(X, Y, verbose=0).history
    assert {metric.name for metric in backend.evaluate(data, batches(60))} == set(history)


def test_finishing_leaves_the_metrics_under_way_alone():
    backend, data = ready(binary("AUC"), y=TRUE)
    backend.train(backend.weights(), data, batches(30))
    other = backend.evaluate(data, batches(60))
    backend.finish(merge([other, other]))
    loss, auc = backend.take_metrics()
    assert loss.count == 30
    assert sum(float(array.sum()) for array in auc.state) == 30 * 200


def test_metrics_travel_as_one_vector():
    backend, data = ready(binary("AUC", "Precision"), y=TRUE)
    local = backend.evaluate(data, batches(60))
    vector = flatten(local)
    assert vector.shape == (2 + 4 * 200 + 2,)
    assert backend.facts().evaluate_words == backend.facts().train_words
    assert len(backend.facts().evaluate_words) == len(vector)
    assert backend.finish(rebuild(local, vector)) == local


def test_fractions_that_metrics_may_count_are_not_declared_whole():
    """F1 multiplies by labels, an AUC by weights of its own, and who feeds a mean by hand chooses its weights."""

    def builder():
        import keras

        class Fed(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(3, activation="softmax")
                self.fed = keras.metrics.Mean(name="fed")

            def call(self, x):
                out = self.dense(x)
                self.fed.update_state(out[:, 0], sample_weight=out[:, 1])
                return out

        model = Fed()
        weighed = keras.metrics.AUC(multi_label=True, num_labels=3, label_weights=[0.5, 0.2, 0.3], name="weighed")
        metrics = [keras.metrics.F1Score(name="f1"), weighed, keras.metrics.AUC(multi_label=True, name="plain")]
        model.compile(loss="categorical_crossentropy", metrics=metrics)
        return model

    backend, _ = ready(builder)
    whole = {word.name.split("/")[0] for word in backend.facts().evaluate_words if word.whole}
    assert whole == {"loss", "plain"}


def test_a_metric_of_another_model_is_not_finished():
    backend, _ = ready(dense())
    with pytest.raises(DataError, match="metric 'auc' is not one of this model's: loss, accuracy"):
        backend.finish([Tally("auc", (np.zeros(3),), None)])


def custom(rule, **attributes):
    """A metric class of the user's own with one variable.

    Args:
        rule: (keras.ops, variable, labels, outputs) -> the variable after a batch.
        **attributes: Of the class, e.g. `additive`.
    """

    def builder():
        import keras

        class Own(keras.metrics.Metric):
            def __init__(self):
                super().__init__(name="own")
                self.most = self.add_variable((), "zeros", name="most")

            def update_state(self, y_true, y_pred, sample_weight=None):
                self.most.assign(rule(keras.ops, self.most, y_true, y_pred))

            def result(self):
                return self.most * 2

        for name, value in attributes.items():
            setattr(Own, name, value)
        return dense(metrics=[Own()], run_eagerly=True)()

    return builder


def names(words):
    return [word.name for word in words]


def largest(ops, most, y, output):
    return ops.maximum(most, ops.max(output))


def total(ops, most, y, output):
    return most + ops.sum(output * y)


def batch_means(ops, most, y, output):
    return most + ops.mean(output * y)


def resting(ops, most, y, output):
    return most + 0 * ops.sum(y * output)


@pytest.mark.parametrize(
    ("rule", "attributes", "why"),
    [
        (largest, {}, "a trial shows that its state over some rows is not the sum"),
        (largest, {"additive": True}, "its class says additive = True, but a trial shows"),
        (total, {"additive": False}, "its class says additive = False"),
        (batch_means, {}, "counts batches, not rows; .* or say additive = True"),
        (resting, {}, "made-up rows did not show .* say additive = True"),
    ],
)
def test_a_metric_class_whose_state_does_not_add_up_stays_with_its_party(rule, attributes, why):
    backend, data = ready(custom(rule, **attributes))
    loss, own = backend.evaluate(data, batches(60))
    assert (loss.additive, own.additive) == (True, False)
    assert re.search(why, backend.facts().apart["own"])
    assert names(backend.facts().train_words) == names(backend.facts().evaluate_words) == ["loss/0", "loss/1"]
    backend.train(backend.weights(), data, batches(40))
    first = backend.take_metrics()
    backend.train(backend.weights(), data, batches(40))
    second = backend.take_metrics()
    assert second[1].state[0] >= first[1].state[0], "it goes on, since nobody could put two parts together"
    assert (first[0].count, second[0].count) == (40, 40)
    backend.reset_metrics()
    assert [float(np.sum(one.state[0])) for one in backend.take_metrics()] == [0.0, 0.0]


@pytest.mark.parametrize(("rule", "attributes"), [(total, {}), (total, {"additive": True})])
def test_one_whose_state_adds_up_is_merged(rule, attributes):
    merged, joint, _ = apart_and_together(custom(rule, **attributes))
    assert [metric.name for metric in merged] == ["loss", "own"]
    assert float(merged[1]) == pytest.approx(float(joint[1]), rel=1e-6)
    model = custom(rule)()
    model.set_weights(ready(custom(rule))[0].arrays())
    assert float(merged[1]) == pytest.approx(model.evaluate(X, Y, batch_size=7, verbose=0, return_dict=True)["own"])


def test_a_mean_over_batches_is_merged_where_its_class_asks_for_it():
    backend, _ = ready(custom(batch_means, additive=True))
    assert not backend.facts().apart
    backend.keep_apart({"own": "it does not add up at another party"})
    assert names(backend.facts().evaluate_words) == ["loss/0", "loss/1"]


def trackers(own, through):
    """A model that keeps a metric of its own, updated in a method of its own."""

    def builder():
        import keras

        class Model(keras.Model):
            def __init__(self):
                super().__init__()
                self.layer = keras.layers.Dense(3)
                self.tracker = own(keras)

            def call(self, x):
                return self.layer(x)

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            self.tracker.update_state(y, y_pred)
            return keras.Model.compute_metrics(self, x, y, y_pred, sample_weight)

        def test_step(self, data):
            x, y = data[:2]
            self.tracker.update_state(keras.ops.mean((self(x) - y) ** 2, axis=-1))
            return {"loss": self.tracker.result()}

        setattr(Model, through, {"compute_metrics": compute_metrics, "test_step": test_step}[through])
        model = Model()
        model.compile(loss="mse", optimizer="sgd", run_eagerly=True)
        return model

    return builder


def test_a_metric_that_the_model_keeps_itself_is_tried_by_its_own_step():
    def own(keras):
        class Own(keras.metrics.MeanSquaredError):
            pass

        return Own(name="own")

    merged, joint, _ = apart_and_together(trackers(own, "compute_metrics"))
    assert [type(metric) for metric in merged] == [Mean, Mean]
    assert float(merged[1]) == pytest.approx(float(joint[1])) == pytest.approx(float(merged[0]))


def test_a_custom_steps_own_tracker_called_loss_is_what_keras_shows():
    """Keras keeps a tracker of that name too, which such a step leaves at zero."""
    builder = trackers(lambda keras: keras.metrics.Mean(name="loss"), "test_step")
    backend, data = ready(builder)
    model = builder()
    model(X)
    model.set_weights(backend.arrays())
    (loss,) = backend.evaluate(data, batches(20, 40))
    assert float(loss) == pytest.approx(model.evaluate(X, Y, verbose=0, return_dict=True)["loss"], rel=1e-6)
    assert loss.count == 60


@pytest.mark.parametrize(
    ("metrics", "weighted"),
    [(["accuracy"], ["accuracy"]), (["accuracy", "accuracy"], ["accuracy", "accuracy", "mse"]), ([], ["mae", "mae"])],
)
def test_weighted_metrics_that_repeat_a_name_are_called_and_computed_as_in_keras(metrics, weighted):
    weights = np.linspace(0.5, 2.0, 60).astype(np.float32)

    def builder():
        return dense(metrics=metrics, weighted_metrics=weighted, run_eagerly=True)()

    backend = KerasBackend(builder, seed=1)
    parts = [bind(backend, X[part], Y[part], weights[part]) for part in PARTS]
    merged = backend.finish(merge([backend.evaluate(part, batches(part.rows)) for part in parts]))
    model = builder()
    model.set_weights(backend.arrays())
    expected = model.evaluate(X, Y, sample_weight=weights, batch_size=60, verbose=0, return_dict=True)
    assert {metric.name: float(metric) for metric in merged} == pytest.approx(expected, rel=1e-5)


def test_two_metrics_that_would_share_a_name_are_refused():
    def builder():
        import keras

        model = dense()()
        named = keras.metrics.AUC(name="accuracy_1")
        model.compile(loss="categorical_crossentropy", metrics=["accuracy", "accuracy", named])
        return model

    with pytest.raises(PlanError, match="two of accuracy, accuracy, accuracy_1 would have one name in the history"):
        ready(builder)


def test_a_function_as_metric_is_a_mean():
    def closeness(y_true, y_pred):
        import keras

        return keras.ops.max(keras.ops.abs(y_true - y_pred), axis=-1)

    merged, joint, _ = apart_and_together(dense(metrics=[closeness]))
    assert isinstance(merged[1], Mean)
    assert (merged[1].name, merged[1].count) == ("closeness", 60.0)
    assert float(merged[1]) == pytest.approx(float(joint[1]))


def test_a_metric_that_returns_a_dict_is_refused_by_name():
    def builder():
        import keras

        class Several(keras.metrics.Mean):
            def result(self):
                return {"a": self.total, "b": self.count}

            def update_state(self, y_true, y_pred, sample_weight=None):
                super().update_state(y_pred)

        model = dense()()
        model.compile(loss="categorical_crossentropy", metrics=[Several(name="several")])
        return model

    with pytest.raises(PlanError, match="metric 'several' returns a dict"):
        bind(KerasBackend(builder, seed=1), X, Y)
