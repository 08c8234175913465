# SPDX-License-Identifier: Apache-2.0
"""Measured: what was measured over batches: the loss, what a step logged, and the metrics. Imports no framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedray.backends.torch.metrics import TorchMetrics
from fedray.backends.torch.tasks import Seen
from fedray.errors import PlanError
from fedray.metrics import Mean, Metric


class Measured:
    """The figures of one kind of step.

    Args:
        metrics: The model's metrics.
        logs: Names of the numbers that its step logs.
    """

    def __init__(self, metrics: TorchMetrics, logs: Sequence[str]) -> None:
        self.metrics = metrics
        self._names = ("loss", *logs)
        self.reset()

    def see(self, seen: Seen, y: Any, rows: int) -> None:
        """Takes a batch in.

        Args:
            seen: What came of it.
            y: Its labels.
            rows: How many it has.

        Raises:
            PlanError: A step has logged other numbers than the first one did.
        """
        found = {"loss": float(seen.loss.detach())} | seen.logs
        if len(found) != len(self._names) or any(name not in found for name in self._names):
            expected, other = (", ".join(names) or "none" for names in (self._names[1:], seen.logs))
            raise PlanError(f"log: expected the same names in every batch ({expected}), found {other}")
        for name, value in found.items():
            self._totals[name] += value * rows
        self._rows += rows
        if seen.outputs is not None and y is not None:
            self.metrics.update(seen.outputs, y)

    def read(self) -> list[Metric]:
        """Returns the metrics over the batches since the last reset."""
        _, *logs = (Mean(name, self._totals[name], float(self._rows)) for name in self._names)
        return [self.loss(), *self.metrics.read(), *logs]

    def loss(self) -> Mean:
        """Returns the loss among them alone."""
        return Mean("loss", self._totals["loss"], float(self._rows))

    def reset(self, *, but_apart: bool = False) -> None:
        """Forgets the batches seen; metrics that stay with their party go on where `but_apart`."""
        self._totals, self._rows = dict.fromkeys(self._names, 0.0), 0
        self.metrics.reset(but_apart=but_apart)

    def state(self) -> Mapping[str, Any]:
        """Returns all of it, in memory of its own."""
        return {"totals": dict(self._totals), "rows": self._rows, "metrics": self.metrics.states()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` returned."""
        self._totals, self._rows = dict(state["totals"]), state["rows"]
        self.metrics.set_states(state["metrics"])
