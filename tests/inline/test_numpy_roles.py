# SPDX-License-Identifier: Apache-2.0
"""Tensors that stay in their party, in whole runs with the NumPy backend, against the same training by hand."""

import logging
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from inline.federated import PARTIES, gradient, world
from inline.keras_models import CLASS, X, Y

import fedray as sf
from fedray.errors import DataError, PlanError
from fedray.ml.nn.numpy import SoftmaxRegression
from fedray.ml.nn.plan import plan_fit
from fedray.party.records import Answer
from fedray.party.rounds.contributor import Contributor
from fedray.strategies import STRATEGIES

RATE = 0.5
ROWS = (20, 40)
MU = 0.3


def softmax():
    return SoftmaxRegression(4, 3, learning_rate=RATE, dtype="float64")


@pytest.fixture
def fed(start):
    return world(start, rows=ROWS, y=CLASS)


def fit(model, fed, **arguments):
    return model.fit(fed.x, fed.y, **({"epochs": 2, "batch_size": 10, "aggregate_freq": 2, "verbose": 0} | arguments))


def own_arrays(model, fed, folder):
    """Each party's own kernel and bias, from the files that the parties write."""
    found = []
    for device in fed.devices:
        model.save(folder / f"{device.name}.npz", party=device)
        with np.load(folder / f"{device.name}.npz") as file:
            found.append([file["kernel"], file["bias"]])
    return found


def by_hand(weights, strategy, kept, mu=0.0, seed=3, **planned):
    """The same training in float64: returns every party's kernel and bias, of which `kept` was never averaged."""
    sizes = dict(zip(PARTIES, ROWS, strict=False))
    parts = [(X[a:b].astype(np.float64), Y[a:b]) for a, b in pairwise(np.cumsum([0, *ROWS]))]
    own = [[w.copy() for w in weights] for _ in parts]
    plan = plan_fit(sizes, seed=seed, alone=True, **planned)
    first, second = 0.0, 0.001**2  # the server's moments, for fed_adam
    for segment in plan:
        dealt = [plan.sampling.deal(name, rows, segment.epoch) for name, rows in sizes.items()]
        for one in segment.rounds:
            sums, total = 0.0, 0
            for local, (x, y), steps in zip(own, parts, dealt, strict=True):
                batches = [batch.rows for step in steps[one.start : one.stop] for batch in step]
                anchor, count = local[1 - kept].copy(), sum(map(len, batches))
                for batch in [np.concatenate(batches)] if strategy == "fed_avg_g" else batches:
                    steps_of = gradient(local, x[batch], y[batch])
                    steps_of[1 - kept] = steps_of[1 - kept] + mu * (local[1 - kept] - anchor)
                    for place in (0, 1):
                        local[place] = local[place] - RATE * steps_of[place]
                sums, total = sums + count * local[1 - kept], total + count
            mean = sums / total
            if strategy == "fed_adam":
                first, second = 0.9 * first + 0.1 * (mean - anchor), 0.99 * second + 0.01 * (mean - anchor) ** 2
                mean = anchor + 0.01 * first / (np.sqrt(second) + 0.001)
            for local in own:
                local[1 - kept] = mean
    return own


@pytest.mark.parametrize("kept", ["kernel", "bias"])
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_sums_what_is_shared_and_trains_the_rest_at_home(fed, strategy, kept, tmp_path):
    mu = {"mu": MU} if strategy == "fed_prox" else {}
    model = fed.model(softmax, backend="numpy", strategy=strategy, strategy_parameters=mu, local=[kept])
    start = own_arrays(model, fed, tmp_path)
    assert [a.tolist() for a in start[0]] == [a.tolist() for a in start[1]], "everybody starts with the same"
    fit(model, fed)
    place = ("kernel", "bias").index(kept)
    expected = by_hand(start[0], strategy, place, batch_size=10, epochs=2, aggregate_freq=2, **mu)
    found = own_arrays(model, fed, tmp_path)
    for theirs, hand in zip(found, expected, strict=True):
        for array, wanted in zip(theirs, hand, strict=True):
            np.testing.assert_allclose(array, wanted, atol=1e-7)
    assert found[0][1 - place].tolist() == found[1][1 - place].tolist()
    assert np.abs(found[0][place] - found[1][place]).max() > 1e-3


