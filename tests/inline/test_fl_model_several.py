# SPDX-License-Identifier: Apache-2.0
"""FLModel on models with several inputs and outputs: the pooled Keras run, whatever the form of rows and labels."""

import re
from pathlib import Path

import numpy as np
import pytest
from inline.federated import world
from inline.keras_models import CLASS, EAGERLY, X
from inline.several import (
    AGE,
    FORM_AND_WEIGHTED,
    FORMS,
    HEAVY,
    HEIGHT,
    LIGHT,
    two_by_two,
    two_inputs,
    wide_and_deep,
)

import fedray as sf
from fedray.data.ndarray import load
from fedray.errors import DataError, PlanError
from fedray.ml.nn import FLModel
from fedray.ml.nn.numpy import LinearRegression
from fedray.strategies import STRATEGIES
from fedray.tree import Tree

pytestmark = pytest.mark.usefixtures("kernels_kept")

ROWS = (33, 27)
PARTS = {"a": slice(0, 40), "b": slice(40, 60)}
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def fed(start):
    return world(start, rows=ROWS)


def spread(fed, nest):
    """Returns arrays dealt to the parties, as nested as they are."""
    return None if nest is None else Tree(nest).map(fed.spread).nest


def in_keras(outputs, nest):
    """Keras itself cannot find weights by name where outputs are a list."""
    return [nest["kind"], nest["height"]] if outputs is list and isinstance(nest, dict) else nest


def weights_of(model):
    return np.concatenate([weight.ravel() for weight in model.global_model().get_weights()])


def pooled(model, x, y, weights=None, epochs=2):
    """Keras's own run over all rows from the model's weights, a batch an epoch; returns it and its history."""
    stock = model.global_model()
    history = stock.fit(x, y, sample_weight=weights, batch_size=60, epochs=epochs, shuffle=False, verbose=0)
    return stock, {name: pytest.approx(values, rel=1e-4) for name, values in history.history.items()}


@pytest.mark.parametrize(("form", "weighted"), FORM_AND_WEIGHTED)
def test_a_run_is_the_pooled_run_and_so_are_the_metrics_of_every_output(fed, form, weighted):
    outputs, x, y, weights = FORMS[form]
    weights = weights if weighted else None
    model = fed.model(two_by_two(outputs, run_eagerly=True))
    stock, expected = pooled(model, x, in_keras(outputs, y), in_keras(outputs, weights))
    fed_x, fed_y, fed_weights = (spread(fed, nest) for nest in (x, y, weights))
    data = (fed_x, fed_y) if fed_weights is None else (fed_x, fed_y, fed_weights)
    history = model.fit(
        fed_x, fed_y, sample_weight=fed_weights, validation_data=data, batch_size=60, epochs=2, verbose=0
    )
    found = history.history
    assert {name: found[name] for name in expected} == expected
    stocks = np.concatenate([weight.ravel() for weight in stock.get_weights()])
    np.testing.assert_allclose(weights_of(model), stocks, rtol=1e-4, atol=1e-6)
    overall, local = model.evaluate(fed_x, fed_y, sample_weight=fed_weights, batch_size=8, verbose=0)
    fed_in = x, in_keras(outputs, y)
    evaluated = stock.evaluate(
        *fed_in, sample_weight=in_keras(outputs, weights), batch_size=60, verbose=0, return_dict=True
    )
    assert {metric.name: float(metric) for metric in overall} == pytest.approx(evaluated, rel=1e-4)
    assert [found[f"val_{metric.name}"][-1] for metric in overall] == pytest.approx(list(map(float, overall)), rel=1e-5)
    assert {metric.name for metric in local["bob"]} == set(expected)


def as_pooled():
    """Strategies that take the pooled step: not `fed_adam`, whose server takes its own. The run above is fed_avg_w."""
    quick = {"fed_avg_g"}
    for strategy in sorted(STRATEGIES.keys() - {"fed_adam"}):
        yield pytest.param(strategy, marks=[pytest.mark.slow] * (strategy not in quick))


@pytest.mark.parametrize("strategy", list(as_pooled()))
def test_every_strategy_takes_the_pooled_step(fed, strategy):
    outputs, x, y, weights = FORMS["dicts"]
    model = fed.model(two_by_two(outputs, run_eagerly=True), strategy=strategy)
    stock, expected = pooled(model, x, y, weights)
    data = [spread(fed, nest) for nest in (x, y, weights)]
    history = model.fit(*data[:2], sample_weight=data[2], batch_size=60, epochs=2, verbose=0)
    assert history.history == expected
    stocks = np.concatenate([weight.ravel() for weight in stock.get_weights()])
    np.testing.assert_allclose(weights_of(model), stocks, rtol=1e-4, atol=1e-6)


