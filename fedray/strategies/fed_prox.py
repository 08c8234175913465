# SPDX-License-Identifier: Apache-2.0
"""FedProx: federated averaging with a pull towards the global weights.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: "Federated Optimization in Heterogeneous Networks", MLSys 2020 (algorithm
2). Each party minimises its loss plus mu/2 * ||w - w_global||^2, so each gradient gains mu * (w - w_global). With
mu = 0 it is `fed_avg_w`; larger values keep parties with very different data together.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fedray.strategies.fed_avg_w import finish, update
from fedray.strategies.settings import number
from fedray.strategies.strategy import Array, NamedVectors, State, Strategy, Uplink
from fedray.types import Vector


def begin(state: State, weights: Vector, known: NamedVectors) -> State:  # noqa: ARG001 (nothing but the model comes down)
    """Keeps the arriving global vector as the anchor of the round; see `Begin`."""
    return {**state, "anchor": weights}


def pull(mu: float, state: Mapping[str, Array], gradient: Array, weights: Array) -> Array:
    """Returns gradient + mu * (weights - anchor); see `Hook`."""
    return gradient + mu * (weights - state["anchor"])


def make(mu: float = 0.01) -> Strategy:
    """Returns the strategy. What is sent and what becomes of it is `fed_avg_w`'s.

    Args:
        mu: Strength of the pull, 0 or more; the paper tries 0.001 to 1.

    Raises:
        PlanError: `mu` is negative or not a finite number.
    """
    mu = number("fed_prox", "mu", mu, least=0)
    hook = partial(pull, mu)
    return Strategy("fed_prox", {"mu": mu}, (Uplink("weights"),), finish, update, client_begin=begin, client_hook=hook)
