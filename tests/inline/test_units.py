# SPDX-License-Identifier: Apache-2.0
"""Training in any unit: raw prices, volts of an EEG, metres and nanometres come to the same model."""

import numpy as np
import pytest
from inline.dropouts import PATCHED, ending, lets_end
from inline.federated import as_bytes, weights_of, world

import fedray as sf
from fedray.party.rounds.share_owner import ShareOwner
from fedray.party.training.local_model import LocalModel
from fedray.protocol.scales import Scales
from fedray.security.aggregation import PlainAggregator, SecureAggregator, SPUAggregator
from fedray.strategies import STRATEGIES
from fedray.utils.testing import cluster_def

RNG = np.random.default_rng(5)
X = RNG.normal(size=(64, 2))
Y = X @ [3.0, -2.0] + 5.0 + 0.1 * RNG.normal(size=64)
ROWS = (16, 24, 8, 16)
RATE = 0.1

AGGREGATORS = {
    "plain": lambda fed: PlainAggregator(fed.server, fed.devices),
    "abandon": lambda fed: SecureAggregator(fed.server, fed.devices, on_dropout="abandon"),
    "recover": lambda fed: SecureAggregator(fed.server, fed.devices, on_dropout="recover"),
    "shares": lambda fed: SPUAggregator(sf.SPU(cluster_def(["alice", "server"]))),  # noqa: ARG005
}


def linear():
    from fedray.ml.nn.numpy import LinearRegression

    return LinearRegression(2, 1, learning_rate=RATE)


def trained(start, unit=1.0, aggregator="plain", strategy="fed_avg_w", *, scaled=True, epochs=2, rows=ROWS):
    """Returns the weights of a model of targets in a unit, their bits, and how many rounds repeated another one.

    Args:
        start: The fixture.
        unit: What the targets are multiplied by, and the weights and the server's steps with them.
        aggregator: Key of the table above.
        strategy: Its name.
        scaled: Whether the model begins in the unit, too; otherwise it begins as it was built, near 1.
        epochs: How many.
        rows: Rows of every party.
    """
    fed = world(start, rows, x=X, y=Y * unit, backend="numpy")
    # Adam's steps are in the weights' unit, as its settings say; all other strategies move with the gradient.
    adam = {"server_learning_rate": unit, "tau": unit / 8} if strategy == "fed_adam" else {}
    summing = AGGREGATORS[aggregator](fed)
    model = fed.model(linear, aggregator=summing, strategy=strategy, strategy_parameters=adam)
    if scaled:
        model._federation.set_arrays([array * unit for array in model._federation.arrays()])
    model.fit(fed.x, fed.y, epochs=epochs, batch_size=8, verbose=0)
    found = weights_of(model), as_bytes(model), model._federation._sums.repeats
    sf.shutdown()
    return found


@pytest.fixture(scope="module")
def in_ones():
    """Returns what a strategy makes of targets near 1; each is trained once for all tests."""
    known = {}

    def look_up(start, strategy):
        if strategy not in known:
            known[strategy] = trained(start, strategy=strategy)
        return known[strategy]

    return look_up


PRICES, NANO, LARGEST, SMALLEST = 2.0**20, 2.0**-30, 2.0**50, 2.0**-50
UNITS = {"prices": PRICES, "nano": NANO, "largest": LARGEST, "smallest": SMALLEST}
CASES = [
    pytest.param(
        strategy, aggregator, unit, marks=() if usual else pytest.mark.slow, id=f"{strategy}-{aggregator}-{unit}"
    )
    for s, strategy in enumerate(STRATEGIES)
    for a, aggregator in enumerate(AGGREGATORS)
    for u, unit in enumerate(UNITS)
    for usual in [u == (s + a) % 4 and a == s % 4]  # each strategy, one way to sum, one unit
]


@pytest.mark.parametrize(("strategy", "aggregator", "unit"), CASES)
def test_the_unit_of_the_targets_changes_no_bit_but_the_exponents(start, in_ones, strategy, aggregator, unit):
    """All numbers of a training are multiplied by a power of two: so are its weights, whoever sums them, exactly."""
    expected, _, repeats = in_ones(start, strategy)
    found, _, others = trained(start, UNITS[unit], aggregator, strategy)
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(np.ldexp(other, -int(np.log2(UNITS[unit]))), one)
    assert repeats == others


