# SPDX-License-Identifier: Apache-2.0
"""Stock Keras callbacks at the driver: they see aggregated logs and the global model, or are refused by name.

They are the same whatever the parties train. Tests that need Keras there too, for its files or its optimizer, take
`keras_fed`.
"""

import csv
import math

import numpy as np
import pytest
from inline.federated import as_bytes, regression, softmax, weights_of, world
from inline.keras_models import X, Y

from fedray.errors import NotFinite, PlanError

pytestmark = pytest.mark.usefixtures("kernels_kept")


@pytest.fixture
def fed(start):
    return world(start, backend="numpy")


@pytest.fixture
def keras_fed(start):
    return world(start)


@pytest.fixture
def keras():
    import keras

    return keras


def fit(fed, callbacks, model=None, **arguments):
    model = model or fed.model()
    arguments = {"batch_size": 15, "epochs": 3, "verbose": 0} | arguments
    return model, model.fit(fed.x, fed.y, callbacks=callbacks, **arguments)


def test_early_stopping_puts_the_best_weights_back(fed, keras):
    """The learning rate is far too high, so the first epochs are the best ones."""
    seen = []

    class Keeper(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((logs["val_loss"], self.model.get_weights()))

    model = fed.model(regression(rate=60.0))
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True)
    _, history = fit(fed, [Keeper(), stop], model, epochs=30, validation_data=(fed.x, fed.y))
    best = int(np.argmin(history.history["val_loss"]))
    assert len(history.epoch) == best + 3 < 30
    for found, expected in zip(weights_of(model), seen[best][1], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert float(model.evaluate(fed.x, fed.y, verbose=0)[0][0]) == pytest.approx(seen[best][0])
    fit(fed, None, model, epochs=1)


def test_a_monitored_accuracy_is_to_go_up_without_being_told(fed, keras):
    stop = keras.callbacks.EarlyStopping(monitor="val_accuracy", patience=1, min_delta=2.0)
    _, history = fit(fed, [stop], epochs=5, validation_data=(fed.x, fed.y))
    assert stop.monitor_op is np.greater or stop.monitor_op(2, 1)
    assert len(history.epoch) == 2


def test_checkpoints_are_stock_files(keras_fed, keras, tmp_path):
    saved = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch:02d}-{val_loss:.2f}.keras")
    weights = keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True, monitor="loss")
    weights.save_best_only = True
    model, history = fit(keras_fed, [saved, weights], validation_data=(keras_fed.x, keras_fed.y))
    names = sorted(path.name for path in tmp_path.glob("*.keras"))
    assert names == [f"{epoch + 1:02d}-{loss:.2f}.keras" for epoch, loss in enumerate(history.history["val_loss"])]
    last = keras.models.load_model(tmp_path / names[-1])
    assert b"".join(w.tobytes() for w in last.get_weights()) == as_bytes(model)
    other = softmax()()
    other.load_weights(tmp_path / "best.weights.h5")
    assert b"".join(w.tobytes() for w in other.get_weights()) == as_bytes(model)


def test_a_checkpoint_every_so_many_batches(keras_fed, keras, tmp_path):
    saved = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}-{batch}.keras", save_freq=2)
    fit(keras_fed, [saved], batch_size=10, epochs=2)
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == ["1-2.keras", "2-1.keras", "2-3.keras"]


def test_a_log_file_holds_what_the_history_holds(fed, keras, tmp_path):
    _, history = fit(fed, [keras.callbacks.CSVLogger(tmp_path / "log.csv")], validation_data=(fed.x, fed.y))
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [float(row[name]) for row in rows] == history.history[name]


def test_terminate_on_nan_ends_the_run_with_the_weights_before(keras_fed, keras):
    bad = X.copy()
    bad[45, 1] = np.nan
    model = keras_fed.model()
    before = as_bytes(model)
    x = keras_fed.spread(bad)
    with pytest.raises(NotFinite, match=r"party 'bob'.*tensor 'dense/kernel' holds NaN"):
        model.fit(x, keras_fed.y, batch_size=30, verbose=0)
    stop = keras.callbacks.TerminateOnNaN()
    history = model.fit(
        x, keras_fed.y, batch_size=30, epochs=3, validation_data=(keras_fed.x, keras_fed.y), verbose=0, callbacks=[stop]
    )
    assert history.epoch == [0]
    assert math.isnan(history.history["loss"][0])
    assert math.isfinite(history.history["val_loss"][0])
    assert as_bytes(model) == before
    assert len(history.to_pandas()) == 1
    fit(keras_fed, None, model, epochs=1)


def test_a_plateau_lowers_the_parties_learning_rate(keras_fed, keras):
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.1, patience=1, min_delta=100.0)
    _, history = fit(keras_fed, [plateau], epochs=4)
    np.testing.assert_allclose(history.history["learning_rate"], [0.5, 0.5, 0.05, 0.005], rtol=1e-5)


