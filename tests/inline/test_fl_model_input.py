# SPDX-License-Identifier: Apache-2.0
"""Bad input to FLModel: the message names party and argument, what was expected, what was found, what to do; and
nothing is half-changed."""

import re

import numpy as np
import pytest
from inline.federated import as_bytes, regression, softmax, weights_of, world
from inline.keras_models import CLASS, X, Y

import fedray as sf
from fedray.data.ndarray import load
from fedray.errors import (
    DataError,
    NotFinite,
    NotInitialized,
    PartyError,
    PlanError,
)
from fedray.ml.nn import FLModel
from fedray.security.aggregation import SecureAggregator

pytestmark = pytest.mark.usefixtures("kernels_kept")


@pytest.fixture
def fed(start):
    return world(start)


def returns_nothing():
    """No model at all."""


def uncompiled():
    import keras

    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def needs_an_argument(shape):
    return shape


def raises():
    raise RuntimeError("a mistake in the builder")


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"device_list": []}, PlanError, "device_list: expected a list of the PYUs that hold rows"),
        ({"device_list": ["alice", "bob"]}, PlanError, "device_list: expected .*found ['alice', 'bob']"),
        ({"device_list": None}, PlanError, "device_list: expected a list of the PYUs"),
        ({"device_list": "twice"}, PlanError, "device_list: expected every party once, found ['alice', 'alice']"),
        ({"device_list": "one"}, PlanError, "hides nothing; expected two or more, or PlainAggregator"),
        ({"server": "server"}, PlanError, r"server: expected a PYU such as .*, found str"),
        ({"server": None}, PlanError, "server: expected the PYU that sums, or an aggregator that names one"),
        ({"model": None}, PlanError, "model: expected a function that returns a compiled model, found NoneType"),
        (
            {"model": "instance"},
            PlanError,
            "that returns a compiled model, found Sequential; pass a function: every party calls it",
        ),
        (
            {"model": returns_nothing},
            PlanError,
            "party '(alice|bob)': model: expected the builder to return a compiled keras.Model, found NoneType",
        ),
        (
            {"model": uncompiled},
            PlanError,
            "party '(alice|bob)': model '.*': expected a compiled model; call model.compile(...) in the builder",
        ),
        (
            {"model": raises},
            PartyError,
            "party '(alice|bob)': RuntimeError in build the model: a mistake in the builder",
        ),
        ({"model": needs_an_argument}, PartyError, "party '(alice|bob)': TypeError in build the model.*'shape'"),
        (
            {"strategy": "fedavg_w"},
            PlanError,
            "strategy: expected one .* found 'fedavg_w'. Did you mean 'fed_avg_w'?",
        ),
        ({"strategy_parameters": {"mu": 1}}, PlanError, "strategy fed_avg_w takes no parameters; found 'mu'"),
        (
            {"strategy": "fed_prox", "strategy_parameters": {"mu": -1}},
            PlanError,
            "fed_prox: expected mu to be a finite number of 0 or more, found -1",
        ),
        ({"backend": "tensorflo"}, PlanError, "backend: expected one of .*, found 'tensorflo'"),
        ({"random_seed": 1.5}, PlanError, "random_seed: expected a whole number of 0 or more, found 1.5"),
        ({"aggregator": "secure"}, PlanError, "aggregator: expected a SecureAggregator or another aggregator"),
        (
            {"aggregator": "three"},
            PlanError,
            "participants are ['alice', 'bob', 'server'], but device_list is ['alice', 'bob']; they must be the same",
        ),
        (
            {"aggregator": "elsewhere"},
            PlanError,
            "server: found server, but the aggregator's server is alice; leave server out, or pass the same",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_model_that_cannot_be(fed, changed, error, message):
    alice, bob = fed.devices
    named = {
        "twice": [alice, alice],
        "one": [alice],
        "instance": softmax(),
        "three": SecureAggregator(fed.server, [alice, bob, fed.server]),
        "elsewhere": SecureAggregator(alice, [alice, bob]),
    }
    given = {key: named.get(value, value) if isinstance(value, str) else value for key, value in changed.items()}
    if changed.get("model") == "instance":
        given["model"] = softmax()()
    arguments = {"server": fed.server, "device_list": fed.devices, "model": softmax()} | given
    with pytest.raises(error) as caught:
        FLModel(**arguments)
    assert matches(message, str(caught.value))


def matches(message, text):
    """Brackets, dots and question marks in the expected message are themselves; `.*` and `(a|b)` are not."""
    pattern = re.escape(message).replace(r"\.\*", ".*")
    pattern = re.sub(r"\\\((\w+)\\\|(\w+)\\\)", r"(\1|\2)", pattern)
    return re.search(pattern, text)


def test_a_party_nobody_knows(fed):
    with pytest.raises(PlanError, match="unknown party 'dora'; this session has 'alice', 'bob', 'server'"):
        FLModel(server=fed.server, device_list=[fed.devices[0], sf.PYU("dora")], model=softmax())


@pytest.fixture(scope="module")
def standing():
    """One session and one trained model for all inputs that are refused before anything starts."""

    def begin(address, parties, **settings):
        sf.init(list(parties), address, **settings)

    sf.shutdown()
    fed = world(begin)
    model = fed.model()
    model.fit(fed.x, fed.y, batch_size=30, verbose=0)
    yield fed, model, as_bytes(model)
    sf.shutdown()


def one_party(fed):
    return load({fed.devices[0]: X})


REFUSED = [
    ({"x": X}, PlanError, "x: expected a FedNdarray, found ndarray; these rows are at the driver"),
    ({"y": Y}, PlanError, "y: expected a FedNdarray, found ndarray"),
    (
        lambda f: {"x": one_party(f)},
        PlanError,
        "x: expected one part at each of ['alice', 'bob'] (the model's device_list), found parts at ['alice']",
    ),
    (
        lambda f: {"y": load({f.devices[0]: Y[:30], f.server: Y[30:]})},
        PlanError,
        "y: expected one part at each of ['alice', 'bob'] .* found parts at ['alice', 'server']",
    ),
    (
        lambda f: {"y": load({f.devices[0]: Y[:29], f.devices[1]: Y[30:]})},
        DataError,
        "party 'alice': x has 30 rows but y has 29; both must speak of the same rows, in the same order",
    ),
    (lambda f: {"y": f.y[:50]}, DataError, "party 'bob': x has 30 rows but y has 20"),
    (
        lambda f: {"y": f.spread(CLASS)},
        DataError,
        "party '(alice|bob)': y: the loss 'categorical_crossentropy' expects rows of shape (3,), found (); one-hot",
    ),
    (lambda f: {"y": f.spread(np.eye(4)[CLASS])}, DataError, "expects rows of shape (3,), found (4,)"),
    (lambda f: {"x": f.spread(X[:, :3])}, DataError, "x: model 'sequential' expects rows of shape (4,), found (3,)"),
    ({"aggregate_freq": 0}, PlanError, "aggregate_freq: expected a whole number of 1 or more, found 0"),
    ({"batch_size": 0}, PlanError, "batch_size: expected a whole number of 1 or more, found 0"),
    ({"batch_size": 1.5}, PlanError, "batch_size: expected a whole number of 1 or more, found 1.5"),
    ({"epochs": 0}, PlanError, "epochs: expected a whole number of 1 or more, found 0"),
    ({"initial_epoch": 1}, PlanError, "initial_epoch: expected less than epochs=1, found 1"),
    ({"sampler_method": "poison"}, PlanError, "found 'poison'. Did you mean 'poisson'?"),
    ({"shuffle": "yes"}, PlanError, "shuffle: expected True or False, found 'yes'"),
    ({"random_seed": -3}, PlanError, "random_seed: expected a whole number of 0 or more, found -3"),
    ({"verbose": "loud"}, PlanError, "verbose: expected 'auto', 0, 1 or 2, found 'loud'"),
    (lambda f: {"validation_data": f.x}, PlanError, "validation_data: expected (x, y) or (x, y, sample_weight)"),
    (lambda f: {"validation_data": (f.x, Y)}, PlanError, "validation y: expected a FedNdarray, found ndarray"),
    (
        lambda f: {"validation_data": (f.x[:31], f.y[:32])},
        DataError,
        "party 'bob': validation x has 1 rows but validation y has 2",
    ),
    (
        lambda f: {"validation_data": (f.x[:10], f.y[:10])},
        PlanError,
        "evaluation data: expected at least two parties with rows, found alice: 10, bob: 0",
    ),
    (
        lambda f: {"validation_data": (f.x, f.y), "validation_freq": 0},
        PlanError,
        "validation_freq: expected a whole number of 1 or more, found 0",
    ),
    ({"sample_weight": np.ones(60)}, PlanError, "sample_weight: expected a FedNdarray, found ndarray"),
    (
        lambda f: {"sample_weight": f.spread(np.ones((60, 2)))},
        DataError,
        "sample_weight: expected one number per row, found shape (60, 2)",
    ),
    ({"class_weight": [1, 2]}, PlanError, "class_weight: expected {class number: weight}, found list"),
    ({"class_weight": {"a": 2}}, PlanError, "class_weight: expected class number -> weight of 0 or more"),
    (
        lambda f: {"class_weight": {0: 2}, "sample_weight": f.spread(np.ones(60))},
        PlanError,
        "sample_weight and class_weight: expected one of the two, found both",
    ),
    (
        lambda f: {"x": f.x[:3], "y": f.y[:3]},
        PlanError,
        "training data: expected at least two parties with rows, found alice: 3, bob: 0",
    ),
]


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED, ids=[message[:50] for *_, message in REFUSED])
def test_a_fit_that_cannot_be(standing, changed, error, message):
    fed, model, before = standing
    arguments = {"x": fed.x, "y": fed.y, "verbose": 0} | (changed(fed) if callable(changed) else changed)
    with pytest.raises(error) as caught:
        model.fit(**arguments)
    assert matches(message, str(caught.value))
    assert as_bytes(model) == before