@pytest.mark.parametrize(
    ("strategy", "unit"),
    [
        ("fed_avg_u", 1e6),
        ("fed_avg_g", 1e-9),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("fed_avg_u", 1e-9), ("fed_avg_g", 1e6))),
    ],
)
def test_a_model_that_begins_in_another_unit_repeats_its_first_rounds_and_no_others(start, strategy, unit):
    _, _, repeats = trained(start, unit, strategy=strategy, scaled=False, epochs=1)
    further, _, later = trained(start, unit, strategy=strategy, scaled=False, epochs=5)
    assert repeats == later <= 2
    if unit > 1:  # where it is below, the first weights are what takes time to go
        wanted, _, _ = trained(start, strategy=strategy, epochs=5)
        for one, other in zip(wanted, further, strict=True):
            np.testing.assert_allclose(other / unit, one, atol=0.5)


@pytest.mark.parametrize("aggregator", ["abandon", *(pytest.param(a, marks=pytest.mark.slow) for a in AGGREGATORS)])
def test_raw_prices_are_trained_as_well_as_any(start, aggregator):
    """Gradients of 10^6 beside weights of 1, and a bias that begins at zero: what used to be refused."""
    weights, _, repeats = trained(start, 1e6, aggregator, "fed_avg_g", scaled=False, epochs=12)
    np.testing.assert_allclose(np.concatenate(weights, axis=None) / 1e6, [3.0, -2.0, 5.0], atol=0.1)
    assert repeats == 1


def ends_before_a_repeat(monkeypatch):
    """Lets bob end where he is asked for his shares once more."""
    exchange = ShareOwner.exchange

    def ending_there(self, call, context, contribution):
        if context.repeats is not None and self._context.name == "bob":
            ending("bob")()
        return exchange(self, call, context, contribution)

    monkeypatch.setattr(ShareOwner, "exchange", ending_there)


@pytest.mark.parametrize("mode", ["recover", "shares", pytest.param("abandon", marks=pytest.mark.slow)])
def test_a_party_that_ends_before_a_repeat_costs_that_round_and_no_more(start, monkeypatch, mode):
    """The others' inputs are not summed again without it; they go on with their next rows."""
    for cls, name in PATCHED:
        monkeypatch.setattr(cls, name, getattr(cls, name))
    fed = world(start, ROWS, x=X, y=Y * 1e6, backend="numpy")
    model = fed.model(linear, aggregator=AGGREGATORS[mode](fed), strategy="fed_avg_g")
    if mode == "shares":
        ends_before_a_repeat(monkeypatch)
    else:
        lets_end(fed.devices[1], fed.server, "before its input leaves", number=1)
    history = model.fit(fed.x, fed.y, epochs=10, batch_size=8, verbose=0)
    (dropout,) = history.dropouts
    assert (dropout.round, dropout.party, dropout.abandoned) == (int(mode == "shares"), "bob", mode != "shares")
    assert model._federation._sums.repeats <= 2
    np.testing.assert_allclose(np.concatenate(weights_of(model), axis=None) / 1e6, [3.0, -2.0, 5.0], atol=0.5)


def test_however_often_rounds_are_repeated_numbers_run_on_and_nothing_changes(start, monkeypatch):
    """Every round is held four times: more often than there are parties, whose number of spare ones is planned for."""
    usual, after = trained(start, epochs=1), Scales.after

    def again(self, manifest, extents, room):
        return after(self, manifest, extents, room) if self.repeats == 3 else Scales(self.reaches, (), self.repeats + 1)

    monkeypatch.setattr(Scales, "after", again)
    for aggregator in AGGREGATORS:
        _, bits, repeats = trained(start, aggregator=aggregator, epochs=1)
        assert bits == usual[1]
        assert repeats == 3 * 3


def test_a_party_that_comes_without_a_past_is_handed_the_reaches_with_the_model(start, monkeypatch):
    adopt = LocalModel.adopt

    def forgetful(self, values, known=()):
        if self.party == "bob":
            self.reaches = ()
        adopt(self, values, known)

    fed = world(start, ROWS, x=X, y=Y * 1e6, backend="numpy")
    model = fed.model(linear, strategy="fed_avg_g")
    model.fit(fed.x, fed.y, epochs=1, batch_size=8, verbose=0)
    monkeypatch.setattr(LocalModel, "adopt", forgetful)
    model._federation._sums.config = None  # so that the next fit opens a session
    model.fit(fed.x, fed.y, epochs=1, batch_size=8, verbose=0)
    assert model._federation._sums.repeats == 1
