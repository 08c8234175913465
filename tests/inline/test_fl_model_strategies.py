# SPDX-License-Identifier: Apache-2.0
"""What each strategy makes of the weights, against the same training written out in NumPy and in stock Keras."""

import numpy as np
import pytest
from inline.federated import as_bytes, by_hand, regression, softmax, weights_of, world
from inline.keras_models import X, Y, noisy

from fedray.ml.nn.plan import plan_fit
from fedray.security.aggregation import PlainAggregator, SecureAggregator

pytestmark = pytest.mark.usefixtures("kernels_kept")


def close(model, expected, atol=2e-6):
    for found, wanted in zip(weights_of(model), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=atol)


TEXTBOOK = {"fed_avg_w": {}, "fed_avg_g": {}, "fed_avg_u": {}, "fed_prox": {"mu": 0.7}}


@pytest.mark.parametrize(
    ("strategy", "backend"),
    [
        *((strategy, "numpy") for strategy in TEXTBOOK),
        *(
            pytest.param(strategy, "tensorflow", marks=[pytest.mark.slow] * (strategy != "fed_prox"))
            for strategy in TEXTBOOK
        ),
    ],
)
def test_each_strategy_is_the_textbooks_and_masks_change_no_bit(start, strategy, backend):
    fed, parameters = world(start, rows=(33, 15, 12), backend=backend), TEXTBOOK[strategy]
    builder = softmax() if backend == "tensorflow" else regression()
    finals, epochs = [], 2 if backend == "numpy" else 1
    for aggregator in (SecureAggregator, PlainAggregator):
        summing = aggregator(fed.server, fed.devices)
        model = fed.model(builder, aggregator=summing, strategy=strategy, strategy_parameters=parameters)
        first = weights_of(model)
        model.fit(fed.x, fed.y, epochs=epochs, batch_size=8, aggregate_freq=2, verbose=0)
        hand = by_hand(first, fed.parts, strategy=strategy, **parameters, epochs=epochs, batch_size=8, aggregate_freq=2)
        close(model, hand)
        finals.append(as_bytes(model))
    assert finals[0] == finals[1]


def test_one_round_of_equal_parties_is_the_mean_of_their_weights(start):
    fed = world(start, backend="numpy")
    model = fed.model()
    first = weights_of(model)
    model.fit(fed.x, fed.y, batch_size=30, verbose=0)
    alone = [by_hand(first, [part], batch_size=30) for part in fed.parts]
    close(model, [(a + b) / 2 for a, b in zip(*alone, strict=True)])


def test_averaging_gradients_is_one_step_on_the_joint_batch(start):
    fed = world(start, rows=(40, 20))
    model = fed.model(softmax("adam"), strategy="fed_avg_g")
    stock = model.global_model()
    model.fit(fed.x, fed.y, batch_size=40, epochs=3, verbose=0)
    for _ in range(3):
        stock.train_on_batch(X, Y)
    close(model, stock.get_weights(), atol=1e-5)


def test_prox_pulls_towards_the_global_weights_of_each_round(start):
    fed = world(start, backend="numpy")
    moved = []
    for mu in (0.0, 1.5):
        model = fed.model(strategy="fed_prox", strategy_parameters={"mu": mu})
        first = weights_of(model)
        model.fit(fed.x, fed.y, batch_size=3, aggregate_freq=10, epochs=2, verbose=0)
        close(model, by_hand(first, fed.parts, mu=mu, batch_size=3, aggregate_freq=10, epochs=2))
        moved.append(sum(float(np.sum((a - b) ** 2)) for a, b in zip(weights_of(model), first, strict=True)))
    assert moved[1] < 0.8 * moved[0]


def test_optimizer_state_stays_with_its_party(start):
    """Two stock Keras models with Adam, averaged by hand after every round."""
    fed = world(start)
    model = fed.model(softmax("adam"))
    first = weights_of(model)
    model.fit(fed.x, fed.y, batch_size=10, epochs=2, verbose=0)
    plan = plan_fit({"alice": 30, "bob": 30}, seed=3, batch_size=10, epochs=2)
    locals_ = [softmax("adam")() for _ in fed.parts]
    center = first
    for segment in plan:
        for one in segment.rounds:
            for name, (x, y), local in zip(("alice", "bob"), fed.parts, locals_, strict=True):
                local.set_weights(center)
                for step in plan.sampling.deal(name, 30, segment.epoch)[one.start : one.stop]:
                    for batch in step:
                        local.train_on_batch(x[batch.rows], y[batch.rows])
            center = [np.mean(pair, axis=0) for pair in zip(*(local.get_weights() for local in locals_), strict=True)]
    close(model, center, atol=1e-5)


@pytest.mark.parametrize(
    "strategy",
    ["fed_avg_w", "fed_avg_g", *(pytest.param(one, marks=pytest.mark.slow) for one in ("fed_avg_u", "fed_prox"))],
)
def test_statistics_of_batch_normalisation_are_averaged(start, strategy):
    fed = world(start, rows=(40, 20))
    model = fed.model(lambda: noisy(run_eagerly=True), strategy=strategy)
    kernel, bias = model.global_model().layers[0].get_weights()
    model.fit(fed.x, fed.y, batch_size=40, epochs=1, verbose=0)
    stock = model.global_model()
    layer = stock.layers[1]
    means = [(x @ kernel + bias).mean(axis=0) for x, _ in fed.parts]
    expected = 0.01 * (40 * means[0] + 20 * means[1]) / 60  # the moving mean starts at 0, momentum is 0.99
    np.testing.assert_allclose(layer.moving_mean.numpy(), expected, atol=1e-6)
    assert np.isfinite(model.evaluate(fed.x, fed.y, verbose=0)[0][0].total)
