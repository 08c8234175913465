# SPDX-License-Identifier: Apache-2.0
"""Frozen and local tensors of Keras models: what travels, what stays, and what is said where that cannot work."""

from collections import Counter

import numpy as np
import pytest
from inline.federated import world
from inline.keras_models import X, Y, batches, ready

import fedray as sf
from fedray.backends.keras.model import KerasBackend
from fedray.data.ndarray import load
from fedray.errors import DataError, PlanError, ProtocolError
from fedray.ml.nn import agreement

pytestmark = pytest.mark.usefixtures("kernels_kept")

RNG = np.random.default_rng(5)


def backbone(seed=1, units=6, trainable=False, noisy=False):
    """A frozen dense layer and a frozen BatchNorm under a small head; 4 -> units -> 3."""

    def builder():
        import keras
        from keras import layers

        base = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seed)),
                layers.BatchNormalization(),
            ],
            name="backbone",
        )
        base.trainable = trainable
        more = [layers.BatchNormalization(name="norm")] if noisy else []
        head = layers.Dense(3, activation="softmax", name="head")
        model = keras.Sequential([keras.Input((4,)), base, *more, head])
        model.compile(loss="categorical_crossentropy", optimizer="sgd", metrics=["accuracy"], run_eagerly=True)
        return model

    return builder


def wide():
    """30 -> 4000 frozen (124,000 words), 4000 -> 1 trained (4,001 words)."""
    import keras

    frozen = keras.layers.Dense(4000, activation="relu", trainable=False)
    model = keras.Sequential([keras.Input((30,)), frozen, keras.layers.Dense(1)])
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(1e-4))
    return model


def named(backend, role):
    return [param.name for param in backend.spec.of(role)]


def test_frozen_layers_are_frozen_with_their_statistics_and_trained_ones_share_theirs():
    backend, _ = ready(backbone(noisy=True))
    assert named(backend, "frozen") == [
        f"backbone/{name}"
        for name in (
            "dense/kernel",
            "dense/bias",
            "batch_normalization/gamma",
            "batch_normalization/beta",
            "batch_normalization/moving_mean",
            "batch_normalization/moving_variance",
        )
    ]
    assert named(backend, "shared") == [
        "norm/gamma",
        "norm/beta",
        "head/kernel",
        "head/bias",
        "norm/moving_mean",
        "norm/moving_variance",
    ]
    assert backend.spec.size == len(backend.weights()) == 6 * 4 + 18 + 3
    assert backend.spec.trainable == 6 * 2 + 18 + 3
    assert list(backend.facts().frozen) == named(backend, "frozen")


def test_weights_that_are_switched_off_one_by_one_are_frozen_and_adapters_shared():
    def builder():
        import keras

        dense = keras.layers.Dense(6)
        model = keras.Sequential([keras.Input((4,)), dense, keras.layers.Dense(3, activation="softmax", name="head")])
        dense.enable_lora(2)
        model.compile(loss="categorical_crossentropy", optimizer="sgd")
        return model

    backend, data = ready(builder)
    assert named(backend, "frozen") == ["dense/kernel"]
    assert {"dense/lora_kernel_a", "dense/lora_kernel_b", "head/kernel"} < set(named(backend, "shared"))
    backend.train(backend.weights(), data, batches(60))


def test_a_model_of_which_nothing_is_trained_is_refused():
    def builder():
        model = backbone()()
        model.trainable = False
        model.compile(loss="mse", optimizer="sgd")
        return model

    with pytest.raises(PlanError, match="expected at least one weight to train, found none; leave a layer trainable"):
        KerasBackend(builder, seed=1)


