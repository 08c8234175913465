# SPDX-License-Identifier: Apache-2.0
"""FLModel as its user sees it: fit, evaluate, predict, save, load, global_model."""

import numpy as np
import pytest
from inline.federated import as_bytes, by_hand, regression, softmax, weights_of, world
from inline.keras_models import X, Y, dense, noisy

import fedray as sf
from fedray.data.ndarray import load
from fedray.errors import DataError, PlanError

pytestmark = pytest.mark.usefixtures("kernels_kept")


@pytest.fixture
def fed(start):
    return world(start)


@pytest.fixture
def numpy_fed(start):
    return world(start, backend="numpy")


def test_fit_evaluate_and_predict_speak_of_the_same_global_model(fed):
    model = fed.model()
    history = model.fit(fed.x, fed.y, validation_data=(fed.x, fed.y), epochs=2, batch_size=15, verbose=0)
    overall, local = model.evaluate(fed.x, fed.y, verbose=0)
    assert [metric.name for metric in overall] == ["loss", "accuracy"]
    assert [metric.count for metric in overall] == [60.0, 60.0]
    assert float(overall[0]) == pytest.approx(history.history["val_loss"][-1], rel=1e-6)
    assert float(overall[1]) == history.history["val_accuracy"][-1]
    assert list(local) == ["alice", "bob"]
    assert sum(local[party][0].total for party in local) == pytest.approx(overall[0].total)

    stock = model.global_model()
    loss, accuracy = stock.evaluate(X, Y, verbose=0)
    assert (float(overall[0]), float(overall[1])) == pytest.approx((loss, accuracy), rel=1e-5)
    predictions = model.predict(fed.x, batch_size=7)
    assert list(predictions) == fed.devices
    assert all(held.device == party for party, held in predictions.items())
    found = np.concatenate(list(sf.reveal(predictions).values()))
    np.testing.assert_allclose(found, stock.predict(X, verbose=0), rtol=1e-5)


def test_training_learns(numpy_fed):
    model = numpy_fed.model()
    history = model.fit(numpy_fed.x, numpy_fed.y, epochs=8, batch_size=8, verbose=0)
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    assert history.history["accuracy"][-1] > 0.7