def test_a_schedule_sets_the_rate_of_each_epoch(fed, keras):
    rates = [0.5, 0.0, 0.25]
    scheduled = keras.callbacks.LearningRateScheduler(lambda epoch, _rate: rates[epoch])
    after = []

    class Keeper(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            after.append(b"".join(w.tobytes() for w in self.model.get_weights()))

    _, history = fit(fed, [scheduled, Keeper()])
    assert history.history["learning_rate"] == rates
    assert after[0] == after[1] != after[2]


def test_a_rate_stays_for_the_next_fit(fed, keras):
    model, _ = fit(fed, [keras.callbacks.LearningRateScheduler(lambda _epoch, _rate: 0.125)], epochs=1)
    seen = []

    class Reader(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(self.model.optimizer.learning_rate)

    fit(fed, [Reader()], model, epochs=1)
    assert seen == [0.125]


def test_hooks_come_in_kerass_order_with_running_metrics(fed, keras):
    calls = []

    def note(name):
        return lambda *args: calls.append((name, *args[:-1], *sorted(args[-1] or {})))

    hooks = ["epoch_begin", "epoch_end", "train_begin", "train_end", "train_batch_begin", "train_batch_end"]
    every = keras.callbacks.LambdaCallback(**{f"on_{name}": note(name) for name in hooks})
    batched, one = fed.model(), fed.model()
    fit(fed, [every], batched, epochs=1, aggregate_freq=1)
    metrics = ("accuracy", "loss")
    assert calls == [
        ("train_begin",),
        ("epoch_begin", 0),
        ("train_batch_begin", 0),
        ("train_batch_end", 0, *metrics),
        ("train_batch_begin", 1),
        ("train_batch_end", 1, *metrics),
        ("epoch_end", 0, *metrics),
        ("train_end", *metrics),
    ]
    fit(fed, None, one, epochs=1)
    assert as_bytes(batched) == as_bytes(one), "asking after every round changes no bit"


def test_metrics_after_a_batch_are_those_of_the_epoch_so_far(fed, keras):
    seen = []

    class Reader(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs["loss"])

    _, history = fit(fed, [Reader()], epochs=1, batch_size=10)
    assert len(seen) == 3
    assert seen[-1] == history.history["loss"][0]
    assert len(set(seen)) == 3


def test_a_callback_may_stop_after_a_batch(fed, keras, capsys):
    class Stopper(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    _, history = fit(fed, [Stopper()], epochs=5, batch_size=10, verbose=1)
    assert history.epoch == [0]
    _, bar, *_ = (line.rsplit("\r", 1)[-1] for line in capsys.readouterr().out.split("\n"))
    assert "| 2/3 [" in bar


def test_a_callback_may_change_the_weights_and_add_to_the_logs(fed, keras):
    class Zero(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.set_weights([np.zeros_like(w) for w in self.model.get_weights()])
            logs["zeroed"] = np.float32(epoch)

    model, history = fit(fed, [Zero()], epochs=2)
    assert not any(np.any(w) for w in weights_of(model))
    assert history.history["zeroed"] == [0.0, 1.0]
    overall, _ = model.evaluate(fed.x, fed.y, verbose=0)
    assert float(overall[0]) == pytest.approx(-np.log(1 / 3) * Y.sum() / 60, rel=1e-5)


def test_validation_hooks_are_called(fed, keras):
    calls = []

    class Reader(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            calls.append("begin")

        def on_test_end(self, logs=None):
            calls.append(sorted(logs))

    fit(fed, [Reader()], epochs=1, validation_data=(fed.x, fed.y))
    assert calls == ["begin", ["accuracy", "loss"]]


def test_what_a_callback_prints_does_not_run_into_the_bar(fed, keras, capsys):
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=0, min_delta=100.0, verbose=1)
    fit(fed, [stop], epochs=5, verbose=1)
    lines = [line.rsplit("\r", 1)[-1] for line in capsys.readouterr().out.split("\n")]
    assert "Epoch 2: early stopping" in lines
    assert sum("100%" in line for line in lines) == 2


def test_an_error_in_a_callback_reaches_the_user_as_it_is(fed, keras):
    class Faulty(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ZeroDivisionError("my own mistake")

    model = fed.model()
    with pytest.raises(ZeroDivisionError, match="my own mistake"):
        fit(fed, [Faulty()], model)
    fit(fed, None, model)


def test_the_model_of_a_callback_says_what_it_offers(fed, keras):
    class Curious(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.layers  # noqa: B018

    with pytest.raises(AttributeError, match="no 'layers': in federated training it offers get_weights"):
        fit(fed, [Curious()])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("TensorBoard", ()), ("BackupAndRestore", ("folder",)), ("SwapEMAWeights", ()), ("ProgbarLogger", ())],
)
def test_callbacks_that_cannot_work_are_refused_by_name(fed, keras, name, arguments):
    with pytest.raises(PlanError, match=f"callbacks: {name} is not supported: "):
        fit(fed, [getattr(keras.callbacks, name)(*arguments)])


def test_hooks_that_are_never_called_are_refused_by_name(fed, keras):
    class Tester(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            pass

    with pytest.raises(PlanError, match="callbacks: Tester overrides on_test_batch_end, which fit never calls"):
        fit(fed, [Tester()])
    for wrong in (keras.callbacks.CSVLogger, print, "EarlyStopping"):
        with pytest.raises(PlanError, match=r"callbacks: expected instances of keras\.callbacks\.Callback"):
            fit(fed, [wrong])


def test_a_rate_that_cannot_be_set(keras_fed, keras):
    for rate in (-1.0, float("nan")):
        with pytest.raises((PlanError, ValueError), match=r"learning_rate|expected"):
            fit(keras_fed, [keras.callbacks.LearningRateScheduler(lambda _epoch, _old, rate=rate: rate)])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)

    def decaying():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.SGD(schedule), run_eagerly=True)
        return model

    model = keras_fed.model(decaying)
    with pytest.raises(PlanError, match="optimizer follows a schedule of its own"):
        fit(keras_fed, [keras.callbacks.LearningRateScheduler(lambda _epoch, _old: 0.1)], model)
    fit(keras_fed, None, model)
