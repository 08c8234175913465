# SPDX-License-Identifier: Apache-2.0
"""Metrics of several parties on the Keras backend: summed states, finished by the stock metric."""

import inspect

import numpy as np
import pytest
from inline.keras_models import CLASS, X, Y, batches, binary, bind, dense, ready

from fedray.backends.keras.model import KerasBackend
from fedray.errors import DataError, PlanError
from fedray.metrics import Mean, Tally, flatten, merge, rebuild, words
from fedray.party.training.sampling import in_order

pytestmark = pytest.mark.usefixtures("kernels_kept")

TRUE = (CLASS > 0).astype(np.float32)
PARTS = (slice(0, 13), slice(13, 40), slice(40, 60))


def apart_and_together(builder, x=X, y=Y, parts=PARTS):
    """Metrics of three parties merged and finished, and the metrics over all rows in one place."""
    backend, data = ready(builder, x=x, y=y)
    local = []
    for part in parts:
        bound = bind(backend, x[part], y[part])
        local.append(backend.evaluate(bound, in_order(bound.rows, 8)))
    return backend.finish(merge(local)), backend.evaluate(data, in_order(len(x), 8)), local


@pytest.mark.parametrize("name", ["AUC", "Precision", "Recall", "TruePositives", "PrecisionAtRecall"])
def test_what_counts_rows_merges_exactly(name):
    def builder():
        import keras

        metric = keras.metrics.PrecisionAtRecall(0.5) if name == "PrecisionAtRecall" else getattr(keras.metrics, name)()
        model = binary()()
        model.compile(loss="binary_crossentropy", metrics=[metric])
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
        model.compile(loss="categorical_crossentropy", metrics=metrics)
        return model

    merged, joint, _ = apart_and_together(builder)
    _, soft, _ = apart_and_together(builder, y=(0.9 * Y + 0.03).astype(np.float32))
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
        model.compile(loss="categorical_crossentropy", metrics=metrics, weighted_metrics=["mse"])
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


def custom(additive):
    """A metric class of the user's own: the largest output, or the sum of outputs."""

    def builder():
        import keras

        class Own(keras.metrics.Metric):
            def __init__(self):
                super().__init__(name="own")
                self.most = self.add_variable((), "zeros", name="most")

            def update_state(self, y_true, y_pred, sample_weight=None):
                new = keras.ops.sum(y_pred) if additive else keras.ops.max(y_pred)
                self.most.assign(self.most + new if additive else keras.ops.maximum(self.most, new))

            def result(self):
                return self.most * 2

        if additive:
            Own.additive = True
        model = dense()()
        model.compile(loss="categorical_crossentropy", metrics=[Own()])
        return model

    return builder


def test_a_metric_class_of_the_users_own_stays_with_its_party():
    merged, joint, _ = apart_and_together(custom(additive=False))
    assert [metric.name for metric in merged] == ["loss"]
    assert (joint[1].name, joint[1].additive) == ("own", False)
    assert float(joint[1]) > 0


def test_unless_it_says_that_it_is_additive():
    merged, joint, _ = apart_and_together(custom(additive=True))
    assert [metric.name for metric in merged] == ["loss", "own"]
    assert float(merged[1]) == pytest.approx(120.0)
    assert float(merged[1]) == pytest.approx(float(joint[1]))


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
