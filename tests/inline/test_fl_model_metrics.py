# SPDX-License-Identifier: Apache-2.0
"""Metric classes of a user's own in whole runs: joined where their state adds up, else named, and not to be watched."""

import itertools
import logging

import numpy as np
import pytest
from inline.federated import softmax, weights_of, world

from fedray.errors import PlanError

pytestmark = pytest.mark.usefixtures("kernels_kept")


def own(grows):
    """A builder whose metric grows by a sum, or by the largest output."""

    def builder():
        import keras

        class Own(keras.metrics.Metric):
            def __init__(self):
                super().__init__(name="own")
                self.most = self.add_variable((), "zeros", name="most")

            def update_state(self, y_true, y_pred, sample_weight=None):
                ops = keras.ops
                total, largest = self.most + ops.sum(y_true * y_pred), ops.maximum(self.most, ops.max(y_pred))
                self.most.assign(total if grows == "sum" else largest)

            def result(self):
                return self.most

        return softmax(metrics=[Own()])()

    return builder


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if "'own'" in record.getMessage()]


def test_a_metric_class_that_adds_up_is_in_history_evaluate_and_callbacks(start, caplog):
    import keras

    fed = world(start, rows=(40, 20))
    model = fed.model(own("sum"))
    stop = keras.callbacks.EarlyStopping(monitor="val_own", mode="min", patience=0)
    history = model.fit(
        fed.x, fed.y, batch_size=20, epochs=3, verbose=0, validation_data=(fed.x, fed.y), callbacks=stop
    )
    assert history.epoch == [0, 1], "it grows as the model learns, so that the second epoch is no better"
    overall, local = model.evaluate(fed.x, fed.y, verbose=0)
    stock = own("sum")()
    stock.set_weights(weights_of(model))
    x, y = (np.concatenate(part) for part in zip(*fed.parts, strict=True))
    expected = stock.evaluate(x, y, verbose=0, return_dict=True)["own"]
    assert float(overall[-1]) == pytest.approx(expected, rel=1e-6)
    assert history.history["val_own"][-1] == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(sum(float(metrics[-1]) for metrics in local.values()), rel=1e-6)
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("grows", ["largest", "sum"])
def test_one_that_does_not_add_up_everywhere_stays_with_its_parties_and_is_named_once(
    start, caplog, monkeypatch, grows
):
    import keras

    from fedray.backends.keras import fitted

    if grows == "sum":
        found = itertools.cycle(["rows", "no"])
        monkeypatch.setattr(fitted, "verdicts", lambda *_: [next(found)])

    class EveryRound(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert set(logs) == {"loss"}

    fed = world(start, rows=(40, 20))
    model = fed.model(own(grows))
    with caplog.at_level(logging.WARNING, logger="fedray"):
        history = model.fit(fed.x, fed.y, batch_size=10, epochs=1, verbose=0, callbacks=EveryRound())
        overall, local = model.evaluate(fed.x, fed.y, verbose=0)
    assert [metric.name for metric in overall] == ["loss"] == list(history.history)
    assert [[metric.name for metric in metrics] for metrics in local.values()] == [["loss", "own"]] * 2
    (text,) = warnings_of(caplog)
    assert "has no value over all parties" in text
    assert "let its variables be sums over rows" in text
    for (x, _), party in zip(fed.parts, history.local_history.values(), strict=True):
        assert len(party["own"]) == 1
        assert 1 / 3 < party["own"][0] <= (1.0 if grows == "largest" else len(x))


def test_a_callback_that_looks_at_it_is_refused_before_training(start):
    import keras

    kinds = keras.callbacks
    fed = world(start)
    model = fed.model(own("largest"))
    before = weights_of(model)
    for callback in (
        kinds.EarlyStopping(monitor="own"),
        kinds.ReduceLROnPlateau(monitor="val_own"),
        kinds.ModelCheckpoint("best.keras", monitor="val_own"),
        kinds.ModelCheckpoint("{epoch:02d}-{val_own:.3f}.keras"),
    ):
        message = rf"{type(callback).__name__} looks at 'own', which has no value over all parties: .* sums over rows"
        with pytest.raises(PlanError, match=message):
            model.fit(fed.x, fed.y, verbose=0, validation_data=(fed.x, fed.y), callbacks=[callback])
    assert all(np.array_equal(a, b) for a, b in zip(before, weights_of(model), strict=True))
