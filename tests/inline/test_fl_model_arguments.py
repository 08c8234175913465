# SPDX-License-Identifier: Apache-2.0
"""The arguments of fit and evaluate: each has the meaning it has in Keras, or is refused.

Tests that hold a run against Keras itself, or that need what only Keras has, take `keras_fed`.
"""

import warnings

import numpy as np
import pytest
from inline.federated import as_bytes, by_hand, regression, weights_of, world
from inline.keras_models import CLASS, X, Y

import fedray as sf
from fedray.errors import DataError, PlanError

pytestmark = pytest.mark.usefixtures("kernels_kept")


@pytest.fixture
def fed(start):
    return world(start, backend="numpy")


@pytest.fixture
def keras_fed(start):
    return world(start)


def shown(capsys):
    """Lines printed but for notes, as a terminal would leave them: what follows the last carriage return of each."""
    lines = [line.rsplit("\r", 1)[-1] for line in capsys.readouterr().out.split("\n") if line]
    return [line for line in lines if not line.startswith("note: ")]


def test_a_bar_per_epoch_ends_full_and_is_followed_by_the_figures(fed, capsys):
    history = fed.model().fit(fed.x, fed.y, validation_data=(fed.x, fed.y), epochs=2, batch_size=8)
    lines = shown(capsys)
    assert len(lines) == 4
    for epoch in (0, 1):
        bar, figures = lines[2 * epoch : 2 * epoch + 2]
        assert bar.startswith(f"epoch: {epoch + 1}/2: 100%|")
        assert "| 4/4 [" in bar
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        expected = " ".join(f"{name}:{history.history[name][epoch]:.4f}" for name in names)
        assert figures == f"epoch: {epoch + 1}/2 - {expected}"


def test_the_other_ways_of_printing(fed, capsys):
    model = fed.model()
    model.fit(fed.x, fed.y, epochs=2, batch_size=8, verbose=2)
    lines = shown(capsys)
    assert [line[:18] for line in lines] == ["epoch: 1/2 - loss:", "epoch: 2/2 - loss:"]
    model.fit(fed.x, fed.y, batch_size=8, verbose=0)
    model.evaluate(fed.x, fed.y, verbose=0)
    assert capsys.readouterr() == ("", "")
    model.evaluate(fed.x, fed.y, batch_size=7)
    bar, figures = shown(capsys)
    assert bar.startswith("evaluate: 100%|")
    assert "| 5/5 [" in bar
    assert figures.startswith("evaluate - loss:")
    model.fit(fed.x, fed.y, aggregate_freq=3, batch_size=8, verbose=1)
    assert "| 4/4 [" in shown(capsys)[0]
    with pytest.raises(PlanError, match="verbose: expected 'auto', 0, 1 or 2, found 3"):
        model.fit(fed.x, fed.y, verbose=3)


