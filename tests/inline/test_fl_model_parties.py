# SPDX-License-Identifier: Apache-2.0
"""Parties of any number and any size: every row counts once an epoch, whoever holds how many."""

import numpy as np
import pytest
from inline.federated import by_hand, weights_of, world
from inline.keras_models import X, Y, dense

import fedray as sf
from fedray.errors import EgressDenied, PlanError
from fedray.security.aggregation import PlainAggregator

pytestmark = pytest.mark.usefixtures("kernels_kept")

PASSING = {"hello", "masked", "share", "aggregate", "initial", "metrics", "shape", "error", "ledger"}


def trained_as_by_hand(fed, **arguments):
    model = fed.model()
    first = weights_of(model)
    history = model.fit(fed.x, fed.y, verbose=0, **arguments)
    for found, expected in zip(weights_of(model), by_hand(first, fed.parts, **arguments), strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-6)
    return model, history


def test_ten_parties(start):
    fed = world(start, backend="numpy", rows=(6,) * 10)
    model, history = trained_as_by_hand(fed, batch_size=3, epochs=2)
    assert history.params["steps"] == 2
    assert sorted(history.local_history) == sorted(device.name for device in fed.devices)
    assert model.evaluate(fed.x, fed.y, verbose=0)[0][0].count == 60


def test_ten_thousand_rows_against_three(start):
    fed = world(start, backend="numpy", rows=(10_000, 3), x=np.resize(X, (10_003, 4)), y=np.resize(Y, (10_003, 3)))
    model, history = trained_as_by_hand(fed, batch_size=128)
    assert history.params["steps"] == 3
    assert model.evaluate(fed.x, fed.y, verbose=0)[0][0].count == 10_003


def test_a_party_with_fewer_rows_than_there_are_rounds(start):
    fed = world(start, backend="numpy", rows=(32, 24, 2))
    _, history = trained_as_by_hand(fed, batch_size=4, epochs=2)
    assert history.params["steps"] == 8
    assert len(history.local_history["carol"]["loss"]) == 2


def test_one_party_needs_a_plain_aggregator(start):
    fed = world(start, backend="numpy", rows=(40,))
    with pytest.raises(PlanError, match="PlainAggregator to train one party without protection"):
        fed.model()
    model = fed.model(aggregator=PlainAggregator(fed.server, fed.devices))
    first = weights_of(model)
    history = model.fit(fed.x, fed.y, batch_size=8, epochs=2, verbose=0, validation_data=(fed.x, fed.y))
    for found, expected in zip(weights_of(model), by_hand(first, fed.parts, batch_size=8, epochs=2), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert list(history.local_history) == ["alice"]


def test_devices_in_another_order_than_the_roster(start):
    fed = world(start, backend="numpy", rows=(20, 20, 20))
    fed.devices = [fed.devices[2], fed.devices[0], fed.devices[1]]
    _, history = fed.model(), fed.model().fit(fed.x, fed.y, batch_size=5, verbose=0)
    assert sorted(history.local_history) == ["alice", "bob", "carol"]


def test_strict_egress_lets_the_whole_flow_pass(start, tmp_path):
    fed = world(start, egress="strict")
    model = fed.model(dense("adam", run_eagerly=True))
    history = model.fit(fed.x, fed.y, validation_data=(fed.x, fed.y), epochs=2, batch_size=15, verbose=0)
    assert len(history.history["val_accuracy"]) == 2
    model.evaluate(fed.x, fed.y, verbose=0)
    predictions = model.predict(fed.x)
    model.save(tmp_path / "model.keras")
    model.load(tmp_path / "model.keras")
    model.global_model()
    with pytest.raises(EgressDenied):
        sf.reveal(predictions)
    left = sf.ledger().totals()
    assert {kind for (_, _, kind), total in left.items() if total.count} <= PASSING
    assert left["alice", "driver", "raw"].refused == 1
    plain = fed.model(aggregator=PlainAggregator(fed.server, fed.devices))
    with pytest.raises(EgressDenied, match="does not let raw values leave"):
        plain.fit(fed.x, fed.y, verbose=0)


def test_parties_may_keep_their_metrics_to_themselves(start):
    fed = world(start, backend="numpy")
    with pytest.raises(PlanError, match="local_metrics: expected True or False, found 'no'"):
        fed.model(local_metrics="no")
    shown, kept = fed.model(), fed.model(local_metrics=False)
    both = [model.fit(fed.x, fed.y, validation_data=(fed.x, fed.y), batch_size=8, verbose=0) for model in (shown, kept)]
    assert both[0].history == both[1].history
    assert list(both[0].local_history) == ["alice", "bob"]
    assert both[1].local_history == {}
    overall, local = kept.evaluate(fed.x, fed.y, verbose=0)
    assert overall[0].count == 60
    assert local == {}
    before = sf.ledger().totals()["alice", "driver", "metrics"]
    kept.fit(fed.x, fed.y, verbose=0)
    assert sf.ledger().totals()["alice", "driver", "metrics"] == before
