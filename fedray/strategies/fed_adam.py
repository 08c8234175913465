# SPDX-License-Identifier: Apache-2.0
"""FedAdam: federated averaging with Adam at the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan: "Adaptive Federated Optimization", ICLR 2021 (algorithm
2, FedAdam). Parties train locally and send what has changed; the server takes the mean change d as a gradient:

    m = beta_1 * m + (1 - beta_1) * d
    v = beta_2 * v + (1 - beta_2) * d^2
    w = w + server_learning_rate * m / (sqrt(v) + tau)

As in the paper there is no bias correction; m begins at 0 and v at tau^2, the least that the paper allows.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from fedray.strategies.fed_avg_u import finish
from fedray.strategies.settings import number
from fedray.strategies.strategy import NamedVectors, State, Strategy, Uplink
from fedray.types import Vector


def init(tau: float, weights: Vector) -> State:
    """Returns the first moment 0 and the second moment tau^2, float64[n] each."""
    return {"m": np.zeros(len(weights)), "v": np.full(len(weights), tau * tau)}


def update(
    rate: float, beta_1: float, beta_2: float, tau: float, state: State, weights: Vector, means: NamedVectors
) -> tuple[State, Vector, NamedVectors]:
    """Takes one step of Adam along the mean change.

    Args:
        rate: The server's learning rate.
        beta_1: Share of the first moment that is kept.
        beta_2: Share of the second moment that is kept.
        tau: What is added to the root of the second moment.
        state: `m` and `v`, float64[n].
        weights: float[n].
        means: `update`, float64[n].
    """
    change = means["update"]
    m = beta_1 * state["m"] + (1 - beta_1) * change
    v = beta_2 * state["v"] + (1 - beta_2) * (change * change)
    # In float64 up to the last rounding: a small step would be lost beside a large weight in float32.
    moved = weights + rate * m / (np.sqrt(v) + tau)
    return {"m": m, "v": v}, moved.astype(weights.dtype), {}


def make(server_learning_rate: float = 0.01, beta_1: float = 0.9, beta_2: float = 0.99, tau: float = 0.001) -> Strategy:
    """Returns the strategy.

    Args:
        server_learning_rate: The server's step size, above 0. A word moves by about this much a round, so it is chosen
            as for Adam, whatever the parties' own learning rate. The paper tries 0.001 to 1.
        beta_1: Share of the first moment that is kept, 0 to below 1; the paper's 0.9.
        beta_2: Share of the second moment that is kept, 0 to below 1; the paper's 0.99.
        tau: How adaptive the steps are, above 0: the smaller, the more; the paper's 0.001.

    Raises:
        PlanError: A setting is out of range or not a finite number.
    """
    parameters = {
        "server_learning_rate": number("fed_adam", "server_learning_rate", server_learning_rate, above=0),
        "beta_1": number("fed_adam", "beta_1", beta_1, least=0, below=1),
        "beta_2": number("fed_adam", "beta_2", beta_2, least=0, below=1),
        "tau": number("fed_adam", "tau", tau, above=0),
    }
    rate = parameters["server_learning_rate"]
    step = partial(update, rate, parameters["beta_1"], parameters["beta_2"], parameters["tau"])
    first = partial(init, parameters["tau"])
    return Strategy("fed_adam", parameters, (Uplink("update"),), finish, step, server_init=first, is_mean=False)
