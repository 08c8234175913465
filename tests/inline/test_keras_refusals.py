# SPDX-License-Identifier: Apache-2.0
"""What the Keras backend refuses, and how it says so."""

from importlib.metadata import version

import numpy as np
import pytest
from inline.keras_models import CLASS, X, Y, batches, binary, bind, dense, ready

from fedray.backends.keras.model import KerasBackend
from fedray.errors import DataError, PlanError

pytestmark = pytest.mark.usefixtures("kernels_kept")
needs_several = pytest.mark.skipif(version("keras") < "3.15", reason="this Keras has no MultiOptimizer")
WIDE = np.zeros((60, 5), np.float32)


def not_compiled():
    import keras

    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def two_outputs():
    import keras

    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(3)(inputs), keras.layers.Dense(1)(inputs)])
    model.compile(loss="mse", optimizer="sgd")
    return model


def two_inputs():
    import keras

    inputs = [keras.Input((4,), name="left"), keras.Input((4,), name="right")]
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Add()(inputs)))
    model.compile(loss="mse", optimizer="sgd")
    return model


def averaged():
    import keras

    return dense(keras.optimizers.SGD(use_ema=True))()


def averaged_inside():
    """Its own `use_ema` is False; Keras averages all the same at the end of fit."""
    import keras

    return dense(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(use_ema=True)))()


def averaged_for_some():
    """Keras asks for the optimizer of each variable when it is built."""
    import keras

    chosen = {True: keras.optimizers.SGD(), False: keras.optimizers.Adam(use_ema=True)}
    return dense(keras.optimizers.MultiOptimizer(lambda variable: chosen["kernel" in variable.path]))()


def without_optimizer():
    return dense(optimizer=None)()


def own_fit():
    import keras

    class Own(keras.Model):
        def fit(self, *arguments, **more):
            return super().fit(*arguments, **more)

    inputs = keras.Input((4,))
    model = Own(inputs, keras.layers.Dense(3)(inputs))
    model.compile(loss="mse", optimizer="sgd")
    return model


def no_weights():
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    model.compile(loss="mse", optimizer="sgd")
    return model


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (lambda: None, "expected the builder to return a compiled keras.Model, found NoneType"),
        (lambda: [not_compiled()], "expected the builder to return a compiled keras.Model, found list"),
        (not_compiled, "expected a compiled model; call model.compile"),
        (averaged, "use_ema=True is not supported"),
        (averaged_inside, "use_ema=True is not supported"),
        pytest.param(averaged_for_some, "use_ema=True is not supported", marks=needs_several),
        (without_optimizer, "compiled without an optimizer; name one in model.compile"),
        (own_fit, "overrides fit, which is not used here; override train_step"),
        (no_weights, "expected at least one weight to train, found none"),
    ],
)
def test_models_that_cannot_be_trained(builder, message):
    with pytest.raises(PlanError, match=message):
        bind(KerasBackend(builder, seed=1), X, Y)


@pytest.mark.parametrize(
    ("builder", "x", "y", "message"),
    [
        (two_inputs, X, Y, r"x: model '.*' expects x\[0\], x\[1\] \(or a dict with the keys left, right\), found x$"),
        (two_inputs, {"left": X}, Y, r"x: .* the keys left, right\), found x\['left'\]$"),
        (two_inputs, [X, X, X], Y, r"x: .* found x\[0\], x\[1\], x\[2\]$"),
        (two_inputs, [X, WIDE], Y, r"x\[1\]: model '.*' expects rows of shape \(4,\), found \(5,\)"),
        (two_inputs, {"left": WIDE, "right": X}, Y, r"x\['left'\]: model '.*' expects rows of shape \(4,\)"),
        (two_inputs, [X, X[:9]], Y, r"found rows of x\[0\]: 60, x\[1\]: 9, y: 60"),
        (two_outputs, X, Y, r"y: model '.*' expects y\[0\], y\[1\] \(or a dict with the keys .*\), found y$"),
        (two_outputs, X, {"a": Y, "b": Y}, r"y: .* found y\['a'\], y\['b'\]$"),
        (two_outputs, X, [Y, Y], r"y\[1\]: the loss 'mean_squared_error' expects rows of shape \(1,\), found \(3,\)"),
    ],
)
def test_inputs_and_outputs_that_the_model_does_not_have(builder, x, y, message):
    with pytest.raises(DataError, match=message):
        bind(KerasBackend(builder, seed=1), x, y)


