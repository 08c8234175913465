# SPDX-License-Identifier: Apache-2.0
"""Federated averaging of updates.

The form of McMahan et al., AISTATS 2017, in which a party sends what its training has changed, and the server adds the
mean change to the global weights (the "pseudo-gradient" of Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
with server learning rate 1). Equal to `fed_avg_w` but for rounding; updates are small numbers, so they fit narrower
encodings and tighter clips.
"""

from __future__ import annotations

from fedray.strategies.strategy import NamedVectors, State, Strategy, Uplink
from fedray.types import Vector


def finish(state: State, weights: Vector, local: Vector) -> tuple[State, NamedVectors]:
    """Sends what training has changed; see `Finish`."""
    return state, {"update": local - weights}


def update(state: State, weights: Vector, means: NamedVectors) -> tuple[State, Vector, NamedVectors]:
    """Adds the mean change, in the precision of the sum, and rounds to the model's dtype; see `Update`."""
    return state, (weights + means["update"]).astype(weights.dtype), {}


def make() -> Strategy:
    """Returns the strategy; it has no parameters."""
    return Strategy("fed_avg_u", {}, (Uplink("update"),), finish, update)