def test_predictions_of_each_party_are_nested_as_the_outputs_and_stay_there(fed):
    for outputs, x, *_ in FORMS.values():
        model = fed.model(two_by_two(outputs, run_eagerly=True))
        predictions = model.predict(spread(fed, x), batch_size=7)
        assert [held.device for held in predictions.values()] == list(predictions) == fed.devices
        found = list(sf.reveal(predictions).values())
        assert {type(nest) for nest in found} == {outputs}
        expected = Tree(model.global_model().predict(x, verbose=0)).leaves()
        for place, whole in enumerate(expected):
            parts = np.concatenate([Tree(nest).leaves()[place] for nest in found])
            np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_a_saved_model_with_several_outputs_loads_everywhere(fed, tmp_path):
    outputs, x, y, _ = FORMS["dicts"]
    model = fed.model(two_by_two(outputs, run_eagerly=True))
    x, y = spread(fed, x), spread(fed, y)
    model.fit(x, y, batch_size=40, verbose=0)
    before, metrics = weights_of(model).tolist(), model.evaluate(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    model.fit(x, y, batch_size=40, verbose=0)
    model.load(tmp_path / "model.keras")
    assert weights_of(model).tolist() == before
    assert model.evaluate(x, y, verbose=0) == metrics


def test_two_inputs_and_one_output_with_weights_of_classes(fed):
    x, y = {"image": X, "age": AGE}, CLASS
    model = fed.model(lambda: two_inputs(run_eagerly=True))
    stock = model.global_model()
    stock.fit(x, y, class_weight={1: 5.0}, batch_size=60, epochs=2, shuffle=False, verbose=0)
    model.fit(spread(fed, x), fed.spread(y), class_weight={1: 5.0}, batch_size=60, epochs=2, verbose=0)
    for found, expected in zip(model.global_model().get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("run_eagerly", EAGERLY)
def test_a_model_that_learns_its_shapes_from_a_dict_of_inputs(fed, run_eagerly):
    x, y = {"image": X, "age": AGE}, HEIGHT
    model = fed.model(lambda: wide_and_deep(run_eagerly))
    history = model.fit(spread(fed, x), fed.spread(y), batch_size=8, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    predictions = np.concatenate(list(sf.reveal(model.predict(spread(fed, x))).values()))
    np.testing.assert_allclose(predictions, model.global_model().predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_the_example_in_the_readme(fed):
    examples = re.findall(r"^```py\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    (example,) = [found for found in examples if "two_heads" in found]
    given = {"image": X, "age": AGE, "kind": CLASS, "height": HEIGHT}
    alice, bob = fed.devices[:2]
    names = {"load": load, "FLModel": FLModel, "server": fed.server, "alice": alice, "bob": bob}
    names |= {f"{name}_{party}": array[part] for name, array in given.items() for party, part in PARTS.items()}
    names["two_heads"] = two_by_two(dict, run_eagerly=True)
    exec(example, names)
    logs = names["history"].history
    assert {"loss", "kind_loss", "height_loss", "kind_accuracy"} <= set(logs)
    assert logs["loss"][1] < logs["loss"][0]
    assert sorted(sf.reveal(names["predictions"])[alice]) == ["height", "kind"]
    assert names["overall"][0].name == "loss"


def test_the_numpy_backend_lays_several_inputs_side_by_side(fed):
    x, y = {"image": X, "age": AGE}, fed.spread(np.hstack([AGE, X]).sum(axis=1))
    nested = fed.model(lambda: LinearRegression(5, learning_rate=0.1), backend="numpy")
    flat = fed.model(lambda: LinearRegression(5, learning_rate=0.1), backend="numpy")
    nested.fit(spread(fed, x), y, batch_size=8, verbose=0)
    flat.fit(fed.spread(np.hstack([AGE, X])), y, batch_size=8, verbose=0)  # dicts go by their sorted keys
    assert nested.global_model().kernel.tolist() == flat.global_model().kernel.tolist()
    with pytest.raises(DataError, match=r"y: the model has one output; expected one array, found y\[0\], y\[1\]"):
        nested.evaluate(spread(fed, x), [y, y], verbose=0)


def test_what_does_not_fit_is_said_by_its_name_before_anything_starts(start):
    fed = world(start, rows=(13, 27, 20))
    model = fed.model(two_by_two(run_eagerly=True))
    image, age, kind, height = (fed.spread(array) for array in (X, AGE, CLASS, HEIGHT))
    x, y = {"image": image, "age": age}, [kind, height]
    bob = fed.devices[1]
    fewer = load({device: AGE[:13] if device == bob else age.partitions[device] for device in fed.devices})
    cases = [
        (
            {"x": {"image": image, "age": AGE}},
            PlanError,
            r"x\['age'\]: expected a FedNdarray, found ndarray; these rows are at the driver",
        ),
        ({"x": []}, PlanError, "x: expected at least one FedNdarray, found none"),
        ({"x": {bob: X}}, PlanError, "x: expected a dict with string keys of FedNdarrays, or one FedNdarray; make one"),
        (
            {"x": {"image": image, "age": fewer}},
            DataError,
            r"party 'bob': x\['age'\] has 13 rows but x\['image'\] has 27",
        ),
        (
            {"y": [kind, load({bob: HEIGHT})]},
            PlanError,
            r"y\[1\]: expected one part at each of \['alice', 'bob', 'carol'\]",
        ),
        ({"y": [kind, None]}, PlanError, r"y\[1\]: expected a FedNdarray, found NoneType"),
        ({"y": [kind]}, DataError, r"party '.*': y: model '.*' expects y\[0\], y\[1\] .*, found y\[0\]"),
        ({"sample_weight": [None, age]}, DataError, r"sample_weight\[1\]: expected one number per row, found shape"),
        ({"class_weight": {0: 2.0}}, PlanError, "party '.*': class_weight: works for a model with one output only"),
        (
            {"validation_data": (x, [kind, HEIGHT])},
            PlanError,
            r"validation y\[1\]: expected a FedNdarray, found ndarray",
        ),
    ]
    for changed, error, message in cases:
        with pytest.raises(error, match=message):
            model.fit(**({"x": x, "y": y, "verbose": 0} | changed))
    with pytest.raises(
        PlanError, match=r"x\['image'\]: expected parts at \['bob'\], as the other inputs, found parts at \['alice', "
    ):
        model.predict({"image": image, "age": load({bob: AGE})})
    weights = [fed.spread(HEAVY), None]
    model.fit(x, y, sample_weight=weights, validation_data=(x, y, fed.spread(LIGHT)), batch_size=30, verbose=0)