SPELLINGS = ["string", "alias", "class", "instance", "function", "subclass", "dict", "dict of an instance"]
SPELLINGS += ["dict of a list", "list", "tuple of a function"]


def spellings():
    """One loss in every way in which Keras takes it, for an output called `out`; made anew, since they hold state."""
    import keras

    named = keras.losses.MeanSquaredError(name="mine")
    function = keras.losses.mean_squared_error
    return {
        "string": "mse",
        "alias": "MSE",
        "class": keras.losses.MeanSquaredError,
        "instance": named,
        "function": function,
        "subclass": type("Mine", (keras.losses.MeanSquaredError,), {})(),
        "dict": {"out": "mse"},
        "dict of an instance": {"out": named},
        "dict of a list": {"out": ["mse"]},
        "list": ["mse"],
        "tuple of a function": (function,),
    }


def two_named(loss, outputs):
    def builder():
        import keras

        inputs = keras.Input((4,))
        made = {"b": keras.layers.Dense(1, name="b")(inputs), "a": keras.layers.Dense(3, name="a")(inputs)}
        model = keras.Model(inputs, made if outputs is dict else list(made.values()))
        model.compile(loss=loss, optimizer="sgd")
        return model

    return builder


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_labels_that_a_loss_would_broadcast_are_refused_however_it_is_written(spelling):
    def builder():
        import keras

        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Dense(1, name="out")(inputs))
        model.compile(loss=spellings()[spelling], optimizer="sgd", run_eagerly=True)
        return model

    backend = KerasBackend(builder, seed=1)
    with pytest.raises(DataError, match=r"y: the loss 'mean_squared_error' expects rows of shape \(1,\), found \(3,\)"):
        bind(backend, X, Y)
    losses = [float(backend.evaluate(bind(backend, X, y), batches(60))[0]) for y in (X[:, 0], X[:, :1])]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("outputs", [dict, list])
@pytest.mark.parametrize("loss", ["mse", {"a": "mae", "b": "mse"}, {"b": "mse", "a": "huber"}])
def test_labels_are_checked_for_every_output(loss, outputs):
    backend, kinds = KerasBackend(two_named(loss, outputs), seed=1), {"a": "[a-z_]+", "b": "mean_squared_error"}
    for bad, shape in (("a", r"\(3,\), found \(1,\)"), ("b", r"\(1,\), found \(3,\)")):
        y = {"a": Y, "b": X[:, :1]} | {bad: X[:, :1] if bad == "a" else Y}
        place = f"'{bad}'" if outputs is dict else "ba".index(bad)
        with pytest.raises(DataError, match=rf"y\[{place}\]: the loss '{kinds[bad]}' expects rows of shape {shape}"):
            bind(backend, X, y)
    bind(backend, X, {"a": Y, "b": X[:, 0]})


def test_losses_that_are_not_the_outputs_are_refused():
    with pytest.raises(PlanError, match=r"its loss does not fit its outputs: .*'c'"):
        bind(KerasBackend(two_named({"a": "mse", "c": "mse"}, dict), seed=1), X, {"a": Y, "b": X[:, :1]})