def test_validation_follows_the_epochs_it_is_asked_after(fed):
    model = fed.model()
    arguments = {"validation_data": (fed.x, fed.y), "batch_size": 30, "verbose": 0}
    every_second = model.fit(fed.x, fed.y, epochs=5, validation_freq=2, **arguments)
    assert [len(every_second.history[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")] == [
        5,
        5,
        2,
        2,
    ]
    assert [len(every_second.local_history["bob"][name]) for name in ("loss", "val_loss")] == [5, 2]
    frame = every_second.to_pandas()
    assert list(frame.index[frame["val_loss"].notna()]) == [1, 3]
    assert list(frame["val_loss"].dropna()) == every_second.history["val_loss"]
    listed = model.fit(fed.x, fed.y, epochs=4, validation_freq=[1, 4], **arguments)
    assert list(listed.to_pandas()["bob/val_accuracy"].notna()) == [True, False, False, True]
    never = model.fit(fed.x, fed.y, epochs=1, validation_freq=2, **arguments)
    assert sorted(never.history) == ["accuracy", "loss"]


def test_validation_may_be_weighted(keras_fed):
    model = keras_fed.model()
    weight = np.linspace(0.0, 2.0, 60)
    validation = (keras_fed.x, keras_fed.y, keras_fed.spread(weight))
    history = model.fit(keras_fed.x, keras_fed.y, validation_data=validation, batch_size=30, verbose=0)
    loss = model.global_model().evaluate(X, Y, sample_weight=weight, verbose=0)[0]
    assert history.history["val_loss"][0] == pytest.approx(loss, rel=1e-5)


def test_initial_epoch_continues_the_count_and_the_order_of_rows(fed, capsys):
    whole, resumed = fed.model(), fed.model()
    whole.fit(fed.x, fed.y, epochs=3, batch_size=15, verbose=0, random_seed=5)
    resumed.fit(fed.x, fed.y, epochs=1, batch_size=15, verbose=0, random_seed=5)
    history = resumed.fit(fed.x, fed.y, epochs=3, initial_epoch=1, batch_size=15, verbose=2, random_seed=5)
    assert history.epoch == [1, 2]
    assert [line[:10] for line in shown(capsys)] == ["epoch: 2/3", "epoch: 3/3"]
    assert as_bytes(resumed) == as_bytes(whole)


def test_rows_are_shuffled_unless_told_otherwise(fed):
    shuffled, again, straight = fed.model(), fed.model(), fed.model()
    first = weights_of(straight)
    shuffled.fit(fed.x, fed.y, batch_size=15, verbose=0)
    again.fit(fed.x, fed.y, batch_size=15, verbose=0, shuffle=True)
    straight.fit(fed.x, fed.y, batch_size=15, verbose=0, shuffle=False)
    assert as_bytes(shuffled) == as_bytes(again) != as_bytes(straight)
    hand = by_hand(first, fed.parts, batch_size=15, shuffle=False)
    np.testing.assert_allclose(weights_of(straight)[0], hand[0], atol=2e-6)


def test_every_call_deals_the_rows_anew_unless_a_seed_is_given(fed):
    model = fed.model()
    seeds = [model.fit(fed.x, fed.y, batch_size=30, verbose=0).params["seed"] for _ in range(3)]
    assert seeds[0] == 3
    assert len(set(seeds)) == 3
    assert model.fit(fed.x, fed.y, batch_size=30, verbose=0, random_seed=0).params["seed"] == 0


def test_a_seed_decides_the_order_of_rows_and_zero_is_a_seed(fed):
    finals = {}
    for name, seed in (("zero", 0), ("zero again", 0), ("one", 1)):
        model = fed.model(random_seed=3)
        model.fit(fed.x, fed.y, batch_size=15, verbose=0, random_seed=seed)
        finals[name] = as_bytes(model)
    assert finals["zero"] == finals["zero again"] != finals["one"]


def test_sample_weights_weigh_the_loss(keras_fed):
    weight = np.where(np.arange(60) % 2, 1.0, 0.0)
    model, stock = keras_fed.model(), keras_fed.model().global_model()
    model.fit(keras_fed.x, keras_fed.y, sample_weight=keras_fed.spread(weight), batch_size=30, verbose=0)
    first = stock.get_weights()
    found = []
    for part in (slice(0, 30), slice(30, 60)):
        stock.set_weights(first)
        stock.train_on_batch(X[part], Y[part], sample_weight=weight[part])
        found.append(stock.get_weights())
    for got, a, b in zip(weights_of(model), *found, strict=True):
        np.testing.assert_allclose(got, (a + b) / 2, atol=2e-6)


def test_class_weights_are_sample_weights(keras_fed):
    table = {0: 5.0, 2: 0.5}
    weight = np.array([table.get(int(c), 1.0) for c in CLASS])
    by_class, by_row = keras_fed.model(), keras_fed.model()
    by_class.fit(keras_fed.x, keras_fed.y, class_weight=table, batch_size=15, verbose=0)
    by_row.fit(keras_fed.x, keras_fed.y, sample_weight=keras_fed.spread(weight), batch_size=15, verbose=0)
    assert as_bytes(by_class) == as_bytes(by_row)


def test_poisson_sampling_draws_each_row_at_its_rate(fed):
    model = fed.model()
    first = weights_of(model)
    arguments = {"sampler_method": "poisson", "batch_size": 10, "epochs": 2}
    history = model.fit(fed.x, fed.y, verbose=0, **arguments)
    assert len(history.history["loss"]) == 2
    for found, expected in zip(weights_of(model), by_hand(first, fed.parts, **arguments), strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-6)


def test_a_poisson_epoch_in_which_no_round_can_be_held(fed):
    """With one expected row of 30, most rounds find fewer than two parties with rows."""
    history = fed.model().fit(
        fed.x, fed.y, sampler_method="poisson", batch_size=1, aggregate_freq=1, epochs=1, verbose=0
    )
    assert history.epoch == [0]


def test_a_callback_alone_needs_no_list(fed):
    import keras

    log = keras.callbacks.History()
    fed.model().fit(fed.x, fed.y, callbacks=log, batch_size=30, epochs=2, verbose=0)
    assert len(log.history["loss"]) == 2


def test_metrics_are_those_over_all_rows(keras_fed):
    """AUC and the like from summed statistics: bit for bit what Keras computes over the joint rows."""
    import keras

    def binary():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
        made = [
            keras.metrics.AUC(name="auc"),
            keras.metrics.Precision(name="precision"),
            keras.metrics.Recall(name="recall"),
            keras.metrics.BinaryAccuracy(name="accuracy"),
        ]
        model.compile(loss="binary_crossentropy", optimizer="sgd", metrics=made, run_eagerly=True)
        return model

    labels = (CLASS > 0).astype(np.float32)[:, None]
    model = keras_fed.model(binary)
    y = keras_fed.spread(labels)
    history = model.fit(keras_fed.x, y, validation_data=(keras_fed.x, y), epochs=2, batch_size=30, verbose=0)
    overall, local = model.evaluate(keras_fed.x, y, verbose=0)
    stock = model.global_model()
    predicted = stock.predict(X, verbose=0)
    kinds = [keras.metrics.AUC, keras.metrics.Precision, keras.metrics.Recall, keras.metrics.BinaryAccuracy]
    for metric, joint in zip(overall[1:], [kind() for kind in kinds], strict=True):
        joint.update_state(labels, predicted)
        assert np.float32(metric) == np.float32(joint.result())
        assert history.history[f"val_{metric.name}"][-1] == float(metric)
    mean_of_parties = np.mean([float(local[party][1]) for party in local])
    assert float(overall[1]) != mean_of_parties, "the mean of the parties' AUC is not the AUC"


def test_a_metric_with_a_value_per_class(keras_fed, capsys):
    import keras

    def builder():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        model.compile(
            loss="categorical_crossentropy",
            optimizer="sgd",
            metrics=[keras.metrics.F1Score(name="f1")],
            run_eagerly=True,
        )
        return model

    history = keras_fed.model(builder).fit(keras_fed.x, keras_fed.y, epochs=2, batch_size=30, verbose=2)
    assert [value.shape for value in history.history["f1"]] == [(3,), (3,)]
    assert f"f1:{history.history['f1'][0].mean():.4f}" in capsys.readouterr().out
    assert len(history.to_pandas()) == 2


def test_losses_beyond_small_numbers(keras_fed):
    """A regression on raw prices: losses of millions are summed like any other."""

    def builder():
        import keras

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(loss="mse", optimizer=keras.optimizers.SGD(1e-3), metrics=["mae"], run_eagerly=True)
        return model

    price = (X @ np.array([120.0, 30.0, -60.0, 10.0], np.float32) * 1000)[:, None].astype(np.float32)
    model = keras_fed.model(builder)
    history = model.fit(keras_fed.x, keras_fed.spread(price), batch_size=30, verbose=0)
    assert history.history["loss"][0] == pytest.approx(float(np.mean(price**2)), rel=0.2)


def test_a_model_with_its_own_train_step(keras_fed):
    def builder():
        import keras

        class Doubled(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(3, activation="softmax")
                self.seen = keras.metrics.Sum(name="seen")

            def call(self, x):
                return self.dense(x)

            def train_step(self, data):
                x, y = data
                super().train_step((x, y))
                self.seen.update_state(1.0)
                return super().train_step((x, y)) | {"seen": self.seen.result()}

        model = Doubled()
        settings = {"loss": "categorical_crossentropy", "metrics": ["accuracy"], "run_eagerly": True}
        model.compile(optimizer=keras.optimizers.SGD(0.5), **settings)
        return model

    model = keras_fed.model(builder)
    history = model.fit(keras_fed.x, keras_fed.y, epochs=1, batch_size=10, verbose=0)
    assert history.history["seen"] == [6.0]
    for strategy in ("fed_prox", "fed_avg_g"):
        with pytest.raises(PlanError, match="custom train_step"):
            keras_fed.model(builder, strategy=strategy)


def test_many_evaluations_of_one_model(fed):
    model = fed.model()
    for _ in range(2):
        results = [model.evaluate(fed.x, fed.y, verbose=0) for _ in range(10)]
        assert all(result == results[0] for result in results)
        model.fit(fed.x, fed.y, batch_size=30, verbose=0)


def test_rounds_that_change_nothing_do_not_end_the_run(fed):
    model = fed.model(regression(rate=0.0))
    before = as_bytes(model)
    history = model.fit(fed.x, fed.y, validation_data=(fed.x, fed.y), epochs=2, batch_size=8, verbose=0)
    assert len(history.history["val_loss"]) == 2
    assert history.history["loss"][0] == pytest.approx(history.history["loss"][1], rel=1e-6)
    assert as_bytes(model) == before


def test_the_ledger_names_every_statement(fed):
    fed.model().fit(fed.x, fed.y, batch_size=30, verbose=0)
    masked = [row.entry for row in sf.ledger().rows if row.entry.kind == "masked"]
    assert masked
    assert all("train" in entry.call for entry in masked)


def test_what_is_keras_s_own_of_the_words_of_a_model(keras_fed, tmp_path, capsys):
    model, other = keras_fed.model(), keras_fed.model(random_seed=9)
    model.summary()
    told = capsys.readouterr().out
    assert "dense" in told
    assert "Total params: 15" in told
    model.save_weights(tmp_path / "w.weights.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Keras's, of the state of an optimizer that nobody asked for
        other.load_weights(tmp_path / "w.weights.h5")
    assert as_bytes(other) == as_bytes(model)
    assert [array.shape for array in other.get_weights()] == [(4, 3), (3,)]
    with pytest.raises(PlanError, match="load_weights: no file"):
        other.load_weights(tmp_path / "none.weights.h5")
    (tmp_path / "bad.weights.h5").write_bytes(b"nothing")
    with pytest.raises(DataError, match="holds no weights of this model"):
        other.load_weights(tmp_path / "bad.weights.h5")
    with pytest.raises(PlanError, match=r"ends in \.weights\.h5.*load\(path\) takes a whole model"):
        other.load_weights(tmp_path / "w.keras")
    assert as_bytes(other) == as_bytes(model)
