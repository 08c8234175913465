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
    """One round of alice and bob: returns the new weights and what alice sent."""
    strategy = make_strategy(name, parameters)
    sent = []
    for local in (ALICE, BOB):
        state = strategy.client_begin(strategy.client_init(GLOBAL), GLOBAL, {})
        sent.append(strategy.client_finish(state, GLOBAL, local)[1])
    (name,) = sent[0]
    mean = sum(w * s[name].astype(np.float64) for w, s in zip(weights, sent, strict=True)) / sum(weights)
    return strategy.server_update(strategy.server_init(GLOBAL), GLOBAL, {name: mean})[1], sent[0][name]


def test_fed_avg_w_averages_weights():
    new, sent = round_of("fed_avg_w")
    assert sent.tolist() == [2.0, 2.0, 0.0]
    assert new.tolist() == [3.5, 4.25, 4.5]


def test_fed_avg_u_averages_updates_to_the_same_weights():
    new, sent = round_of("fed_avg_u")
    assert sent.tolist() == [1.0, 0.0, -3.0]
    assert new.tolist() == [3.5, 4.25, 4.5]


def test_fed_avg_u_adds_in_the_precision_of_the_sum():
    update = make_strategy("fed_avg_u", {}).server_update
    one = np.array([1.0], np.float32)
    assert update({}, one, {"update": np.array([1e-9])})[1].tolist() == [1.0]
    assert update({}, one.astype(np.float64), {"update": np.array([1e-9])})[1].tolist() == [1.0 + 1e-9]


def test_fed_avg_g_answers_with_the_mean_gradient():
    new, sent = round_of("fed_avg_g")
    assert make_strategy("fed_avg_g", {}).local == "gradient"
    assert sent.tolist() == [2.0, 2.0, 0.0]
    assert new.tolist() == [3.5, 4.25, 4.5]


def test_fed_prox_pulls_towards_the_anchor_of_the_round():
    strategy = make_strategy("fed_prox", {"mu": 0.5})
    gradient, weights = np.array([0.1, 0.2, 0.3]), np.array([3.0, 2.0, 1.0])
    first = strategy.client_begin({}, GLOBAL, {})
    assert strategy.client_hook(first, gradient, weights) == pytest.approx([1.1, 0.2, -0.7])
    second = strategy.client_begin(first, BOB, {})
    assert strategy.client_hook(second, gradient, weights) == pytest.approx([-0.4, -1.3, -2.2])
    assert round_of("fed_prox", mu=0.5)[0].tolist() == [3.5, 4.25, 4.5]


def test_fed_prox_with_mu_zero_leaves_gradients_alone():
    strategy = make_strategy("fed_prox", {"mu": 0})
    assert strategy.client_hook(strategy.client_begin({}, GLOBAL, {}), ALICE, BOB).tolist() == ALICE.tolist()


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf"), "0.1", True])
def test_fed_prox_refuses_a_mu_that_is_no_strength(mu):
    with pytest.raises(PlanError, match="expected mu to be a finite number of 0 or more"):
        make_strategy("fed_prox", {"mu": mu})


def test_fed_adam_is_algorithm_2_of_the_paper():
    """Two rounds by hand, one word: m, v and the step of Reddi et al., with v beginning at tau^2."""
    strategy = make_strategy("fed_adam", {"server_learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.75, "tau": 2.0})
    weights = np.array([1.0])
    state = strategy.server_init(weights)
    state, weights, told = strategy.server_update(state, weights, {"update": np.array([4.0])})
    assert (state["m"][0], state["v"][0], told) == (2.0, 0.75 * 4 + 0.25 * 16, {})
    assert weights[0] == pytest.approx(1 + 0.1 * 2 / (7**0.5 + 2), abs=1e-15)
    state, after, _ = strategy.server_update(state, weights, {"update": np.array([-1.0])})
    assert (state["m"][0], state["v"][0]) == (0.5, 0.75 * 7 + 0.25 * 1)
    assert after[0] == pytest.approx(weights[0] + 0.1 * 0.5 / (5.5**0.5 + 2), abs=1e-15)


@pytest.mark.parametrize(
    ("parameter", "value", "wanted"),
    [
        ("server_learning_rate", 0, "above 0"),
        ("beta_1", 1.0, "of 0 or more and below 1"),
        ("beta_2", -0.1, "of 0 or more and below 1"),
        ("tau", 0.0, "above 0"),
        ("tau", float("inf"), "above 0"),
        ("beta_1", "0.9", "of 0 or more and below 1"),
    ],
)
def test_fed_adam_refuses_settings_out_of_range(parameter, value, wanted):
    with pytest.raises(PlanError, match=f"fed_adam: expected {parameter} to be a finite number {wanted}, found"):
        make_strategy("fed_adam", {parameter: value})


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
