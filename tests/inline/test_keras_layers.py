# SPDX-License-Identifier: Apache-2.0
"""Layers that know or remember more than weights, or work in half precision: they work as in Keras, or are refused."""

import numpy as np
import pytest
from inline.federated import weights_of, world
from inline.keras_models import X, batches, bind, ready

from fedray.backends.keras.entry import build_at_driver
from fedray.backends.keras.model import KerasBackend
from fedray.data.ndarray import FedNdarray, load
from fedray.errors import PlanError

pytestmark = pytest.mark.usefixtures("kernels_kept")

SEQUENCES = np.random.default_rng(0).normal(size=(60, 5, 4)).astype(np.float32)
TEXT = np.array(["a b", "b c d", "e f"] * 20)
TARGET = X[:, :1]


def stacked(*layers, **compile_arguments):
    """A sequential model; each layer is a function of `keras` that makes it."""

    def builder():
        import keras

        model = keras.Sequential([make(keras) for make in layers])
        model.compile(**({"loss": "mse", "optimizer": "sgd", "run_eagerly": True} | compile_arguments))
        return model

    return builder


def one(keras):
    return keras.layers.Dense(1)


@pytest.mark.parametrize(
    ("layers", "x", "message"),
    [
        (
            (lambda k: k.Input(batch_shape=(16, 5, 4)), lambda k: k.layers.LSTM(2, stateful=True, name="memory"), one),
            SEQUENCES,
            "layer 'memory' has stateful=True.*expected stateful=False",
        ),
        (
            (lambda k: k.layers.Bidirectional(k.layers.GRU(2, stateful=True), name="both"), one),
            SEQUENCES,
            "layer 'both' has stateful=True",
        ),
        (
            (lambda k: k.layers.TextVectorization(9, output_sequence_length=3, name="words"), one),
            TEXT,
            r"layer 'words' \(TextVectorization\) has not been given its vocabulary; pass vocabulary=",
        ),
        (
            (lambda k: k.Input((1,), dtype="string"), lambda k: k.layers.StringLookup(name="table"), one),
            TEXT[:, None],
            r"layer 'table' \(StringLookup\) has not been given its vocabulary",
        ),
        (
            (lambda k: k.Input((4,)), lambda k: k.layers.Normalization(name="scale"), one),
            X,
            r"layer 'scale' \(Normalization\) has not been given its mean; pass mean=... and variance=...",
        ),
        (
            (lambda k: k.layers.Normalization(name="scale"), one),
            X,
            r"layer 'scale' \(Normalization\) has not been given its mean",
        ),
        (
            (lambda k: k.Input((4,)), lambda k: k.layers.Discretization(num_bins=3, name="bins"), one),
            X,
            r"layer 'bins' \(Discretization\) has not been given its bin_boundaries",
        ),
        (
            (
                lambda k: k.Input(batch_shape=(16, 4)),
                lambda k: k.layers.Lambda(lambda x: k.ops.reshape(x, (16, 4))),
                one,
            ),
            X,
            r"fixes a batch of 16 rows, and a layer needs that number; .*Expected Input\(shape=...\)",
        ),
        (
            (
                lambda k: k.Input(batch_shape=(4, 4)),
                lambda k: k.layers.Lambda(lambda x: k.ops.reshape(x, (4, -1))[:, :2]),
                one,
            ),
            X,
            "fixes a batch of 4 rows",
        ),
    ],
)
def test_a_layer_that_cannot_work_here_is_named_before_the_first_step(layers, x, message):
    with pytest.raises(PlanError, match=message):
        bind(KerasBackend(stacked(*layers), seed=1), x, TARGET)


@pytest.mark.parametrize("layer", [one, pytest.param(lambda k: k.layers.LSTM(1), marks=pytest.mark.slow)])
def test_a_fixed_batch_size_that_no_layer_needs_is_no_matter(layer):
    x = SEQUENCES if layer is not one else X
    shape, graph = x.shape[1:], {"run_eagerly": False}
    fixed, data = ready(stacked(lambda k: k.Input(batch_shape=(16, *shape)), layer, **graph), x=x, y=TARGET)
    free, same = ready(stacked(lambda k: k.Input(shape), layer, **graph), x=x, y=TARGET)
    start = free.weights().copy()
    assert np.array_equal(fixed.weights(), start)
    trained = [backend.train(start, rows, batches(16, 7, 37))[0] for backend, rows in ((fixed, data), (free, same))]
    assert np.array_equal(*trained)
    assert not np.array_equal(trained[0], start)


