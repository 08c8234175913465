# SPDX-License-Identifier: Apache-2.0
"""Federated averaging of gradients: synchronous SGD over the parties.

FedSGD of McMahan et al., AISTATS 2017 (section 2). A round computes one gradient in each party; the sum says what
their mean is, weighted by rows, and every party applies it with its own, identically initialised optimizer, so that the
parties' weights stay equal. With plain SGD this is training on the joint data.
"""

from __future__ import annotations

from fedray.strategies.strategy import NamedVectors, State, Strategy, Uplink
from fedray.types import Vector


def finish(state: State, weights: Vector, local: Vector) -> tuple[State, NamedVectors]:  # noqa: ARG001 (a gradient stands alone)
    """Sends the gradient as it is; see `Finish`."""
    return state, {"gradient": local}


def update(state: State, weights: Vector, means: NamedVectors) -> tuple[State, Vector, NamedVectors]:
    """Returns the mean gradient in the model's dtype; the parties apply it; see `Update`."""
    return state, means["gradient"].astype(weights.dtype), {}


def make() -> Strategy:
    """Returns the strategy; it has no parameters."""
    return Strategy("fed_avg_g", {}, (Uplink("gradient"),), finish, update, local="gradient")
