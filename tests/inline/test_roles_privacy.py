# SPDX-License-Identifier: Apache-2.0
"""Tensors that stay in their party are in no message: not masked, not published, not in a file, not in an answer.

A spy keeps each party's own kernel as training leaves it, and every payload that travels; then the one is looked for in
the other.
"""

import pytest
from inline.federated import world
from inline.keras_models import CLASS
from inline.test_fl_model_privacy import Spy

from fedray.backends.numpy.model import NumpyBackend
from fedray.ml.nn.numpy import SoftmaxRegression
from fedray.runtime import inline
from fedray.security.aggregation import PlainAggregator
from fedray.strategies import STRATEGIES


@pytest.fixture
def spy(monkeypatch):
    spy = Spy()
    boxed = inline._Box.of.__func__

    def watched(method):
        def call(self, *arguments):
            answer = method(self, *arguments)
            spy.keep(self.snapshot()["own"])
            return answer

        return call

    def watched_box(cls, value):
        box = boxed(cls, value)
        spy.travelled += [box.head, *box.buffers]
        return box

    for name in ("train", "apply_gradient"):
        monkeypatch.setattr(NumpyBackend, name, watched(getattr(NumpyBackend, name)))
    monkeypatch.setattr(inline._Box, "of", classmethod(watched_box))
    return spy


def run(start, strategy, folder):
    """All that a user may ask of a model, under the aggregator that hides nothing."""
    fed = world(start, rows=(20, 20, 20), y=CLASS)
    model = fed.model(
        lambda: SoftmaxRegression(4, 3, learning_rate=0.1, momentum=0.5),
        backend="numpy",
        strategy=strategy,
        aggregator=PlainAggregator(fed.server, fed.devices),
        local=["kernel"],
    )
    for _ in range(2):
        model.fit(fed.x, fed.y, validation_data=(fed.x, fed.y), batch_size=5, aggregate_freq=2, verbose=0)
    model.evaluate(fed.x, fed.y, verbose=0)
    model.predict(fed.x)
    for device in fed.devices:
        model.save(folder / f"{device.name}.npz", party=device)
        model.load(folder / f"{device.name}.npz", party=device)
    model.save(folder / "model.npz")
    model.load(folder / "model.npz")
    model.global_model()


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_what_is_local_never_travels(start, spy, strategy, tmp_path):
    run(start, strategy, tmp_path)
    assert len(set(spy.needles())) >= 12
    assert spy.found(spy.travelled) == 0
    assert spy.found([(tmp_path / "model.npz").read_bytes()]) == 0
    own = [(tmp_path / f"{name}.npz").read_bytes() for name in ("alice", "bob", "carol")]
    assert spy.found(own) == 3, "the spy knows them where they are"


def test_a_file_with_a_partys_own_that_travels_would_be_seen(start, spy, monkeypatch, tmp_path):
    """A broken variant: the global model is saved as it stands in the party that is asked."""
    monkeypatch.setattr(NumpyBackend, "_as_built", lambda self: self._words.tensors(self._all))
    run(start, "fed_avg_w", tmp_path)
    assert spy.found(spy.travelled) > 0
    assert spy.found([(tmp_path / "model.npz").read_bytes()]) == 1
