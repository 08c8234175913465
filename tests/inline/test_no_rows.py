# SPDX-License-Identifier: Apache-2.0
"""A party without rows has no metrics of its own: a loss of 0.0 would be the best of all."""

import numpy as np
import pytest
from inline.federated import world

from fedray.data.ndarray import FedNdarray


@pytest.fixture
def without(start):
    """Three parties with rows, of which carol has none in what is evaluated."""
    fed = world(start, rows=(20, 20, 20), backend="numpy")
    return fed, fed.x[:40], fed.y[:40]


def test_whoever_has_no_rows_to_evaluate_has_no_metrics(without):
    fed, x, y = without
    assert isinstance(x, FedNdarray)
    model = fed.model()
    overall, local = model.evaluate(x, y, verbose=0)
    assert set(local) == {"alice", "bob"}
    numbers, own = model.evaluate(x, y, verbose=0, return_dict=True)
    assert set(own) == {"alice", "bob"}
    assert numbers["loss"] == pytest.approx(np.mean([own[party]["loss"] for party in own]))
    assert overall[0].count == 40


def test_whoever_trains_or_validates_on_no_rows_is_in_no_local_history(without):
    fed, x, y = without
    history = fed.model().fit(fed.x, fed.y, validation_data=(x, y), epochs=2, batch_size=10, verbose=0)
    assert {party: sorted(lists) for party, lists in history.local_history.items()} == {
        "alice": ["accuracy", "loss", "val_accuracy", "val_loss"],
        "bob": ["accuracy", "loss", "val_accuracy", "val_loss"],
        "carol": ["accuracy", "loss"],
    }
    assert set(fed.model().fit(x, y, batch_size=10, verbose=0).local_history) == {"alice", "bob"}