@pytest.mark.parametrize("aligned", [False, True])
def test_a_loss_class_that_sets_labels_against_the_outputs_of_other_rows_is_refused(aligned):
    def builder():
        import keras

        class Own(keras.losses.Loss):
            def call(self, y_true, y_pred):
                y_true = keras.ops.reshape(y_true, keras.ops.shape(y_pred)) if aligned else y_true
                return keras.ops.mean((y_true - y_pred) ** 2, axis=-1)

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(loss=Own(), optimizer="sgd")
        return model

    bind(KerasBackend(builder, seed=1), X, X[:, :1])
    if aligned:
        bind(KerasBackend(builder, seed=1), X, X[:, 0])
    else:
        with pytest.raises(DataError, match=r"loss 'Own' sets each row's labels against all rows' outputs; .*reshape"):
            bind(KerasBackend(builder, seed=1), X, X[:, 0])


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        ("categorical_crossentropy", CLASS, r"expects rows of shape \(3,\), found \(\); one-hot encode"),
        ("categorical_crossentropy", WIDE, r"expects rows of shape \(3,\), found \(5,\)"),
        ("mse", CLASS, r"the loss 'mean_squared_error' expects rows of shape \(3,\), found \(\)"),
        ("sparse_categorical_crossentropy", Y, r"expects one class number per output \(\), found \(3,\)"),
        ("sparse_categorical_crossentropy", CLASS + 1, "expects class numbers from 0 to 3 - 1, found others"),
        ("sparse_categorical_crossentropy", CLASS - 1, "expects class numbers from 0 to 3 - 1, found others"),
        ("binary_crossentropy", Y + 1, "expects 0, 1 or a number between them, found others; of 1 and 2 make y - 1"),
        ("categorical_crossentropy", 2 * Y - 1, "expects 0, 1 or a number between them, found others"),
    ],
)
def test_labels_that_do_not_fit_the_loss(loss, y, message):
    backend = KerasBackend(dense(loss=loss), seed=1)
    with pytest.raises(DataError, match=message):
        bind(backend, X, y)


def loss_of_one(y_true):
    return y_true


def metric_of_three(y_true, y_pred, weight):
    return y_true - y_pred * weight


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": loss_of_one}, "loss: expected a function of .y_true, y_pred., and 'loss_of_one' takes other"),
        ({"metrics": [metric_of_three]}, "metrics: expected .* 'metric_of_three' takes other arguments; it returns"),
    ],
)
def test_functions_of_something_else_are_no_losses_and_metrics(arguments, message):
    with pytest.raises(PlanError, match=message):
        KerasBackend(dense(**arguments), seed=1)


def test_metrics_that_compare_each_label_with_an_output_of_its_own_take_no_numbers_of_classes():
    backend = KerasBackend(dense(loss="sparse_categorical_crossentropy", metrics=["Precision"]), seed=1)
    with pytest.raises(PlanError, match=r"metrics: Precision: .* expected labels of shape \(3,\), found \(\); take"):
        bind(backend, X, CLASS)


@pytest.mark.parametrize("spelling", ["name", "object", "logits", "activated"])
def test_it_is_said_where_a_loss_of_probabilities_gets_none(spelling):
    def builder():
        import keras

        loss = "categorical_crossentropy"
        if spelling in ("object", "logits"):
            loss = keras.losses.CategoricalCrossentropy(from_logits=spelling == "logits")
        outputs = keras.layers.Dense(3, "softmax" if spelling == "activated" else None, name="last")
        model = keras.Sequential([keras.Input((4,)), outputs])
        model.compile("sgd", loss, run_eagerly=True)
        return model

    backend, _ = ready(builder)
    doubtful = spelling in ("name", "object")
    assert len(backend.facts().doubts) == doubtful
    for doubt in backend.facts().doubts:
        assert "output 'last' has no activation: say activation='softmax' there, or the loss with from_log" in doubt


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis:UserWarning")  # Keras says so, too
def test_it_is_said_that_a_softmax_of_one_number_is_always_one():
    def builder():
        import keras

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "softmax", name="last")])
        model.compile("sgd", "binary_crossentropy", run_eagerly=True)
        return model

    backend, _ = ready(builder, y=CLASS > 0)
    assert backend.facts().doubts == (
        "output 'last' is a softmax of one number, which is 1 whatever the row: say activation='sigmoid'",
    )


def test_labels_with_and_without_a_last_axis_of_one_are_the_same():
    for y in (CLASS > 0, (CLASS > 0)[:, None].astype(np.float64)):
        backend, data = ready(binary(), y=y)
        assert backend.train(backend.weights(), data, batches(60))[1] == 60
    backend, data = ready(dense(loss="sparse_categorical_crossentropy"), y=CLASS[:, None])
    assert backend.train(backend.weights(), data, batches(60))[1] == 60


