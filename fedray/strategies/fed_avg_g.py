# SPDX-License-Identifier: Apache-2.0
"""Federated averaging of gradients: synchronous SGD over the parties.

FedSGD of McMahan et al., AISTATS 2017 (section 2). A round computes one gradient in each party; the server answers with
the mean, weighted by rows, and every party applies it with its own, identically initialised optimizer, so that the
parties' weights stay equal. With plain SGD this is training on the joint data.
"""

from __future__ import annotations

from fedray.strategies.strategy import State, Strategy
from fedray.types import Vector


def start(state: State, global_: Vector) -> State:  # noqa: ARG001
    """Keeps the state: nothing to prepare."""
    return state


def close(state: State, global_: Vector, local: Vector) -> tuple[State, Vector]:  # noqa: ARG001
    """Returns the gradient as it is, float[n]."""
    return state, local


def apply(state: State, global_: Vector, mean: Vector) -> tuple[State, Vector]:
    """Returns the mean gradient, float[n] in the model's dtype; the parties apply it."""
    return state, mean.astype(global_.dtype)


def make() -> Strategy:
    """Returns the strategy; it has no parameters."""
    return Strategy("fed_avg_g", "gradient", start, close, apply)
