# SPDX-License-Identifier: Apache-2.0
"""What makes a Keras model the same one: fingerprint, files, learning rate, another process."""

import linecache
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from inline.keras_models import X, Y, batches, dense, noisy, one_matrix, ready

from fedray.backends.keras.lambdas import WARNING
from fedray.backends.keras.model import KerasBackend
from fedray.backends.keras.unwarned import unwarned
from fedray.errors import DataError, PlanError

pytestmark = pytest.mark.usefixtures("kernels_kept")


def test_the_learning_rate_can_be_read_and_set():
    backend, data = ready(dense("sgd"))
    start = backend.weights()
    assert backend.learning_rate() == pytest.approx(0.01)
    slow, *_ = backend.train(start, data, batches(60))
    backend.set_learning_rate(0.5)
    fast, *_ = backend.train(start, data, batches(60))
    np.testing.assert_allclose(fast - start, 50 * (slow - start), rtol=1e-3, atol=1e-5)


def test_a_rate_that_was_set_makes_no_other_model_and_one_that_was_compiled_does():
    """A party that took a file tells its model anew, and the others do not."""
    backend = KerasBackend(dense("sgd"), seed=1)
    before = backend.fingerprint()
    backend.set_learning_rate(0.5)
    backend.import_model(backend.export_model())
    assert backend.learning_rate() == 0.5
    assert backend.fingerprint() == before
    import keras

    assert KerasBackend(dense(keras.optimizers.SGD(0.5)), seed=1).fingerprint() != before


def test_a_schedule_of_the_users_own_is_not_overridden():
    def builder():
        import keras

        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
        return dense(keras.optimizers.SGD(schedule))()

    backend = KerasBackend(builder, seed=1)
    assert backend.learning_rate() == pytest.approx(0.1)
    with pytest.raises(PlanError, match="learning_rate: the optimizer follows a schedule"):
        backend.set_learning_rate(0.5)


def test_a_saved_model_is_a_stock_keras_model_without_this_partys_gradients(tmp_path):
    import keras

    backend, data = ready(dense("adam"))
    backend.train(backend.weights(), data, batches(30))
    path = tmp_path / "model.keras"
    path.write_bytes(backend.export_model())
    stock = keras.models.load_model(path)
    np.testing.assert_allclose(stock.predict(X, verbose=0), backend.predict(data, batches(60)).nest, rtol=1e-5)
    moments = [v for v in stock.optimizer.variables if v.name not in ("iteration", "learning_rate")]
    assert moments
    assert not any(np.any(moment.numpy()) for moment in moments), "Adam's moments are means of one party's gradients"
    assert float(stock.optimizer.learning_rate) == backend.learning_rate()


def test_saving_and_loading_leave_the_optimizer_alone():
    eager = dense("adam", run_eagerly=True)
    trained, _ = ready(eager)
    content = trained.export_model()
    plain, data = ready(eager, seed=2)
    saving, same = ready(eager, seed=2)
    flat = plain.train(plain.weights(), data, batches(30))[0]
    saving.train(saving.weights(), same, batches(30))
    saving.export_model()
    saving.export_model("weights")
    saving.import_model(content)
    assert saving.weights().tolist() == trained.weights().tolist()
    assert saving.train(flat, same, batches(30))[0].tolist() == plain.train(flat, data, batches(30))[0].tolist()


def test_a_file_that_does_not_fit_is_refused():
    backend, _ = ready(dense())
    other, _ = ready(noisy)
    for content in (other.export_model(), b"no model at all"):
        with pytest.raises(DataError, match="the file does not hold the weights of this model"):
            backend.import_model(content)


def test_the_fingerprint_tells_models_apart():
    builders = [
        dense(),
        dense("adam"),
        dense(loss="mse"),
        dense(metrics=()),
        noisy,
        one_matrix,
    ]
    assert len({KerasBackend(builder, seed=1).fingerprint() for builder in builders}) == len(builders)


LAMBDAS = """
def builder():
    import keras
    layers = [keras.Input((4,)), keras.layers.Lambda(lambda x: {0} * x), keras.layers.Dense(3, activation=lambda x: x)]
    model = keras.Sequential(layers)
    model.compile(loss=lambda y, p: keras.ops.mean(y - {1} * p, axis=-1), optimizer="sgd")
    return model
"""


def with_lambdas(scale, weight, name, known=True):
    text = LAMBDAS.format(scale, weight)
    if known:
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    names = {}
    exec(compile(text, name, "exec"), names)
    return names["builder"]


def test_the_fingerprint_knows_lambdas_by_what_they_compute():
    first, other = "/nowhere/lambdas.py", "/nowhere/others.py"
    same, moved, changed, weighted = (
        KerasBackend(with_lambdas(*arguments), seed=1).fingerprint()
        for arguments in ((2, 3, first), (2, 3, other), (4, 3, first), (2, 5, other))
    )
    assert same == moved
    assert len({same, changed, weighted}) == 3


def test_a_model_with_lambdas_whose_source_is_nowhere_is_built():
    assert KerasBackend(with_lambdas(2, 3, "<stdin>", known=False), seed=1).fingerprint()


def test_nothing_is_said_of_lambdas_and_the_filters_stay_as_they_were():
    model = with_lambdas(2, 3, "/nowhere/said.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = list(warnings.filters)
        assert KerasBackend(model, seed=1).fingerprint()
        assert warnings.filters == kept


def test_filters_that_another_thread_sets_meanwhile_are_its_own():
    with warnings.catch_warnings():
        with unwarned(WARNING):
            inner = warnings.catch_warnings()
            inner.__enter__()
            warnings.simplefilter("error", BytesWarning)
        with pytest.raises(BytesWarning):
            warnings.warn("still an error", BytesWarning, stacklevel=1)
        inner.__exit__(None, None, None)


def test_nothing_is_said_of_the_optimizer_in_a_file_of_which_nothing_is_taken(tmp_path):
    path, model = tmp_path / "other.keras", dense(optimizer="adam", run_eagerly=True)()
    model.fit(X, Y, verbose=0)
    model.save(path)
    backend, _ = ready(dense(run_eagerly=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.import_model(path.read_bytes())
    assert all(np.array_equal(a, b) for a, b in zip(backend.arrays(), model.get_weights(), strict=True))


def test_other_warnings_are_passed_on():
    with pytest.warns(UserWarning, match="of the model"), unwarned(WARNING):
        warnings.warn("of the model", stacklevel=1)


SCRIPT = """
import sys
from inline.keras_models import X, Y, batches, noisy, ready
backend, data = ready(noisy, noise_seed=5)
flat, *_ = backend.train(backend.weights(), data, batches(13, 20, 27))
print(backend.fingerprint().hex(), flat.tobytes().hex())
print("a word of its own", file=sys.stderr)
"""


@pytest.mark.slow  # parties of other processes, on Ray, compare fingerprints and weights in every run of theirs
def test_another_process_has_the_same_model_and_says_nothing():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=250
    )
    assert result.stderr == "a word of its own\n"
    backend, data = ready(noisy, noise_seed=5)
    flat, *_ = backend.train(backend.weights(), data, batches(13, 20, 27))
    assert result.stdout.split() == [backend.fingerprint().hex(), flat.tobytes().hex()]