def test_what_a_layer_knows_beside_weights_is_part_of_the_model():
    import keras

    def words(*vocabulary):
        made = stacked(
            lambda k: k.layers.TextVectorization(vocabulary=list(vocabulary), output_sequence_length=3, name="words"),
            lambda k: k.layers.Embedding(9, 2),
            lambda k: k.layers.Flatten(),
            one,
        )
        return ready(made, x=TEXT, y=TARGET)[0]

    def scaled(rows):
        def layer(k):
            made = k.layers.Normalization(name="scale")
            made.adapt(rows)
            return made

        return ready(stacked(lambda k: k.Input((4,)), layer, one), y=TARGET)[0]

    for a, b, other, name in (
        (words("a", "b"), words("a", "b"), words("b", "a"), "words/vocabulary"),
        (scaled(X), scaled(X), scaled(X[:9]), "scale/mean"),
    ):
        assert a.facts().frozen == b.facts().frozen
        assert a.facts().frozen[name] != other.facts().frozen[name]
        assert a.fingerprint() == b.fingerprint() != other.fingerprint()
    wide, narrow = scaled(X * 5), scaled(X)
    narrow.predict(bind(narrow, X), batches(60))
    narrow.set_arrays(wide.arrays())
    found = narrow.predict(bind(narrow, X), batches(60)).nest
    np.testing.assert_allclose(found, wide.predict(bind(wide, X), batches(60)).nest, rtol=1e-6)
    stock = build_at_driver(stacked(lambda k: k.Input((4,)), lambda k: k.layers.Normalization(), one), wide.arrays())
    np.testing.assert_allclose(stock(keras.ops.convert_to_tensor(X)).numpy(), found, rtol=1e-5)


def test_a_model_of_text_that_waits_for_its_rows_is_a_global_model_too(start):
    fed = world(start, rows=(40, 20))
    # `load` takes numbers only; text is made by the parties themselves.
    text = FedNdarray({d: d(np.asarray)(part) for d, part in zip(fed.devices, np.split(TEXT, [40]), strict=True)})
    target = load(dict(zip(fed.devices, np.split(TARGET, [40]), strict=True)))
    builder = stacked(
        lambda k: k.layers.TextVectorization(vocabulary=["a", "b", "c"], output_sequence_length=3),
        lambda k: k.layers.Embedding(9, 2),
        lambda k: k.layers.Flatten(),
        one,
    )
    model = fed.model(builder)
    model.fit(text, target, verbose=0)
    trained = model.global_model()
    overall, _ = model.evaluate(text, target, verbose=0)
    assert float(overall[0]) == pytest.approx(np.mean((np.asarray(trained(TEXT)) - TARGET) ** 2), rel=1e-5)


@pytest.mark.parametrize(
    "precision",
    ["bfloat16", *(pytest.param(other, marks=pytest.mark.slow) for other in ("float16", "mixed_bfloat16"))],
)
def test_layers_of_half_precision_train_as_in_keras(start, precision):
    builder = stacked(
        lambda k: k.Input((4,)),
        lambda k: k.layers.Dense(3, activation="tanh", dtype=precision),
        lambda k: k.layers.Dense(1, dtype=precision),
    )
    fed = world(start, x=X, y=TARGET)
    model = fed.model(builder, strategy="fed_avg_g")
    model.evaluate(fed.x, fed.y, verbose=0)
    stock = builder()
    stock.set_weights(weights_of(model))
    x, y = (np.concatenate(part) for part in zip(*fed.parts, strict=True))
    found = model.fit(fed.x, fed.y, batch_size=30, epochs=5, verbose=0).history["loss"]
    expected = stock.fit(x, y, batch_size=60, epochs=5, verbose=0).history["loss"]
    np.testing.assert_allclose(found, expected, rtol=0.02)
    assert found[-1] < 0.97 * found[0]
    for here, there in zip(weights_of(model), stock.get_weights(), strict=True):
        assert here.dtype == there.dtype
        np.testing.assert_allclose(here.astype(float), there.astype(float), atol=0.02)