def test_a_saved_model_is_a_stock_keras_model_and_loads_everywhere(fed, tmp_path):
    import keras

    model = fed.model(dense("adam", run_eagerly=True))
    model.fit(fed.x, fed.y, epochs=1, batch_size=15, verbose=0)
    before, metrics = as_bytes(model), model.evaluate(fed.x, fed.y, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    stock = keras.models.load_model(path)
    assert b"".join(w.tobytes() for w in stock.get_weights()) == before
    assert stock.compiled

    model.fit(fed.x, fed.y, epochs=1, batch_size=15, verbose=0)
    assert as_bytes(model) != before
    model.load(str(path))
    assert as_bytes(model) == before
    assert model.evaluate(fed.x, fed.y, verbose=0) == metrics
    model.fit(fed.x, fed.y, epochs=1, batch_size=15, verbose=0)


def test_gradients_are_averaged_after_a_load_too(fed, tmp_path):
    model = fed.model(softmax("adam"), strategy="fed_avg_g")
    model.fit(fed.x, fed.y, epochs=1, batch_size=15, verbose=0)
    model.save(tmp_path / "model.keras")
    model.load(tmp_path / "model.keras")
    model.fit(fed.x, fed.y, epochs=1, batch_size=15, verbose=0)
    _, local = model.evaluate(fed.x, fed.y, verbose=0)
    assert len(local) == 2


def test_save_and_load_say_what_they_want(fed, tmp_path):
    model = fed.model()
    with pytest.raises(PlanError, match=r"path: expected a name that ends in \.keras, found '.*model\.h5'"):
        model.save(tmp_path / "model.h5")
    with pytest.raises(PlanError, match=r"folder '.*nowhere' does not exist"):
        model.save(tmp_path / "nowhere" / "model.keras")
    with pytest.raises(PlanError, match=r"load: no file '.*absent\.keras'"):
        model.load(tmp_path / "absent.keras")
    other = fed.model(noisy)
    other.save(tmp_path / "other.keras")
    before = as_bytes(model)
    with pytest.raises(DataError, match="party 'alice': the file does not hold the weights of this model"):
        model.load(tmp_path / "other.keras")
    assert as_bytes(model) == before
    model.fit(fed.x, fed.y, batch_size=30, verbose=0)


def test_an_untrained_model_can_be_asked_for(fed, tmp_path):
    model = fed.model(noisy)
    path = tmp_path / "fresh.keras"
    model.save(path)
    first = weights_of(model)
    model.load(path)
    assert [a.tobytes() for a in weights_of(model)] == [a.tobytes() for a in first]
    assert len(sf.reveal(model.predict(fed.x))[fed.devices[0]]) == 30


def test_two_fits_in_a_row_go_on_where_the_first_has_ended(numpy_fed):
    twice, once = numpy_fed.model(), numpy_fed.model()
    for _ in range(2):
        twice.fit(numpy_fed.x, numpy_fed.y, batch_size=8, verbose=0, shuffle=False)
    once.fit(numpy_fed.x, numpy_fed.y, batch_size=8, verbose=0, shuffle=False, epochs=2)
    assert as_bytes(twice) == as_bytes(once)


def test_optimizers_keep_their_state_from_fit_to_fit(fed):
    twice, once = fed.model(softmax("adam")), fed.model(softmax("adam"))
    for _ in range(2):
        twice.fit(fed.x, fed.y, batch_size=15, verbose=0, shuffle=False)
    once.fit(fed.x, fed.y, batch_size=15, verbose=0, shuffle=False, epochs=2)
    assert as_bytes(twice) == as_bytes(once)


def test_two_models_in_one_session_do_not_meet(numpy_fed):
    one, other, alone = numpy_fed.model(), numpy_fed.model(regression(rate=0.1, momentum=0.9)), numpy_fed.model()
    for model in (one, other, one):
        model.fit(numpy_fed.x, numpy_fed.y, batch_size=15, shuffle=False, verbose=0)
    alone.fit(numpy_fed.x, numpy_fed.y, batch_size=15, shuffle=False, epochs=2, verbose=0)
    assert as_bytes(one) == as_bytes(alone)


def test_the_server_may_hold_rows_too(numpy_fed):
    alice = numpy_fed.devices[0]
    numpy_fed.server = alice
    model = numpy_fed.model()
    start = weights_of(model)
    model.fit(numpy_fed.x, numpy_fed.y, batch_size=15, verbose=0)
    for found, expected in zip(weights_of(model), by_hand(start, numpy_fed.parts, batch_size=15), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_predictions_for_some_of_the_parties_and_for_other_rows(numpy_fed):
    model = numpy_fed.model()
    bob = numpy_fed.devices[1]
    only = load({bob: X[:5]})
    predictions = model.predict(only)
    assert list(predictions) == [bob]
    assert sf.reveal(predictions[bob]).shape == (5, 3)
    with pytest.raises(PlanError, match=r"x: expected parts at the model's parties only, found parts at \['server'\]"):
        model.predict(load({numpy_fed.server: X}))
    with pytest.raises(PlanError, match="x: expected a FedNdarray, found ndarray"):
        model.predict(X)


def test_a_model_that_learns_its_shape_from_the_data(fed, tmp_path):
    def builder():
        import keras

        model = keras.Sequential([keras.layers.Dense(3, activation="softmax")])
        settings = {"metrics": ["accuracy"], "run_eagerly": True}
        model.compile(loss="categorical_crossentropy", optimizer="sgd", **settings)
        return model

    model = fed.model(builder)
    with pytest.raises(PlanError, match="global_model: the model learns its shape from the data; call fit"):
        model.global_model()
    model.fit(fed.x, fed.y, batch_size=8, verbose=0)
    assert [w.shape for w in weights_of(model)] == [(4, 3), (3,)]
    model.save(tmp_path / "learned.keras")
    assert model.evaluate(fed.x, fed.y, verbose=0)[0][0].count == 60
