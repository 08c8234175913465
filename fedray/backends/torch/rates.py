# SPDX-License-Identifier: Apache-2.0
"""Rates: the learning rate of a PyTorch optimizer, one number for all its groups. Imports no framework."""

from __future__ import annotations

from typing import Any

from fedray.errors import PlanError


class Rates:
    """The learning rates of an optimizer's groups, which keep the proportions that they were made with.

    Args:
        optimizer: The optimizer.
        scheduled: Whether it follows a schedule.
    """

    def __init__(self, optimizer: Any, scheduled: bool) -> None:
        self._groups, self._scheduled = optimizer.param_groups, scheduled
        rates = [float(group["lr"]) for group in self._groups]
        self._parts = [rate / rates[0] if rates[0] else 1.0 for rate in rates]

    def get(self) -> float:
        """Returns that of the first group."""
        return float(self._groups[0]["lr"])

    def set(self, value: float) -> None:
        """Sets that of the first group, and the others in proportion.

        Raises:
            PlanError: The optimizer follows a schedule.
        """
        if self._scheduled:
            raise PlanError(
                "learning_rate: the optimizer follows a schedule of its own, expected one without; leave scheduler out "
                "in the model's builder, and set the rate or pass a callback that does"
            )
        for group, part in zip(self._groups, self._parts, strict=True):
            if hasattr(group["lr"], "fill_"):  # a tensor, which the optimizer's compiled step holds on to
                group["lr"].fill_(float(value) * part)
            else:
                group["lr"] = float(value) * part
