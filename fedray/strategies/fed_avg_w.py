# SPDX-License-Identifier: Apache-2.0
"""Federated averaging of weights.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas: "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017 (algorithm 1). Each party trains from the global weights and sends its own; the mean, weighted by
the rows each has trained on, is the new global vector. Optimizer state stays with the party.
"""

from __future__ import annotations

from fedray.strategies.strategy import State, Strategy
from fedray.types import Vector


def start(state: State, global_: Vector) -> State:  # noqa: ARG001
    """Keeps the state: nothing to prepare."""
    return state


def close(state: State, global_: Vector, local: Vector) -> tuple[State, Vector]:  # noqa: ARG001
    """Returns the local weights as they are, float[n]."""
    return state, local


def apply(state: State, global_: Vector, mean: Vector) -> tuple[State, Vector]:
    """Returns the mean of the weights as the new global vector, float[n] in the model's dtype."""
    return state, mean.astype(global_.dtype)


def make() -> Strategy:
    """Returns the strategy; it has no parameters."""
    return Strategy("fed_avg_w", "train", start, close, apply)
