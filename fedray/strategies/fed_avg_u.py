# SPDX-License-Identifier: Apache-2.0
"""Federated averaging of updates.

The form of McMahan et al., AISTATS 2017, in which a party sends what its training has changed, and the server adds the
mean change to the global weights (the "pseudo-gradient" of Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
with server learning rate 1). Equal to `fed_avg_w` but for rounding; updates are small numbers, so they fit narrower
encodings and tighter clips.
"""

from __future__ import annotations

from fedray.strategies.strategy import State, Strategy
from fedray.types import Vector


def start(state: State, global_: Vector) -> State:  # noqa: ARG001
    """Keeps the state: nothing to prepare."""
    return state


def close(state: State, global_: Vector, local: Vector) -> tuple[State, Vector]:
    """Returns what training has changed, float[n]."""
    return state, local - global_


def apply(state: State, global_: Vector, mean: Vector) -> tuple[State, Vector]:
    """Adds the mean change, in the precision of the sum; returns float[n] in the model's dtype."""
    return state, (global_ + mean).astype(global_.dtype)


def make() -> Strategy:
    """Returns the strategy; it has no parameters."""
    return Strategy("fed_avg_u", "train", start, close, apply)
