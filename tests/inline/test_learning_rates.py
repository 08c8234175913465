# SPDX-License-Identifier: Apache-2.0
"""The model's learning rate: one for callbacks, parties, files and the driver, from one `fit` to the next."""

import numpy as np
import pytest
from inline.federated import by_hand, regression, softmax, weights_of, world

from fedray.errors import PlanError
from fedray.party.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("kernels_kept")


@pytest.fixture(scope="module")
def keras():
    import keras

    return keras


@pytest.fixture
def orders(monkeypatch):
    """The rates of the orders to train, of all parties."""
    seen, train = [], Trainer.train

    def watched(self, order):
        seen.append(order.learning_rate)
        return train(self, order)

    monkeypatch.setattr(Trainer, "train", watched)
    return seen


def fit(fed, model, callbacks=None, **more):
    settings = {"batch_size": 15, "verbose": 0, "callbacks": callbacks, "random_seed": 3} | more
    return model.fit(fed.x, fed.y, **settings)


def halving(keras):
    class Halving(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2

    return Halving()


@pytest.mark.parametrize("backend", ["numpy", "tensorflow"])
def test_a_rate_set_at_the_end_of_a_fit_holds_for_the_next(start, keras, orders, backend):
    fed = world(start, backend=backend)
    model = fed.model(regression(0.5) if backend == "numpy" else softmax(rate=0.5))
    expected = weights_of(model)
    for rate in (0.5, 0.25, 0.125, 0.0625):
        assert model.optimizer.learning_rate == rate
        fit(fed, model, halving(keras))
        expected = by_hand(expected, fed.parts, rate=rate, batch_size=15)
    assert model.optimizer.learning_rate == 0.03125
    assert orders == [None] * 2 + [0.25] * 2 + [0.125] * 2 + [0.0625] * 2
    for found, wanted in zip(weights_of(model), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_user_and_a_callback_set_one_rate(start, keras, orders):
    fed = world(start, backend="numpy")
    model = fed.model()
    model.optimizer.learning_rate.assign(0.25)
    fit(fed, model, [keras.callbacks.LearningRateScheduler(lambda _, rate: rate * 0.5)], epochs=2)
    assert model.optimizer.learning_rate == 0.0625
    assert model.global_model().regression.learning_rate == 0.0625
    # Every later order says it again, so that a party that was away has it as well.
    fit(fed, model, epochs=2)
    assert orders == [0.125] * 2 + [0.0625] * 6


def test_a_model_is_saved_and_loaded_with_its_rate(start, tmp_path):
    fed = world(start, backend="numpy")
    model = fed.model()
    model.optimizer.learning_rate = 0.125
    fit(fed, model)
    model.optimizer.learning_rate = 0.25  # after the last round
    model.save(tmp_path / "it.npz")
    model.optimizer.learning_rate = 4.0
    model.load(tmp_path / "it.npz")
    other = fed.model()
    other.load(tmp_path / "it.npz")
    assert model.optimizer.learning_rate == other.optimizer.learning_rate == 0.25
    before = weights_of(other)
    fit(fed, other)
    for found, wanted in zip(weights_of(other), by_hand(before, fed.parts, rate=0.25, batch_size=15), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def scheduled():
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    decay = keras.optimizers.schedules.InverseTimeDecay(0.5, 1, 1.0)
    model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.SGD(decay), run_eagerly=True)
    return model


def test_keras_files_hold_the_rate_and_a_schedule_keeps_its_own(start, keras, tmp_path):
    fed = world(start)
    model, following = fed.model(), fed.model(scheduled)
    model.optimizer.learning_rate = 0.125
    model.save(tmp_path / "it.keras")
    assert float(keras.models.load_model(tmp_path / "it.keras").optimizer.learning_rate) == 0.125
    assert float(model.global_model().optimizer.learning_rate) == 0.125
    model.optimizer.learning_rate = 0.5
    model.load(tmp_path / "it.keras")
    assert model.optimizer.learning_rate == 0.125
    following.load(tmp_path / "it.keras")
    assert following.optimizer.learning_rate == 0.5
    fit(fed, following)
    assert following.optimizer.learning_rate == pytest.approx(0.5 / 3)  # after two steps
    with pytest.raises(PlanError, match=r"follows a schedule of its own.*pass a LearningRateScheduler"):
        following.optimizer.learning_rate = 0.1
    fit(fed, following)
    following.save(tmp_path / "other.keras")
    model.load(tmp_path / "other.keras")
    assert model.optimizer.learning_rate == 0.125
