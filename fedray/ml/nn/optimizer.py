# SPDX-License-Identifier: Apache-2.0
"""The parties' optimizers as one, at the driver: a learning rate to read and to set. All else of them stays inside.

Knows what was set last and how the parties are reached. Knows no run: a rate that a callback sets at the end of a fit
is there for the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from fedray.errors import PlanError
from fedray.ml.nn.federation import Federation


class LearningRate(float):
    """A learning rate as it was when it was read: a plain number, with what Keras users expect of a variable.

    Args:
        value: The rate.
        assign: Sets that of the optimizer it was read from.
    """

    def __new__(cls, value: float, assign: Callable[[Any], None]) -> LearningRate:
        """Returns the number."""
        made = super().__new__(cls, value)
        made._assign = assign
        return made

    _assign: Callable[[Any], None]

    def assign(self, value: Any) -> LearningRate:
        """Sets the optimizer's learning rate and returns it; this number itself stays what it is."""
        self._assign(value)
        return LearningRate(_number(value), self._assign)

    def numpy(self) -> np.float64:
        """Returns the number as NumPy's."""
        return np.float64(float(self))

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        """Travels and is saved as a plain float: elsewhere there is no optimizer to assign to."""
        return float, (float(self),)


class Optimizer:
    """What `FLModel.optimizer` is, for its user and for callbacks alike.

    Args:
        federation: Returns what reaches the parties' optimizers, as it is now.

    Attributes:
        chosen: What the rate was set to; None while the parties follow what the model was compiled with. Every order to
            train carries it, so that whoever comes back late has it as well.
    """

    def __init__(self, federation: Callable[[], Federation]) -> None:
        self._federation = federation
        self.chosen: float | None = None

    @property
    def learning_rate(self) -> LearningRate:
        """The learning rate; of an optimizer with a schedule, where that stands now.

        Raises:
            PlanError: A value that is set is no finite number of 0 or more, or the optimizer follows a schedule or is
                several.
        """
        return LearningRate(self._federation().learning_rate() if self.chosen is None else self.chosen, self._set)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._set(value)

    def adopt(self) -> None:
        """Takes the rate that the parties have from a file for the one that was set, as Keras does."""
        try:
            self._set(self._federation().learning_rate())
        except PlanError:  # each follows the schedule that it was compiled with, or has several rates
            self.chosen = None

    def _set(self, value: Any) -> None:
        rate = _number(value)
        self._federation().set_learning_rate(rate)
        self.chosen = rate

    def __getattr__(self, name: str) -> NoReturn:
        """Says what there is."""
        raise AttributeError(
            f"the optimizer has no {name!r} here: each party has one of its own, and they share learning_rate only"
        )


def _number(value: Any) -> float:
    try:
        rate = float(np.asarray(value))
    except (TypeError, ValueError):
        raise PlanError(
            f"learning_rate: expected a number, found {type(value).__name__}; a schedule goes into the model's "
            "builder, or pass keras.callbacks.LearningRateScheduler"
        ) from None
    if not math.isfinite(rate) or rate < 0:
        raise PlanError(f"learning_rate: expected a finite number of 0 or more, found {rate}")
    return rate
