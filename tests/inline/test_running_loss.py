# SPDX-License-Identifier: Apache-2.0
"""The loss behind the bar while an epoch is under way: what it says, what it costs the promises, who sees it."""

import threading

import numpy as np
import pytest
from inline.federated import regression, world

import fedray as sf
from fedray.ml.nn.progress import EpochBar
from fedray.ml.nn.running import RunningLoss
from fedray.party.door.entry import Total
from fedray.party.rounds import server
from fedray.party.training.so_far import SoFar

ROWS, BATCH = 300, 30


@pytest.fixture
def watched(monkeypatch):
    """Holds every round up until the driver has asked and been answered, whatever time it is; returns what it saw."""
    seen, looked = [], threading.Event()
    look, note = RunningLoss.look, SoFar.note

    def seeing(running):
        running._next = 0.0
        look(running)
        running._session.wait(list(running._asked.values()), 20.0)
        seen.append(look(running))
        looked.set()
        return seen[-1]

    def held_up(so_far, *args):
        note(so_far, *args)
        looked.clear()
        looked.wait(20.0)

    monkeypatch.setattr(RunningLoss, "look", seeing)
    monkeypatch.setattr(SoFar, "note", held_up)
    monkeypatch.setattr(server, "WATCH_SECONDS", 0.002)
    return seen


def trained(start, *, verbose=1, local_metrics=True, fit=None, **settings):
    # All rows are alike and the rate is next to nothing, so that the loss over any of them is the loss over all.
    one = world(start, (ROWS, ROWS), x=np.ones((1, 4)), y=np.eye(3)[:1], backend="numpy", **settings)
    model = one.model(regression(rate=1e-9), local_metrics=local_metrics)
    history = model.fit(one.x, one.y, batch_size=BATCH, verbose=verbose, **(fit or {}))
    told = sf.ledger().totals().get(("alice", "driver", "metrics"), Total()).count
    return history, model.get_weights(), told


def running(told):
    return [loss for loss in told if loss is not None]


def test_the_bar_shows_the_loss_so_far_and_the_run_is_the_same_bit_by_bit(start, watched, monkeypatch):
    shown = []
    monkeypatch.setattr(EpochBar, "running", lambda _, logs: shown.append(logs["loss"]))
    history, weights, told = trained(start)
    assert running(watched)
    assert running(watched) == pytest.approx([history.global_history["loss"][0]] * len(running(watched)))
    assert shown == running(watched)
    assert 1 < told <= ROWS // 100  # the report at the end, and no more than once in a hundred rows before it
    sf.shutdown()
    monkeypatch.undo()
    monkeypatch.setattr(RunningLoss, "look", None)  # without a bar nobody asks
    plain, same, reported = trained(start, verbose=0)
    assert reported == 1
    assert plain.global_history == history.global_history
    assert all(np.array_equal(one, other) for one, other in zip(weights, same, strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {"egress": "strict"},
        {"local_metrics": False},
        {"fit": {"class_weight": {0: 1.0, 1: 0.0, 2: 0.0}}},  # of a hundred rows one may count
        {"fit": {"sampler_method": "poisson"}},  # of a hundred rows each may be the same
    ],
    ids=str,
)
def test_parties_that_are_to_keep_it_tell_nothing_on_the_way(start, watched, settings):
    history, _, told = trained(start, **settings)
    assert watched
    assert not running(watched)
    assert told == settings.get("local_metrics", 1)  # the report, where there is one
    assert history.global_history["loss"][0] > 0
