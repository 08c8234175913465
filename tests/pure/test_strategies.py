# SPDX-License-Identifier: Apache-2.0
"""Each strategy on a few numbers, and what the table refuses."""

import numpy as np
import pytest

from fedray.errors import PlanError
from fedray.strategies import STRATEGIES, make_strategy

GLOBAL = np.array([1.0, 2.0, 3.0], np.float32)
ALICE = np.array([2.0, 2.0, 0.0], np.float32)
BOB = np.array([4.0, 5.0, 6.0], np.float32)


def round_of(name, weights=(1, 3), **parameters):
    """One round of alice and bob: returns the answer and what alice sent."""
    strategy = make_strategy(name, parameters)
    payloads = []
    for local in (ALICE, BOB):
        state = strategy.open({}, GLOBAL)
        state, payload = strategy.close(state, GLOBAL, local)
        payloads.append(payload)
    mean = sum(w * p.astype(np.float64) for w, p in zip(weights, payloads, strict=True)) / sum(weights)
    return strategy.apply({}, GLOBAL, mean)[1], payloads[0]


def test_fed_avg_w_averages_weights():
    answer, sent = round_of("fed_avg_w")
    assert sent.tolist() == [2.0, 2.0, 0.0]
    assert answer.tolist() == [3.5, 4.25, 4.5]


def test_fed_avg_u_averages_updates_to_the_same_weights():
    answer, sent = round_of("fed_avg_u")
    assert sent.tolist() == [1.0, 0.0, -3.0]
    assert answer.tolist() == [3.5, 4.25, 4.5]


def test_fed_avg_u_adds_in_the_precision_of_the_sum():
    strategy = make_strategy("fed_avg_u", {})
    one = np.array([1.0], np.float32)
    assert strategy.apply({}, one, np.array([1e-9]))[1].tolist() == [1.0]
    assert strategy.apply({}, one.astype(np.float64), np.array([1e-9]))[1].tolist() == [1.0 + 1e-9]


def test_fed_avg_g_answers_with_the_mean_gradient():
    strategy = make_strategy("fed_avg_g", {})
    answer, sent = round_of("fed_avg_g")
    assert strategy.local == "gradient"
    assert sent.tolist() == [2.0, 2.0, 0.0]
    assert answer.tolist() == [3.5, 4.25, 4.5]


def test_fed_prox_pulls_towards_the_anchor_of_the_round():
    strategy = make_strategy("fed_prox", {"mu": 0.5})
    gradient, weights = np.array([0.1, 0.2, 0.3]), np.array([3.0, 2.0, 1.0])
    first = strategy.open({}, GLOBAL)
    assert strategy.hook(first, gradient, weights) == pytest.approx([1.1, 0.2, -0.7])
    second = strategy.open(first, BOB)
    assert strategy.hook(second, gradient, weights) == pytest.approx([-0.4, -1.3, -2.2])
    assert round_of("fed_prox", mu=0.5)[0].tolist() == [3.5, 4.25, 4.5]


def test_fed_prox_with_mu_zero_leaves_gradients_alone():
    strategy = make_strategy("fed_prox", {"mu": 0})
    assert strategy.hook(strategy.open({}, GLOBAL), ALICE, BOB).tolist() == ALICE.tolist()


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf"), "0.1", True])
def test_fed_prox_refuses_a_mu_that_is_no_strength(mu):
    with pytest.raises(PlanError, match="expected mu to be a finite number of 0 or more"):
        make_strategy("fed_prox", {"mu": mu})


def test_an_unknown_strategy_is_refused_with_the_nearest_name():
    with pytest.raises(PlanError, match=r"found 'fedprox'\. Did you mean 'fed_prox'"):
        make_strategy("fedprox", {})
    with pytest.raises(PlanError, match=f"expected one of {', '.join(STRATEGIES)}; found None"):
        make_strategy(None, {})


def test_an_unknown_parameter_is_refused_with_the_nearest_name():
    with pytest.raises(PlanError, match=r"strategy fed_prox takes mu; found 'mu_'\. Did you mean 'mu'"):
        make_strategy("fed_prox", {"mu_": 0.1})
    with pytest.raises(PlanError, match="strategy fed_avg_w takes no parameters; found 'mu'"):
        make_strategy("fed_avg_w", {"mu": 0.1})
