# SPDX-License-Identifier: Apache-2.0
"""What an optimizer does with all weights at once, and whether it means the same where some of them are shared.

Works on the modules and objects it is handed; imports no framework.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedray.backends.keras.flat import FlatVariables
from fedray.backends.keras.optimizers import parts
from fedray.errors import PlanError
from fedray.strategies.strategy import Strategy

LENGTH = 8
"""Longest axis of the made-up weights: constraints treat the places of an axis alike."""


def check_shared(keras: Any, model: Any, flat: FlatVariables | None, strategy: Strategy | None) -> None:
    """Refuses a strategy that would undo what the optimizer promises of shared weights.

    Args:
        keras: The keras module.
        model: A model.
        flat: Its variables; None before it is built, when there is nothing to check yet.
        strategy: The strategy; None before it is known.

    Raises:
        PlanError: The strategy works on gradients and some are none; the optimizer clips by a norm over shared and
            local gradients, which differs from party to party; or a constraint does not hold for what the strategy
            makes of weights that meet it.
    """
    if flat is None or strategy is None:
        return
    needs_gradient = strategy.local == "gradient" or strategy.client_hook is not None
    if needs_gradient and any(getattr(v, "overwrite_with_gradient", False) for v in flat.trainable + flat.own):
        raise PlanError(
            f"model {model.name!r} has layers in float8, whose scales take their gradient for a new value; strategy "
            f"{strategy.name!r} cannot be combined with them, use 'fed_avg_w'"
        )
    if strategy.local == "gradient":
        if flat.own and any(getattr(part, "global_clipnorm", None) for part in parts(model.optimizer)):
            raise PlanError(
                f"model {model.name!r}: global_clipnorm takes one norm over shared and local tensors; it differs from "
                f"party to party, and shared ones would drift apart under strategy {strategy.name!r}; use clipnorm"
            )
        return
    for variable, param in zip(flat.trainable, flat.spec.shared, strict=False):
        if variable.constraint is None:
            continue
        if not strategy.is_mean or not _holds_for_means(keras, variable):
            raise PlanError(
                f"model {model.name!r}: the constraint {type(variable.constraint).__name__} of {param.name!r} does not "
                f"hold for what strategy {strategy.name!r} makes of weights that meet it; use strategy 'fed_avg_g', "
                f"under which all parties take the same step, or keep each party's own with local=[{param.name!r}]"
            )


def _holds_for_means(keras: Any, variable: Any) -> bool:
    """Returns whether a mean of weights that meet a constraint meets it too, found out by trying on made-up weights."""
    numbers = np.random.default_rng(0)
    shape = [min(int(length), LENGTH) for length in variable.shape]

    def met(weights: Any) -> Any:
        """Applies the constraint until it changes nothing: some go only part of the way at each step."""
        for _ in range(100):
            weights, before = variable.constraint(weights), weights
            if _near(weights, before):
                break
        return weights

    for size in (0.1, 1.0, 10.0):
        one, other = (met(keras.ops.convert_to_tensor(numbers.normal(0, size, shape), "float32")) for _ in range(2))
        mean = (one + other) / 2
        if not _near(variable.constraint(mean), mean):
            return False
    return True


def _near(one: Any, other: Any) -> bool:
    return bool(np.allclose(one, other, rtol=1e-4, atol=1e-6))