def test_evaluate_and_predict_check_too(standing):
    fed, model, before = standing
    with pytest.raises(DataError, match="party 'bob': x has 30 rows but y has 20"):
        model.evaluate(fed.x, fed.y[:50])
    with pytest.raises(PlanError, match="batch_size: expected a whole number"):
        model.evaluate(fed.x, fed.y, batch_size=0)
    with pytest.raises(DataError, match=r"expects rows of shape \(4,\), found \(3,\)"):
        sf.reveal(model.predict(fed.spread(X[:, :3])))
    assert as_bytes(model) == before


def with_one(value):
    changed = X.copy()
    changed[45, 2] = value
    return changed


@pytest.mark.parametrize("rows", [(30, 30), (15, 15, 15, 15)], ids=["two parties", "four parties"])
@pytest.mark.parametrize("strategy", ["fed_avg_w", "fed_avg_g"])
def test_nothing_of_a_party_with_nan_is_averaged_in(start, rows, strategy):
    """The good rounds before it count, the round of the bad row is put back everywhere, and training goes on."""
    fed = world(start, rows=rows, backend="numpy")
    broken, sound = (fed.model(regression(momentum=0.9), strategy=strategy) for _ in range(2))
    arguments = {"batch_size": 5, "verbose": 0, "shuffle": False}
    holder = fed.devices[45 * len(rows) // 60].name
    bad = fed.spread(with_one(np.nan))
    with pytest.raises(NotFinite) as caught:
        broken.fit(bad, fed.y, **arguments)
    assert matches(f"party {holder!r}: tensor 'kernel' holds NaN; nothing was sent; look for", str(caught.value))
    assert np.isfinite(np.frombuffer(as_bytes(broken), np.float32)).all()

    good = {"bob": 3, "dave": 0}[holder]  # rounds before the one that holds row 45
    if good:
        kept = [x[: good * 5] for x, _ in fed.parts], [y[: good * 5].argmax(axis=1) for _, y in fed.parts]
        some = [load(dict(zip(fed.devices, part, strict=True))) for part in kept]
        sound.fit(*some, **arguments)
    assert as_bytes(broken) == as_bytes(sound)
    for model in (broken, sound):
        model.fit(fed.x, fed.y, random_seed=1, **arguments)
    assert as_bytes(broken) == as_bytes(sound), "optimizers were put back as well"


def test_infinite_and_enormous_weights(fed):
    model = fed.model()
    before = as_bytes(model)
    with pytest.raises(NotFinite, match="party 'bob': tensor 'dense/kernel' holds NaN"):
        model.fit(fed.spread(with_one(np.inf)), fed.y, batch_size=30, verbose=0)
    assert as_bytes(model) == before
    wild = fed.model(softmax(rate=1e9))
    wild.fit(fed.x, fed.y, batch_size=30, verbose=0)
    assert max(np.abs(array).max() for array in weights_of(wild)) > 1e6, "enormous weights are weights"
    wilder = fed.model(softmax(rate=3e38))
    with pytest.raises(NotFinite, match=r"'loss/0' holds an infinity; nothing was sent; .*training that diverges"):
        wilder.fit(fed.x, fed.y, batch_size=30, epochs=3, verbose=0)
    with pytest.raises(NotFinite, match="party 'bob': 'loss/0' holds NaN"):
        model.evaluate(fed.spread(with_one(np.nan)), fed.y, verbose=0)
    model.fit(fed.x, fed.y, batch_size=30, verbose=0)


def test_a_model_outlives_its_session_only_as_an_error(fed):
    model = fed.model()
    sf.shutdown()
    for use in (
        lambda: model.fit(fed.x, fed.y),
        lambda: model.evaluate(fed.x, fed.y),
        lambda: model.global_model(),
        lambda: model.save("never.keras"),
    ):
        with pytest.raises(NotInitialized, match=r"sf\.init"):
            use()
    with pytest.raises(NotInitialized, match=r"no session is running; call sf\.init"):
        FLModel(server=fed.server, device_list=fed.devices, model=softmax())
