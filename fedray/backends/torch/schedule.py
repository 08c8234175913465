# SPDX-License-Identifier: Apache-2.0
"""PlannedScheduler: where a PyTorch scheduler is, counted in the batches or epochs that everybody planned.

Parties take different numbers of local batches in a round, some none. Were each to count its own, one would be at the
end of a schedule while another is at its beginning. Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fedray.errors import PlanError

BY_BATCH = ("OneCycleLR", "CyclicLR")
"""Schedulers that PyTorch's documentation has take a step after each batch; the others after each epoch."""


class PlannedScheduler:
    """The scheduler of a model's optimizer, if it has one.

    Within a round of `planned` batches in which this party takes `taken`, its batch number j is at step
    `first + j * planned // taken` of a schedule by batches.

    Args:
        torch: The torch module.
        optimizer: The model's.
        asked: A scheduler of it, `{"scheduler": ..., "interval": "step" or "epoch"}`, or None.

    Raises:
        PlanError: It is something else, or wants to see a metric, or is another optimizer's.
    """

    def __init__(self, torch: Any, optimizer: Any, asked: Any) -> None:
        self._optimizer = optimizer
        scheduler, interval = _parts(torch, asked)
        self._scheduler = scheduler
        self._first = self._epochs = self._count = 0
        self._planned = self._taken = 1
        if scheduler is None:
            return
        if getattr(scheduler, "optimizer", optimizer) is not optimizer:
            raise PlanError("scheduler: expected one of the optimizer that is handed over with it, found another's")
        self._by_batch = (interval or ("step" if type(scheduler).__name__ in BY_BATCH else "epoch")) == "step"
        optimizer._opt_called = True  # else PyTorch warns of a first step of the schedule before one of the optimizer
        self._start = self.state()

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self._scheduler is not None

    def place(self, first: int, planned: int, epochs: int) -> None:
        """Says where the round that begins is in the run.

        Args:
            first: Batches planned before it.
            planned: Batches planned for it, 1 or more.
            epochs: Epochs that are over.
        """
        self._first, self._planned, self._taken, self._epochs = first, planned, 1, epochs

    def take(self, batches: int) -> None:
        """Says how many local batches this party takes in it."""
        self._taken = max(batches, 1)

    def go_to(self, batch: int) -> None:
        """Sets the optimizer to the schedule's place at a local batch, counted from 0 within the round."""
        if self._scheduler is None:
            return
        step = self._first + batch * self._planned // self._taken if self._by_batch else self._epochs
        if step < self._count:  # weights of an earlier time came back: from the start, since steps build on each other
            self.set_state(self._start)
        while self._count < step:
            self._scheduler.step()
            self._count += 1

    def state(self) -> dict[str, Any]:
        """Returns where the schedule is, with the settings of the optimizer that it has made."""
        groups = [
            {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
            for group in self._optimizer.param_groups
        ]
        if self._scheduler is None:
            return {"groups": groups}
        return {"groups": groups, "scheduler": copy.deepcopy(self._scheduler.state_dict()), "count": self._count}

    def stored(self) -> dict[str, Any]:
        """Returns what of `state` can be written down: a scheduler itself may hold functions."""
        return {"groups": self.state()["groups"], "count": self._count}

    def take_stored(self, stored: Mapping[str, Any]) -> None:
        """Puts back what `stored` returned: the scheduler takes as many steps from its start."""
        if self._scheduler is not None:
            self.set_state(self._start)
            while self._count < stored["count"]:
                self._scheduler.step()
                self._count += 1
        for group, values in zip(self._optimizer.param_groups, stored["groups"], strict=True):
            group.update(copy.deepcopy(values))

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` returned."""
        for group, values in zip(self._optimizer.param_groups, state["groups"], strict=True):
            group.update(copy.deepcopy(values))
        if self._scheduler is not None:
            self._scheduler.load_state_dict(copy.deepcopy(state["scheduler"]))
            self._count = state["count"]


def _parts(torch: Any, asked: Any) -> tuple[Any, str]:
    interval = ""
    if isinstance(asked, Mapping):
        if "scheduler" not in asked or asked.get("interval", "epoch") not in ("step", "epoch"):
            raise PlanError(
                f"scheduler: expected {{'scheduler': ..., 'interval': 'step' or 'epoch'}}, found {sorted(asked)}"
            )
        if asked.get("frequency", 1) != 1:
            raise PlanError("scheduler: expected frequency=1; let the scheduler itself count")
        asked, interval = asked["scheduler"], str(asked.get("interval", "epoch"))
    kinds = torch.optim.lr_scheduler
    if asked is not None and not isinstance(asked, kinds.LRScheduler):
        raise PlanError(f"scheduler: expected one of torch.optim.lr_scheduler, found {type(asked).__name__}")
    if isinstance(asked, kinds.ReduceLROnPlateau):
        raise PlanError(
            "scheduler: ReduceLROnPlateau looks at a metric over all parties, which none of them has; leave it out, "
            "and set fed_model.optimizer.learning_rate from a callback, as Keras's ReduceLROnPlateau does"
        )
    return asked, interval
