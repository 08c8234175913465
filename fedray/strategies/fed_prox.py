# SPDX-License-Identifier: Apache-2.0
"""FedProx: federated averaging with a pull towards the global weights.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: "Federated Optimization in Heterogeneous Networks", MLSys 2020 (algorithm
2). Each party minimises its loss plus mu/2 * ||w - w_global||^2, so each gradient gains mu * (w - w_global). With
mu = 0 it is `fed_avg_w`; larger values keep parties with very different data together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from fedray.errors import PlanError
from fedray.strategies.strategy import Array, State, Strategy
from fedray.types import Vector


def start(state: State, global_: Vector) -> State:
    """Keeps the arriving global vector as the anchor of the round."""
    return {**state, "anchor": global_}


def pull(mu: float, state: Mapping[str, Array], gradient: Array, weights: Array) -> Array:
    """Returns gradient + mu * (weights - anchor), over the trainable words."""
    return gradient + mu * (weights - state["anchor"])


def close(state: State, global_: Vector, local: Vector) -> tuple[State, Vector]:  # noqa: ARG001
    """Returns the local weights as they are, float[n]."""
    return state, local


def apply(state: State, global_: Vector, mean: Vector) -> tuple[State, Vector]:
    """Returns the mean of the weights as the new global vector, float[n] in the model's dtype."""
    return state, mean.astype(global_.dtype)


def make(mu: float = 0.01) -> Strategy:
    """Returns the strategy.

    Args:
        mu: Strength of the pull, 0 or more; the paper tries 0.001 to 1.

    Raises:
        PlanError: `mu` is negative or not a finite number.
    """
    if isinstance(mu, bool) or not isinstance(mu, int | float) or not math.isfinite(mu) or mu < 0:
        raise PlanError(f"fed_prox: expected mu to be a finite number of 0 or more, found {mu!r}")
    return Strategy("fed_prox", "train", start, close, apply, partial(pull, float(mu)), {"mu": float(mu)})