def test_a_loss_object_is_checked_like_its_name():
    def builder():
        import keras

        return dense(loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1))()

    with pytest.raises(DataError, match="the loss 'categorical_crossentropy' expects rows"):
        bind(KerasBackend(builder, seed=1), X, CLASS)


def test_a_class_to_ignore_is_allowed():
    def builder():
        import keras

        return dense(loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=-1), metrics=())()

    backend, data = ready(builder, y=CLASS - 1)
    assert backend.train(backend.weights(), data, batches(60))[1] == 60


def test_a_loss_function_of_the_users_own_takes_what_it_likes():
    def loss(y_true, y_pred):
        import keras

        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    backend, data = ready(dense(loss=loss, metrics=()), y=CLASS)
    assert backend.train(backend.weights(), data, batches(60))[1] == 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": WIDE, "y": Y}, r"x: model 'sequential' expects rows of shape \(4,\), found \(5,\)"),
        ({"x": X[:50], "y": Y}, "same length, found rows of x: 50, y: 60"),
        ({"x": X, "y": Y, "sample_weight": np.ones(3)}, "found rows of x: 60, y: 60, sample_weight: 3"),
        ({"x": X, "sample_weight": np.ones(60)}, "sample_weight: expected labels y beside it, found none"),
        ({"x": X.astype(object), "y": Y}, "x: expected rows of numbers, found shape"),
        ({"x": X, "y": 3.0}, r"y: expected rows of numbers, found shape \(\)"),
        ({"x": X, "class_weight": {0: 1.0}}, "class_weight: expected one class per row in y, found None"),
        ({"x": [X, X], "y": Y}, r"x: model 'sequential' expects x, found x\[0\], x\[1\]"),
        ({"x": X, "y": [Y, Y]}, r"y: model 'sequential' expects y, found y\[0\], y\[1\]"),
        ({"x": X, "y": Y, "class_weight": {0: -1.0}}, "class_weight: expected class number -> weight of 0 or more"),
        ({"x": X, "y": Y, "class_weight": {"cat": 1.0}}, "class_weight: expected class number"),
        ({"x": X, "y": Y, "class_weight": {0: 1}, "sample_weight": np.ones(60)}, "expected one of the two, found both"),
    ],
)
def test_data_that_does_not_fit(arguments, message):
    with pytest.raises((DataError, PlanError), match=message):
        bind(KerasBackend(dense(), seed=1), **arguments)


def test_images_without_their_channel_axis_fit():
    def builder():
        import keras

        model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile(loss="mse", optimizer="sgd")
        return model

    backend, data = ready(builder, x=X.reshape(60, 2, 2))
    assert backend.train(backend.weights(), data, batches(60))[1] == 60
    with pytest.raises(DataError, match=r"expects rows of shape \(2, 2, 1\), found \(4,\)"):
        bind(backend, X, Y)


def test_data_without_labels_can_be_predicted_but_not_trained_on():
    backend = KerasBackend(dense(), seed=1)
    data = bind(backend, X)
    assert backend.predict(data, batches(60)).nest.shape == (60, 3)
    bind(backend, X, Y)
    for action in (lambda: backend.train(backend.weights(), data, batches(60)), lambda: backend.evaluate(data, [])):
        with pytest.raises(DataError, match="is trained and evaluated on labels, found none"):
            action()


def test_nothing_can_be_measured_before_data_is_bound():
    backend = KerasBackend(dense(), seed=1)
    with pytest.raises(PlanError, match="has seen no labels yet; call fit or evaluate first"):
        backend.take_metrics()


def test_a_vector_of_the_wrong_length_is_refused():
    backend, data = ready(dense())
    with pytest.raises(DataError, match=r"weights: expected 43 words, found shape \(42,\)"):
        backend.train(np.zeros(42, np.float32), data, batches(60))
    with pytest.raises(DataError, match="data: expected what bind returned, found ndarray"):
        backend.train(np.zeros(43, np.float32), X, batches(60))
