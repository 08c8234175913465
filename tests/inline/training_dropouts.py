# SPDX-License-Identifier: Apache-2.0
"""Training from which parties drop out, and the same training by hand."""

import numpy as np
from inline.federated import RATE, gradient, weights_of, world

from fedray.ml.nn.plan import plan_fit
from fedray.security.aggregation import SecureAggregator

ROWS, BATCH, EPOCHS, ROUNDS = 12, 4, 2, 3
"""Rows of a party, rows of a batch, epochs, rounds of an epoch."""

PATIENCE = 60.0
"""Deadline of a round that nobody may come near, seconds."""


def by_hand(weights, parts, members):
    """Returns the weights after rounds over `members[k]`, a collection of names; an empty one is a void round."""
    names = [name for name in ("alice", "bob", "carol", "dave", "erin") if name in parts]
    plan = plan_fit(dict.fromkeys(names, ROWS), seed=3, batch_size=BATCH, epochs=EPOCHS)
    center, rounds = [np.asarray(w, np.float64) for w in weights], iter(members)
    for epoch in range(EPOCHS):
        dealt = {name: plan.sampling.deal(name, ROWS, epoch) for name in names}
        for step in range(ROUNDS):
            locals_ = []
            for name in next(rounds):
                x, y = parts[name]
                (batch,) = dealt[name][step]
                grads = gradient(center, x[batch.rows], y[batch.rows])
                locals_.append([w - RATE * g for w, g in zip(center, grads, strict=True)])
            center = [np.mean(ws, axis=0) for ws in zip(*locals_, strict=True)] if locals_ else center
    return center


def federated(start, mode, count=4, **settings):
    fed = world(start, rows=(ROWS,) * count, backend="numpy", **settings)
    aggregator = SecureAggregator(fed.server, fed.devices, on_dropout=mode, round_timeout=PATIENCE)
    return fed, fed.model(aggregator=aggregator)


def fit(fed, model, verbose=0, **more):
    return model.fit(fed.x, fed.y, batch_size=BATCH, epochs=EPOCHS, verbose=verbose, random_seed=3, **more)


def matches(fed, model, first, members):
    parts = dict(zip([device.name for device in fed.devices], fed.parts, strict=True))
    for found, expected in zip(weights_of(model), by_hand(first, parts, members), strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-6)