def test_evaluate_and_predict_use_each_partys_own(fed, tmp_path):
    model = fed.model(softmax, backend="numpy", local=["bias"])
    fit(model, fed)
    overall, local = model.evaluate(fed.x, fed.y, verbose=0)
    predictions = sf.reveal(model.predict(fed.x))
    total = 0.0
    for device, (kernel, bias), (x, y) in zip(fed.devices, own_arrays(model, fed, tmp_path), fed.parts, strict=True):
        powers = np.exp(x @ kernel + bias)
        wanted = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(predictions[device], wanted, rtol=1e-6)
        losses = -np.log(wanted[np.arange(len(y)), y])
        assert float(local[device.name][0]) == pytest.approx(losses.mean(), rel=1e-6)
        total += losses.sum()
    assert float(overall[0]) == pytest.approx(total / 60, rel=1e-6), "the joint loss is the sum of the parties' own"


def test_local_tensors_live_on_from_fit_to_fit_and_over_sessions(fed, tmp_path):
    twice, once = (fed.model(softmax, backend="numpy", local=["bias"]) for _ in range(2))
    for size in (15, 15):
        fit(twice, fed, epochs=1, shuffle=False, batch_size=size)
        for _ in range(12):  # more than one session allows
            twice.evaluate(fed.x, fed.y, verbose=0)
    fit(once, fed, epochs=2, shuffle=False, batch_size=15)
    for found, wanted in zip(own_arrays(twice, fed, tmp_path), own_arrays(once, fed, tmp_path), strict=True):
        assert [a.tolist() for a in found] == [a.tolist() for a in wanted]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_round_that_is_abandoned_leaves_no_trace_in_what_is_kept(start, strategy, tmp_path, monkeypatch):
    """Two rounds of the second epoch are spoilt after training; at their end the parties' own tensors are as before."""
    fed = world(start, rows=(30, 30), y=CLASS)
    model = fed.model(softmax, backend="numpy", strategy=strategy, local=["bias"])
    fit(model, fed, epochs=1, batch_size=10, aggregate_freq=1)
    before = own_arrays(model, fed, tmp_path)
    exchange = Contributor.exchange

    def spoiling(self, call, context, contribution):
        return Answer("abandoned") if context.purpose == "train" else exchange(self, call, context, contribution)

    monkeypatch.setattr(Contributor, "exchange", spoiling)
    fit(model, fed, epochs=1, batch_size=10, aggregate_freq=1)
    after = own_arrays(model, fed, tmp_path)
    assert [[a.tolist() for a in party] for party in after] == [[a.tolist() for a in party] for party in before]
    monkeypatch.undo()
    fit(model, fed, epochs=1, batch_size=10, aggregate_freq=1)
    assert own_arrays(model, fed, tmp_path)[0][1].tolist() != before[0][1].tolist()


def sent():
    """How many messages of each kind and size have left the parties."""
    return Counter((row.entry.kind, row.entry.nbytes) for row in sf.ledger().rows)


def largest(messages):
    """Bytes of the largest message of a round, and of a published model."""
    return [max(size for kind, size in messages if kind == wanted) for wanted in ("masked", "initial")]


def test_what_is_kept_is_in_no_message(fed, tmp_path):
    """Rounds are smaller by the twelve words of the kernel and its two counts; files hold the built one."""
    fit(fed.model(softmax, backend="numpy"), fed)
    whole = sent()
    model = fed.model(softmax, backend="numpy", local=["kernel"])
    fit(model, fed)
    assert np.subtract(largest(whole), largest(sent() - whole)).tolist() == [14 * 8, 12 * 8]
    built = model.global_model()
    model.save(tmp_path / "model.npz")
    kernels = [kernel for kernel, _ in own_arrays(model, fed, tmp_path)]
    with np.load(tmp_path / "model.npz") as file:
        for kernel in (built.kernel, file["kernel"]):
            assert all(np.abs(kernel - theirs).max() > 1e-3 for theirs in kernels)
        assert file["bias"].tolist() == built.bias.tolist()