def test_frozen_weights_are_not_sent_and_stay_bit_equal_over_twenty_rounds(start):
    x = RNG.normal(size=(80, 30)).astype(np.float32)
    fed = world(start, rows=(40, 40), x=x, y=x[:, :1])
    model = fed.model(wide)
    first = model.global_model().get_weights()
    model.fit(fed.x, fed.y, batch_size=20, epochs=10, verbose=0)
    last = model.global_model().get_weights()
    assert [a.tobytes() == b.tobytes() for a, b in zip(first, last, strict=True)] == [True, True, False, False]
    rounds = [row.entry for row in sf.ledger().rows if row.entry.kind == "masked"]
    assert len(rounds) == 2 * 20, "twenty rounds of two parties"
    overhead = 600  # session, view, signature and names around the words
    assert (
        8 * 4001 < min(entry.nbytes for entry in rounds) <= max(entry.nbytes for entry in rounds) < 8 * 4010 + overhead
    )
    (initial,) = [row.entry.nbytes for row in sf.ledger().rows if row.entry.kind == "initial"]
    assert initial < 4 * 4001 + overhead


def test_a_frozen_backbone_learns_as_its_head_would_alone(start):
    fed = world(start)
    model = fed.model(backbone(), strategy="fed_avg_g")
    stock = model.global_model()
    model.fit(fed.x, fed.y, batch_size=60, epochs=4, verbose=0)
    for _ in range(4):
        stock.train_on_batch(X, Y)
    for found, wanted in zip(model.global_model().get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def loading(paths):
    """A builder that takes the backbone's kernel from the first of these files that nobody has taken yet."""

    def builder():
        model = backbone()()
        for path in paths:
            try:
                path.rename(path.with_suffix(".taken"))
            except FileNotFoundError:
                continue
            model.get_layer("backbone").layers[0].kernel.assign(np.load(path.with_suffix(".taken")))
            break
        return model

    return builder


@pytest.fixture
def files(tmp_path):
    """Two files with other numbers for the backbone's kernel."""
    for name in ("one", "two"):
        np.save(tmp_path / f"{name}.npy", RNG.normal(size=(4, 6)))
    return [tmp_path / "one.npy", tmp_path / "two.npy"]


def test_parties_with_other_frozen_weights_are_told_who_and_which(start, files):
    fed = world(start)
    with pytest.raises(PlanError) as caught:
        fed.model(loading(files)).fit(fed.x, fed.y, verbose=0)
    assert "frozen tensor 'backbone/dense/kernel' has other values at party 'bob' than at party 'alice'" in str(
        caught.value
    )
    assert "load the same file everywhere" in str(caught.value)
    assert not [row for row in sf.ledger().rows if row.entry.kind in ("masked", "initial")]


def test_frozen_values_are_part_of_what_a_round_is_bound_to(start, files, monkeypatch):
    """A party whose frozen values differ is not summed, even where the driver does not compare what parties say."""
    monkeypatch.setattr(agreement, "_check_same", lambda *_: None)
    fed = world(start)
    with pytest.raises(ProtocolError):
        fed.model(loading(files)).fit(fed.x, fed.y, batch_size=30, verbose=0)
    one, same = (KerasBackend(backbone(), seed=1) for _ in range(2))
    arrays = one.arrays()
    assert one.fingerprint() == same.fingerprint()
    same.set_arrays([1 + arrays[0], *arrays[1:]])
    assert one.fingerprint() != same.fingerprint()
    same.set_arrays(arrays)
    assert one.fingerprint() == same.fingerprint()


@pytest.mark.parametrize("strategy", ["fed_avg_w", "fed_avg_g", "fed_prox"])
def test_a_frozen_tensor_that_a_step_changes_stops_the_round(start, strategy):
    """Nothing that was computed with it is sent, and it is put back."""

    def builder():
        import keras

        class Counting(keras.layers.Layer):
            def build(self, shape):
                self.seen = self.add_weight(name="seen", shape=(), initializer="zeros", trainable=False)

            def call(self, inputs):
                self.seen.assign_add(1.0)
                return inputs

        layers = [keras.Input((4,)), Counting(name="counting", trainable=False), keras.layers.Dense(3, "softmax")]
        model = keras.Sequential(layers)
        model.compile(loss="categorical_crossentropy", optimizer="sgd", run_eagerly=True)
        return model

    fed = world(start)
    model = fed.model(builder, strategy=strategy)
    message = r"party '(alice|bob)': model: a step changed the tensor 'counting/seen', whose layer has trainable=False"
    with pytest.raises(PlanError, match=message):
        model.fit(fed.x, fed.y, batch_size=30, verbose=0)
    assert not [row for row in sf.ledger().rows if row.entry.kind == "masked"]
    kept = fed.model(builder, strategy=strategy, local=["counting/seen"])
    kept.fit(fed.x, fed.y, batch_size=30, verbose=0)


def test_a_frozen_tensor_that_an_evaluation_changes_is_found_and_put_back():
    backend, data = ready(backbone())
    kernel = backend._model.get_layer("backbone").layers[0].kernel
    before = kernel.numpy()
    backend.evaluate(data, batches(60))
    kernel.assign(before + 1)
    with pytest.raises(PlanError, match="a step changed the tensor 'backbone/dense/kernel'"):
        backend.evaluate(data, batches(60))
    assert kernel.numpy().tolist() == before.tolist()
    kernel.assign(before.copy())  # the same numbers in another place are no change
    backend.evaluate(data, batches(60))


def test_a_file_with_other_frozen_weights_sets_them_everywhere(start, tmp_path):
    """A backbone that was trained together and is frozen then; also a restart under another seed."""
    fed = world(start)
    whole = fed.model(backbone(trainable=True))
    whole.fit(fed.x, fed.y, batch_size=30, verbose=0)
    trained = whole.global_model().get_weights()
    whole.save(tmp_path / "whole.keras")
    model = fed.model(backbone(seed=4), random_seed=9)
    model.evaluate(fed.x, fed.y, verbose=0)
    model.load(tmp_path / "whole.keras")
    np.testing.assert_array_equal(
        np.concatenate([np.ravel(w) for w in model.global_model().get_weights()]),
        np.concatenate([np.ravel(w) for w in trained]),
    )
    model.fit(fed.x, fed.y, batch_size=30, verbose=0)
    found = model.global_model()
    after = dict(zip([v.path for v in found.weights], found.get_weights(), strict=True))
    before = dict(zip([v.path for v in found.weights], trained, strict=True))
    changed = {path.split("/")[-2] for path in after if after[path].tolist() != before[path].tolist()}
    assert changed == {"head"}
    (tmp_path / "other.keras").write_bytes(b"nothing")
    with pytest.raises(DataError, match="the file does not hold the weights"):
        model.load(tmp_path / "other.keras")
    model.fit(fed.x, fed.y, batch_size=30, verbose=0)


def normed(optimizer="sgd"):
    """BatchNorm first, on features whose scale depends on the party: what FedBN is for."""

    def builder():
        import keras
        from keras import layers

        model = keras.Sequential(
            [
                keras.Input((4,)),
                layers.BatchNormalization(momentum=0.5),
                layers.Dense(3, activation="softmax", name="head"),
            ]
        )
        model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"], run_eagerly=True)
        return model

    return builder


def own_weights(model, fed, folder):
    """Name -> weight of each party's own model, from the stock files that the parties write."""
    import keras

    found = []
    for device in fed.devices:
        model.save(folder / f"{device.name}.keras", party=device)
        stock = keras.models.load_model(folder / f"{device.name}.keras")
        found.append({v.path.removeprefix(f"{stock.name}/"): v.numpy() for v in stock.weights})
    return found


@pytest.mark.parametrize("strategy", ["fed_avg_w", pytest.param("fed_avg_g", marks=pytest.mark.slow)])
def test_fed_bn_keeps_each_partys_scale_and_shares_the_rest(start, strategy, tmp_path):
    x = np.concatenate([X[:30], 100 * X[30:] + 7])
    fed = world(start, x=x)
    model = fed.model(normed(), strategy=strategy, local=["*/batch_normalization*"])
    history = model.fit(fed.x, fed.y, batch_size=30, epochs=8, verbose=0)
    alice, bob = own_weights(model, fed, tmp_path)
    norm = "batch_normalization"
    for name in alice:
        equal = alice[name].tolist() == bob[name].tolist()
        assert equal == name.startswith("head/"), name
    assert (bob[f"{norm}/moving_variance"] > 1000 * alice[f"{norm}/moving_variance"]).all()
    np.testing.assert_allclose(bob[f"{norm}/moving_mean"], x[30:].mean(axis=0), rtol=0.5, atol=30)
    pooled = fed.model(normed(), strategy=strategy)
    pooled.fit(fed.x, fed.y, batch_size=30, epochs=8, verbose=0)
    ours, theirs = (float(one.evaluate(fed.x, fed.y, verbose=0)[0][0]) for one in (model, pooled))
    assert ours < theirs, "parties whose features have other scales do better with their own statistics"
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_evaluate_and_predict_use_each_partys_own(start, tmp_path):
    import keras

    fed = world(start)
    model = fed.model(normed("adam"), local=["head/*"])
    model.fit(fed.x, fed.y, batch_size=30, verbose=0)
    own_weights(model, fed, tmp_path)
    overall, local = model.evaluate(fed.x, fed.y, verbose=0)
    predictions = sf.reveal(model.predict(fed.x))
    total = 0.0
    for device, (x, y) in zip(fed.devices, fed.parts, strict=True):
        stock = keras.models.load_model(tmp_path / f"{device.name}.keras")
        np.testing.assert_allclose(predictions[device], stock.predict(x, verbose=0), rtol=1e-4, atol=1e-6)
        loss = stock.evaluate(x, y, verbose=0)[0]
        assert float(local[device.name][0]) == pytest.approx(loss, rel=1e-4)
        total += loss * len(x)
    assert float(overall[0]) == pytest.approx(total / 60, rel=1e-4)
    moments = [v for v in stock.optimizer.variables if v.name not in ("iteration", "learning_rate")]
    assert not any(np.any(moment.numpy()) for moment in moments)


def test_callbacks_that_set_weights_leave_what_is_kept(start, tmp_path):
    import keras

    fed = world(start)
    model = fed.model(normed(), local=["head/*"])
    stop = keras.callbacks.EarlyStopping(monitor="loss", mode="max", patience=1, restore_best_weights=True)
    model.fit(fed.x, fed.y, batch_size=30, epochs=5, verbose=0, callbacks=[stop])
    alice, bob = own_weights(model, fed, tmp_path)
    assert alice["head/kernel"].tolist() != bob["head/kernel"].tolist()
    assert alice["batch_normalization/gamma"].tolist() == bob["batch_normalization/gamma"].tolist()
    held = model.global_model()
    first = fed.model(normed(), local=["head/*"]).global_model()
    built = first.get_layer("head").kernel.numpy().tolist()
    assert held.get_layer("head").kernel.numpy().tolist() == built
    assert alice["head/kernel"].tolist() != built, "the callback has put back the rest"


def test_patterns_for_a_model_that_waits_for_its_rows(start):
    def builder():
        import keras

        model = keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(3, "softmax", name="head")])
        model.compile(loss="categorical_crossentropy", optimizer="sgd", run_eagerly=True)
        return model

    fed = world(start)
    model = fed.model(builder, local=["haed/*"])
    with pytest.raises(PlanError, match=r"party '(alice|bob)': local: pattern 'haed/\*' .* Did you mean 'head/kernel'"):
        model.fit(fed.x, fed.y, verbose=0)
    lazy = fed.model(builder, local=["head/*"])
    with pytest.raises(PlanError, match="learns its shape from the data"):
        lazy.save("model.keras", party=fed.devices[0])
    lazy.fit(fed.x, fed.y, batch_size=30, verbose=0)
    sizes = Counter(row.entry.kind for row in sf.ledger().rows)
    assert sizes["masked"] > 0
    assert load({fed.devices[0]: X}).shape == X.shape
