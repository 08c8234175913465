# SPDX-License-Identifier: Apache-2.0
"""Federated averaging of weights.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas: "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017 (algorithm 1). Each party trains from the global weights and sends its own; the mean, weighted by
the rows each has trained on, is the new global vector. Optimizer state stays with the party.
"""

from __future__ import annotations

from fedray.strategies.strategy import NamedVectors, State, Strategy, Uplink
from fedray.types import Vector


def finish(state: State, weights: Vector, local: Vector) -> tuple[State, NamedVectors]:  # noqa: ARG001 (not its difference)
    """Sends the local weights as they are; see `Finish`."""
    return state, {"weights": local}


def update(state: State, weights: Vector, means: NamedVectors) -> tuple[State, Vector, NamedVectors]:
    """Returns the mean of the weights as the new global vector, in the model's dtype; see `Update`."""
    return state, means["weights"].astype(weights.dtype), {}


def make() -> Strategy:
    """Returns the strategy; it has no parameters."""
    return Strategy("fed_avg_w", {}, (Uplink("weights"),), finish, update)