def test_a_partys_own_file_is_no_message(fed, tmp_path):
    model = fed.model(softmax, backend="numpy", local=["kernel"])
    fit(model, fed)
    before = sf.ledger().totals()
    model.save(tmp_path / "alice.npz", party=fed.devices[0])
    model.load(tmp_path / "alice.npz", party=fed.devices[0])
    after = sf.ledger().totals()
    assert {way: size for way, size in after.items() if before.get(way) != size and way[2] != "ledger"} == {}


def test_the_global_model_says_once_what_it_does_not_hold(fed, tmp_path, caplog):
    model = fed.model(softmax, backend="numpy", local=["bias"])
    with caplog.at_level(logging.WARNING, "fedray"):
        model.global_model()
        model.save(tmp_path / "model.npz")
        model.save(tmp_path / "alice.npz", party=fed.devices[0])
    assert len(caplog.records) == 1
    assert "global_model: the parties keep these tensors, and the global model has them as they were built: bias. " in (
        caplog.text
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING, "fedray"):
        fed.model(softmax, backend="numpy").global_model()
    assert not caplog.records


def test_a_partys_own_file_brings_its_tensors_back(fed, tmp_path):
    alice, bob = fed.devices
    model = fed.model(softmax, backend="numpy", local=["bias"])
    fit(model, fed)
    before = own_arrays(model, fed, tmp_path)
    model.save(tmp_path / "model.npz")
    other = fed.model(softmax, backend="numpy", local=["bias"], random_seed=8)
    fit(other, fed)
    other.load(tmp_path / "model.npz")
    found = own_arrays(other, fed, tmp_path / "..")
    assert found[0][0].tolist() == before[0][0].tolist()
    assert found[0][1].tolist() != before[0][1].tolist()
    for device in (alice, bob):
        other.load(tmp_path / f"{device.name}.npz", party=device)
    found = own_arrays(other, fed, tmp_path / "..")
    assert [[a.tolist() for a in party] for party in found] == [[a.tolist() for a in party] for party in before]


def test_files_of_a_party_that_cannot_be(fed, tmp_path):
    alice = fed.devices[0]
    model = fed.model(softmax, backend="numpy", local=["bias"])
    with pytest.raises(PlanError, match=r"party: expected the PYU of one of the model's parties \(alice, bob\), found"):
        model.save(tmp_path / "m.npz", party=fed.server)
    with pytest.raises(PlanError, match=r"party: expected the PYU .*found 'alice'"):
        model.load(tmp_path / "m.npz", party="alice")
    with pytest.raises(PlanError, match=r"path: expected a name that ends in \.npz"):
        model.save(tmp_path / "m.keras", party=alice)
    with pytest.raises(PlanError, match=r"party 'alice': path: '.*nowhere/m.npz' cannot be written where this party's"):
        model.save(tmp_path / "nowhere" / "m.npz", party=alice)
    with pytest.raises(PlanError, match=r"party 'alice': load: '.*m.npz' cannot be read where this party's process"):
        model.load(tmp_path / "m.npz", party=alice)
    (tmp_path / "m.npz").write_bytes(b"no model")
    with pytest.raises(DataError, match="party 'alice': the file does not hold the weights of this model"):
        model.load(tmp_path / "m.npz", party=alice)


def test_patterns_that_cannot_work(fed):
    with pytest.raises(PlanError, match=r"local: expected a list of patterns, found one text; write local=\['bias'\]"):
        fed.model(softmax, backend="numpy", local="bias")
    with pytest.raises(PlanError, match=r"party '(alice|bob)': local: pattern 'bais' matches none .* mean 'bias'\?"):
        fed.model(softmax, backend="numpy", local=["bais"])
    with pytest.raises(PlanError, match="nothing is left to sum"):
        fed.model(softmax, backend="numpy", local=["kernel", "b*"])
