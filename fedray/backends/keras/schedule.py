# SPDX-License-Identifier: Apache-2.0
"""PlannedSchedule: where a learning-rate schedule is, counted in the batches that everybody planned.

Parties take different numbers of local batches in a round, some none. Were each to count its own, one would be at the
end of a schedule, at a rate of 0, while another is at its beginning. What else an optimizer counts, such as the steps
that Adam's bias correction needs, is its own.

Works on the modules and the optimizer it is handed; imports no framework.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from fedray.backends.keras.optimizers import parts


class PlannedSchedule:
    """The step of an optimizer's schedule, if it has one.

    Within a round of `planned` batches in which this party takes `taken`, its batch number j is at step
    `first + j * planned // taken`.

    Args:
        tf: The tensorflow module.
        keras: The keras module.
        optimizer: The model's; its own count of steps goes on.
    """

    def __init__(self, tf: Any, keras: Any, optimizer: Any) -> None:
        kind = keras.optimizers.schedules.LearningRateSchedule
        scheduled = [part for part in parts(optimizer) if isinstance(getattr(part, "_learning_rate", None), kind)]
        self._counts = [part._iterations for part in scheduled]
        self._begins = [tf.Variable(0, dtype=tf.int64) for _ in scheduled]
        self._place = [tf.Variable(n, dtype=tf.int64) for n in (0, 1, 1)] if scheduled else []
        for part, begin in zip(scheduled, self._begins, strict=True):
            part._get_current_learning_rate = partial(self._rate, tf, part._learning_rate, part._iterations, begin)

    @property
    def variables(self) -> list[Any]:
        """Its own variables, which every round sets."""
        return self._begins + self._place

    def place(self, first: int, planned: int) -> None:
        """Says where the round that begins is in the run.

        Args:
            first: Batches planned before it.
            planned: Batches planned for it, 1 or more.
        """
        for variable, value in zip(self._place, (first, planned, 1), strict=False):
            variable.assign(value)
        for begin, count in zip(self._begins, self._counts, strict=True):
            begin.assign(int(count.numpy()))

    def take(self, batches: int) -> None:
        """Says how many local batches this party takes in it."""
        for variable in self._place[2:]:
            variable.assign(max(batches, 1))

    def _rate(self, tf: Any, schedule: Any, count: Any, begin: Any) -> Any:
        """Returns the learning rate of now, of one optimizer.

        Args:
            tf: The tensorflow module.
            schedule: Its schedule.
            count: Its own count of steps.
            begin: What that was when the round began.
        """
        first, planned, taken = self._place
        number = tf.cast(count.value, tf.int64) - begin
        return schedule(tf.cast(first + number * planned // taken, count.value.dtype))
