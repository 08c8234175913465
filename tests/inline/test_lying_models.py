# SPDX-License-Identifier: Apache-2.0
"""A server that has the same rows summed over four and over three parties, on models that differ by a millionth.

To whoever remembers models by their hash the second one is another model, on which nothing was summed. The difference
of the two sums is the fourth party's gradient. Nobody looks at the signature under the model here: the party that sends
it may help the server.
"""

from dataclasses import replace

import numpy as np
from inline.federated import gradient, regression, weights_of, world
from inline.lying_server import Lie, lie

from fedray.errors import ProtocolError
from fedray.party.training import model_rounds
from fedray.protocol.turnover import Turnover
from fedray.security.aggregation import SecureAggregator

ROWS, RATE = 12, 0.5
PARTIES = ("alice", "bob", "carol", "dave")


def again_without_dave(sender, session, number, model):
    """Calls the first round off, when all have sent, and says that dave has left."""
    if (session, number) == (1, 0):
        return Lie("left" if sender == "dave" else "renew")
    return Lie("opened", model) if session == 1 else None


def moving(session, model):
    """Hands on a model in the second session that is another one by next to nothing."""
    return replace(model, weights=model.weights + np.float32(1e-6)) if session == 2 else model


def fit(start, monkeypatch):
    """One round over all rows of everybody, and once more; returns what the server has, the weights and dave's rows."""
    fed = world(start, rows=(ROWS,) * 4, backend="numpy")
    aggregator = SecureAggregator(fed.server, fed.devices, on_dropout="abandon")
    model = fed.model(regression(RATE), aggregator=aggregator)
    before = weights_of(model)
    monkeypatch.setattr(model_rounds, "verify", lambda *_: True)
    server = lie(monkeypatch, again_without_dave, moving)
    try:
        model.fit(fed.x, fed.y, batch_size=ROWS, verbose=0)
    except ProtocolError as error:
        return server, before, fed.parts[3], error
    return server, before, fed.parts[3], None


def test_rows_of_a_round_that_was_called_off_are_not_summed_over_fewer(start, monkeypatch):
    server, *_, error = fit(start, monkeypatch)
    assert "these rows were already summed in this pass over" in str(error)
    assert set(server.sent) == {(1, 0)}, "nothing of it left again"


def test_a_party_that_asks_for_the_model_only_shows_another_one_s_gradient(start, monkeypatch):
    """The broken variant: whether the rows of a pass were summed over others is not asked."""
    monkeypatch.setattr(Turnover, "check_rows", lambda *_, **__: None)
    server, before, (x, y), error = fit(start, monkeypatch)
    assert error is None
    everybody, rest = server.opened(1, 0, PARTIES), server.opened(2, 0, PARTIES[:3])
    found = (before[0].ravel() - (4 * everybody - 3 * rest)[:12]) / RATE  # the bias begins at 0 and is cut off
    np.testing.assert_allclose(found, gradient(before, x, y)[0].ravel(), atol=1e-4)
