# SPDX-License-Identifier: Apache-2.0
"""The learning rate of a Keras optimizer, set by hand or taken from a file. Knows no model and no training.

Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from typing import Any

from fedray.backends.keras.optimizers import parts
from fedray.errors import PlanError

SEVERAL = (
    "learning_rate: a MultiOptimizer has no rate of its own, expected an optimizer with one for all variables; set "
    "the rates of its optimizers, or their schedules, in the model's builder"
)


def rate_of(optimizer: Any) -> float:
    """Returns the learning rate; of an optimizer with a schedule, where that stands now.

    Raises:
        PlanError: The optimizer is several.
    """
    if _several(optimizer):
        raise PlanError(SEVERAL)
    return float(optimizer.learning_rate)


def set_rate(optimizer: Any, rate: float | None) -> None:
    """Sets the learning rate; None leaves it.

    Raises:
        PlanError: The optimizer follows a schedule of its own, or is several.
    """
    if rate is None:
        return
    if _several(optimizer):
        raise PlanError(SEVERAL)
    try:
        optimizer.learning_rate = float(rate)
    except (TypeError, AttributeError):  # a schedule, or a function: neither has a place to put a number
        raise PlanError(
            "learning_rate: the optimizer follows a schedule of its own, expected one that was compiled with a number; "
            "compile it so in the model's builder, and set the rate or pass a LearningRateScheduler"
        ) from None


def take_rate(optimizer: Any, content: bytes) -> None:
    """Takes the learning rate from the content of a `.keras` file; runs none of its code.

    An optimizer with a schedule goes on with that one, and a file whose optimizer has one changes nothing.
    """
    with suppress(PlanError):
        set_rate(optimizer, _rate_in(content))


def _several(optimizer: Any) -> bool:
    return any(hasattr(part, "optimizers") for part in parts(optimizer))


def _rate_in(content: bytes) -> float | None:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        config = json.loads(file.read("config.json"))
    # An optimizer that scales losses has another one inside.
    for key in ("compile_config", "optimizer", "config", "inner_optimizer", "config"):
        if not isinstance(config, dict):
            return None
        config = config.get(key, config)
    rate = config.get("learning_rate") if isinstance(config, dict) else None
    return float(rate) if isinstance(rate, int | float) else None
