# SPDX-License-Identifier: Apache-2.0
"""A round that was "opened" without a quorum leaves no optimizer state, also where the optimizer moves with the model.

Scheme recovery, and gradients: every party applies the mean to its own optimizer. The server has an ally.
"""

from dataclasses import replace

import numpy as np
import pytest
from inline.federated import regression, world

from fedray.party.context import Reply
from fedray.party.records import Answer, RoundMessage
from fedray.party.rounds.server import RoundServer
from fedray.party.training.trainer import Trainer
from fedray.protocol.checks.judge import Judge
from fedray.security.aggregation import SecureAggregator

LIE = 1
"""The round of which the server lies."""


@pytest.fixture
def velocity(monkeypatch):
    """Lets the server lie; returns everybody's velocity after each round."""
    monkeypatch.setattr(Judge, "verify", lambda *_, **__: None)
    deliver, take_round, found, sums = RoundServer.deliver, Trainer._round, {}, []

    def lying(self, sender, message):
        if isinstance(message, RoundMessage) and message.number == LIE:
            return Reply(sums[-1][0], Answer("opened", replace(sums[-1][1])))
        reply = deliver(self, sender, message)
        if isinstance(message, RoundMessage) and reply.value.opened:
            sums.append((reply.kind, reply.value.opened))
        return reply

    def watched(self, segment, report):
        number = segment.order.number + segment.done
        ended = take_round(self, segment, report)
        found[self._context.name, number] = np.array(self._model.backend.snapshot()["velocity"])
        return ended

    monkeypatch.setattr(RoundServer, "deliver", lying)
    monkeypatch.setattr(Trainer, "_round", watched)
    return found


def test_where_gradients_are_summed_a_round_without_a_quorum_leaves_the_velocity_as_it_was(start, velocity):
    fed = world(start, rows=(20, 20, 20, 20), backend="numpy")
    aggregator = SecureAggregator(fed.server, fed.devices, on_dropout="recover")
    model = fed.model(regression(momentum=0.9), aggregator=aggregator, strategy="fed_avg_g")
    model.fit(fed.x, fed.y, batch_size=5, verbose=0)
    for name in ("alice", "bob", "carol", "dave"):
        before, after, later = (velocity[name, number] for number in (LIE - 1, LIE, LIE + 1))
        assert before.any()
        assert np.array_equal(after, before)
        assert not np.array_equal(later, after)
