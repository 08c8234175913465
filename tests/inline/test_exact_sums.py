# SPDX-License-Identifier: Apache-2.0
"""Sums, statistics and metrics in any unit: metres or nanometres, cents or billions, the numbers are the same."""

import math

import numpy as np
import pytest
from inline.federated import PARTIES, world

import fedray as sf
from fedray.data.ndarray import load
from fedray.ml.nn import FLModel
from fedray.security.aggregation import PlainAggregator, SecureAggregator, SPUAggregator

UNITS = [1e-15, 1e-12, 1e-9, 1e-5, 1e-4, 1.0, 3e2, 1e6, 1e9, 1e12, 1e15]
NAMES = PARTIES[:4]
ROWS = (7, 12, 9, 20)
DICE = np.random.default_rng(11)
NUMBERS = [DICE.normal(size=(rows, 3)) for rows in ROWS]
"""What each party holds, before units."""


@pytest.fixture(params=["plain", "abandon", "recover", "shares"])
def aggregator(request, start):
    """Returns an aggregator of each kind over four parties."""
    start("inline", (*NAMES, "server"), seed=1)
    devices, server = [sf.PYU(name) for name in NAMES], sf.PYU("server")
    if request.param == "plain":
        return PlainAggregator(server, devices)
    if request.param == "shares":
        spu = sf.SPU(sf.utils.testing.cluster_def(list(NAMES[:2])))
        return SPUAggregator(spu).bind(server, devices)
    return SecureAggregator(server, devices, on_dropout=request.param)


def held(values):
    return [sf.PYU(name)(lambda value: value)(value) for name, value in zip(NAMES, values, strict=True)]


def test_sums_and_averages_are_exact_in_any_unit(aggregator):
    """All units in one vector: every sum is that of `math.fsum`, to the last bit."""
    vectors = [np.ravel(numbers[:6])[:, None] * UNITS for numbers in NUMBERS]
    columns = list(zip(*(vector.ravel() for vector in vectors), strict=True))
    found = aggregator.sum(held(vectors))
    assert found.ravel().tolist() == [math.fsum(column) for column in columns]
    assert found.shape == vectors[0].shape
    mean = aggregator.average(held(vectors))
    assert mean.ravel().tolist() == [math.fsum(column) / 4 for column in columns]
    weights = [0.3, 1e-9, 7.0, 2.0]
    for given in (weights, held(weights)):
        weighed = aggregator.average(held(vectors), given).ravel()
        products = [math.fsum(w * v for w, v in zip(weights, column, strict=True)) for column in columns]
        assert weighed.tolist() == [product / math.fsum(weights) for product in products]
    assert aggregator.sum(held([70000.0, 1e-12, -70000.0, 1e30])) == math.fsum([70000.0, 1e-12, -70000.0, 1e30])


@pytest.mark.parametrize("kind", [None, PlainAggregator])
def test_means_and_deviations_of_columns_in_any_unit(start, kind):
    """One column in each unit, as far from zero as it is wide; against NumPy on the pooled rows."""
    start("inline", (*NAMES, "server"), seed=1)
    devices = [sf.PYU(name) for name in NAMES]
    parts = [(numbers[:, :1] + 3) * UNITS for numbers in NUMBERS]
    pooled = np.concatenate(parts)
    x = load(dict(zip(devices, parts, strict=True)))
    chosen = None if kind is None else kind(sf.PYU("server"), devices)
    np.testing.assert_allclose(x.mean(axis=0, aggregator=chosen), pooled.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(x.std(axis=0, aggregator=chosen), pooled.std(axis=0), rtol=1e-13)


def linear():
    from fedray.ml.nn.numpy import LinearRegression

    return LinearRegression(3, learning_rate=1e-30, dtype="float64")


@pytest.mark.parametrize("unit", [1e-15, 1e-5, 1.0, 1e6, 1e15])
@pytest.mark.parametrize("scheme", ["plain", "abandon"])
def test_joint_metrics_are_those_of_the_pooled_rows_in_any_unit(start, tmp_path, scheme, unit):
    """Targets in some unit, and a model whose weights are in it too: losses from 1e-30 to 1e30."""
    fed = world(start, rows=ROWS, backend="numpy", x=np.concatenate(NUMBERS), y=np.ones(sum(ROWS)))
    targets = [unit * (numbers @ [1.0, -2.0, 0.5] + 4) for numbers in NUMBERS]
    y = load(dict(zip(fed.devices, targets, strict=True)))
    server = fed.server
    chosen = PlainAggregator(server, fed.devices) if scheme == "plain" else None
    chosen = chosen or SecureAggregator(server, fed.devices, on_dropout=scheme)
    model = FLModel(server, fed.devices, linear, chosen, backend="numpy", random_seed=1)
    kernel = unit * np.array([[0.9], [-2.0], [0.4]])
    np.savez(tmp_path / "start.npz", kernel=kernel, bias=np.zeros(1))
    model.load(tmp_path / "start.npz")
    errors = np.concatenate(NUMBERS) @ kernel - np.concatenate(targets)[:, None]
    found = {metric.name: float(metric) for metric in model.evaluate(fed.x, y, verbose=0)[0]}
    assert found == pytest.approx({"loss": np.square(errors).mean(), "mae": np.abs(errors).mean()}, rel=1e-12)
    # With weights a count is summed as any other number.
    weights = load({d: np.full(len(part), 0.25) for d, part in zip(fed.devices, targets, strict=True)})
    weighed = {metric.name: float(metric) for metric in model.evaluate(fed.x, y, sample_weight=weights, verbose=0)[0]}
    assert weighed["loss"] == pytest.approx(found["loss"] / 4, rel=1e-12)
    history = model.fit(fed.x, y, epochs=1, batch_size=sum(ROWS), verbose=0).history
    assert {name: values[-1] for name, values in history.items()} == pytest.approx(found, rel=1e-12)
