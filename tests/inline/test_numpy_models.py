# SPDX-License-Identifier: Apache-2.0
"""FLModel with the NumPy backend: all that it does, without any framework."""

import sys

import numpy as np
import pytest
from inline.federated import world
from inline.keras_models import CLASS, X

import fedray as sf
from fedray.errors import DataError, PlanError
from fedray.ml.nn.numpy import LinearRegression, SoftmaxRegression
from fedray.strategies import STRATEGIES

RATE = 0.5


@pytest.fixture
def fed(start):
    return world(start, rows=(20, 40), y=CLASS)


def softmax():
    return SoftmaxRegression(4, 3, learning_rate=RATE)


def moving():
    return SoftmaxRegression(4, 3, learning_rate=RATE / 4, momentum=0.9, dtype="float64")


def weights_of(model):
    trained = model.global_model()
    return np.concatenate([trained.kernel.ravel(), trained.bias])


def test_it_trains_evaluates_and_predicts_and_the_driver_imports_no_framework(fed):
    before = set(sys.modules)
    model = fed.model(softmax, backend="numpy")
    history = model.fit(fed.x, fed.y, validation_data=(fed.x, fed.y), epochs=8, batch_size=8, verbose=0)
    assert history.history["loss"][-1] < 0.6 * history.history["loss"][0]
    overall, local = model.evaluate(fed.x, fed.y, verbose=0)
    assert [metric.name for metric in overall] == ["loss", "accuracy"]
    assert float(overall[0]) == pytest.approx(history.history["val_loss"][-1], rel=1e-6)
    assert sum(local[party][1].total for party in local) == overall[1].total
    predictions = sf.reveal(model.predict(fed.x, batch_size=7))
    found = np.concatenate([predictions[device] for device in fed.devices])
    np.testing.assert_allclose(found, model.global_model().predict(X), rtol=1e-5, atol=1e-7)
    assert (found.argmax(axis=1) == CLASS).sum() == overall[1].total
    assert not {"tensorflow", "keras", "torch"} & (set(sys.modules) - before)


def test_weighted_averages_of_single_steps_are_the_pooled_step(fed):
    model = fed.model(softmax, backend="numpy", strategy="fed_avg_w")
    trained = model.global_model()
    kernel, bias = trained.kernel.astype(np.float64), trained.bias.astype(np.float64)
    model.fit(fed.x, fed.y, epochs=3, batch_size=60, verbose=0)
    for _ in range(3):
        scores = X @ kernel + bias
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        error = (powers / powers.sum(axis=1, keepdims=True) - np.eye(3)[CLASS]) / len(X)
        kernel, bias = kernel - RATE * X.T @ error, bias - RATE * error.sum(axis=0)
    np.testing.assert_allclose(weights_of(model), np.concatenate([kernel.ravel(), bias]), atol=1e-6)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_learns_with_an_optimizer_that_keeps_its_state(fed, strategy):
    model = fed.model(moving, backend="numpy", strategy=strategy)
    history = model.fit(fed.x, fed.y, epochs=6, batch_size=8, verbose=0)
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0]


def test_optimizers_keep_their_state_from_fit_to_fit(fed):
    twice, once = fed.model(moving, backend="numpy"), fed.model(moving, backend="numpy")
    for _ in range(2):
        twice.fit(fed.x, fed.y, batch_size=15, verbose=0, shuffle=False)
    once.fit(fed.x, fed.y, batch_size=15, verbose=0, shuffle=False, epochs=2)
    assert weights_of(twice).tolist() == weights_of(once).tolist()


def test_a_saved_model_is_an_npz_file_and_loads_everywhere(fed, tmp_path):
    model = fed.model(softmax, backend="numpy")
    model.fit(fed.x, fed.y, epochs=1, batch_size=8, verbose=0)
    before, metrics = weights_of(model), model.evaluate(fed.x, fed.y, verbose=0)
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        assert np.concatenate([file["kernel"].ravel(), file["bias"]]).tolist() == before.tolist()
    model.fit(fed.x, fed.y, epochs=1, batch_size=8, verbose=0)
    assert weights_of(model).tolist() != before.tolist()
    model.load(tmp_path / "model.npz")
    assert weights_of(model).tolist() == before.tolist()
    assert model.evaluate(fed.x, fed.y, verbose=0) == metrics
    with pytest.raises(PlanError, match=r"path: expected a name that ends in \.npz, found '.*model\.keras'"):
        model.save(tmp_path / "model.keras")


def test_labels_are_numbers_too(start):
    fed = world(start, y=X.sum(axis=1))
    model = fed.model(lambda: LinearRegression(4, learning_rate=0.1, dtype="float64"), backend="numpy")
    history = model.fit(fed.x, fed.y, epochs=30, batch_size=8, verbose=0)
    assert history.history["loss"][-1] < 1e-6
    assert sorted(history.history) == ["loss", "mae"]


def test_weights_of_classes_and_rows(fed):
    weight = np.where(CLASS == 1, 5.0, 1.0)
    by_class, by_row = fed.model(softmax, backend="numpy"), fed.model(softmax, backend="numpy")
    by_class.fit(fed.x, fed.y, class_weight={1: 5.0}, batch_size=8, verbose=0)
    by_row.fit(fed.x, fed.y, sample_weight=fed.spread(weight), batch_size=8, verbose=0)
    assert weights_of(by_class).tolist() == weights_of(by_row).tolist()


def test_what_does_not_fit_is_said_with_the_partys_name(fed):
    model = fed.model(softmax, backend="numpy")
    with pytest.raises(DataError, match="party 'bob': y: SoftmaxRegression expects class numbers from 0 to 3 - 1"):
        model.fit(fed.x, fed.spread(CLASS + 3 * (np.arange(60) >= 20)), verbose=0)
    with pytest.raises(
        PlanError,
        match=r"party '(alice|bob)': model: expected the builder to return a LinearRegression or a SoftmaxRegression",
    ):
        fed.model(dict, backend="numpy").evaluate(fed.x, fed.y, verbose=0)
    with pytest.raises(
        PlanError, match="model: expected a function that returns a compiled model, found SoftmaxRegression"
    ):
        fed.model(softmax(), backend="numpy")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 0}, "LinearRegression: expected features as a whole number of at least 1, found 0"),
        ({"outputs": 1.5}, "LinearRegression: expected outputs as a whole number of at least 1, found 1.5"),
        ({"learning_rate": float("nan")}, "LinearRegression: expected learning_rate as a finite number of 0 or more"),
        ({"momentum": 1.0}, "LinearRegression: expected momentum from 0 to below 1, found 1.0"),
        ({"dtype": "float16"}, "LinearRegression: expected dtype 'float32' or 'float64', found 'float16'"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(PlanError, match=message):
        LinearRegression(**({"features": 2} | settings))
