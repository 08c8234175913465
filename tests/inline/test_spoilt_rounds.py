# SPDX-License-Identifier: Apache-2.0
"""A round that is not opened leaves no trace in a party: optimizer, statistics and random state are as before it."""

import numpy as np
import pytest
from inline.federated import world
from inline.keras_models import noisy

from fedray.backends.keras.model import KerasBackend
from fedray.party.records import Answer
from fedray.party.rounds.contributor import Contributor
from fedray.party.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("kernels_kept")

SPOILT = (2, 3)


@pytest.fixture
def states(monkeypatch):
    """Spoils two rounds after their training; returns alice's local state at the start of each training, as bytes."""
    seen: list[tuple[bytes, ...]] = []
    train, exchange, build = KerasBackend.train, Contributor.exchange, Trainer.__init__

    def watched(self, *arguments):
        if getattr(self, "of_alice", False):
            seen.append(tuple(np.asarray(value).tobytes() for value in self.snapshot()["variables"]))
        return train(self, *arguments)

    def spoiling(self, call, context, contribution):
        if context.purpose == "train" and context.number in SPOILT:
            return Answer("abandoned")
        return exchange(self, call, context, contribution)

    def marked(self, context, *arguments):
        build(self, context, *arguments)
        self._model.backend.of_alice = context.name == "alice"

    monkeypatch.setattr(KerasBackend, "train", watched)
    monkeypatch.setattr(Contributor, "exchange", spoiling)
    monkeypatch.setattr(Trainer, "__init__", marked)
    return seen


def fit(start):
    fed = world(start, rows=(60, 60))
    fed.model(lambda: noisy(run_eagerly=True)).fit(fed.x, fed.y, batch_size=10, verbose=0)


def test_spoilt_rounds_leave_no_trace(start, states):
    fit(start)
    assert len(states) == 6
    assert states[2] == states[3] == states[4]
    assert len(set(states)) == 4


def test_a_state_taken_too_late_would_be_found(start, states, monkeypatch):
    """A broken variant: what the training of a round that was not opened left behind serves the next one."""
    update = Trainer._update

    def sticky(self, segment, batches):
        updated, left = update(self, segment, batches), segment.local
        restore = self._model.backend.restore
        self._model.backend.restore = lambda snapshot: (restore(snapshot), setattr(segment, "local", left))
        return updated

    monkeypatch.setattr(Trainer, "_update", sticky)
    fit(start)
    assert states[4] != states[2]
