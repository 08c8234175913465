# SPDX-License-Identifier: Apache-2.0
"""A server that hands round weights at the very bound of their tensor: whoever steps beyond it must not be seen to.

A party that refuses to send what is out of range says which way its gradient points.
"""

from dataclasses import replace

import numpy as np
import pytest
from inline.federated import PARTIES, world
from inline.lying_server import Lie, lie

from fedray.errors import FedRayError
from fedray.ml.nn.numpy import LinearRegression
from fedray.party.training import trainer
from fedray.security.aggregation import SecureAggregator

UP, DOWN = ("alice", "carol"), ("bob", "dave")
"""Whose gradient makes the weight larger, and whose smaller."""


def at_the_bound(_, model):
    """One weight of exactly 1, where nothing may be larger."""
    return replace(model, weights=np.array([1.0, 0.0], np.float32), reaches=(0, 0))


def senders(start, monkeypatch):
    """Returns whose messages the server was sent in a round after which it ends the run."""
    x = np.ones((16, 1), np.float32)
    y = np.repeat([3.0 if name in UP else -3.0 for name in PARTIES[:4]], 4)
    fed = world(start, rows=(4,) * 4, backend="numpy", x=x, y=y)
    aggregator = SecureAggregator(fed.server, fed.devices, on_dropout="abandon")
    model = fed.model(lambda: LinearRegression(1, learning_rate=0.1), aggregator=aggregator)
    server = lie(monkeypatch, lambda *_: Lie("aborted"), at_the_bound)
    with pytest.raises(FedRayError):
        model.fit(fed.x, fed.y, batch_size=2, verbose=0)
    return set(server.sent.get((1, 0), ()))


def test_whoever_steps_beyond_a_bound_sends_like_everybody_else(start, monkeypatch):
    assert senders(start, monkeypatch) == {*UP, *DOWN}


def test_a_party_that_refuses_shows_which_way_its_gradient_points(start, monkeypatch):
    """The broken variant: what is beyond a bound is refused, not cut off and counted under the mask."""
    counted = trainer.train_manifest
    monkeypatch.setattr(trainer, "train_manifest", lambda *given: replace(counted(*given), counted=False))
    assert senders(start, monkeypatch) == set(DOWN)
