# SPDX-License-Identifier: Apache-2.0
"""PlannedSchedule: where a learning-rate schedule is, counted in the batches that everybody planned.

Parties take different numbers of local batches in a round, some none. Were each to count its own, one would be at the
end of a schedule, at a rate of 0, while another is at its beginning. What else an optimizer counts, such as the steps
that Adam's bias correction needs, is its own.

Works on the modules and the optimizer it is handed; imports no framework.
"""

from __future__ import annotations

from typing import Any


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
        inner = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
        self._count = inner._iterations
        self._place: list[Any] = []
        schedule = inner._learning_rate
        if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            return
        first, planned, taken, begin = self._place = [tf.Variable(n, dtype=tf.int64) for n in (0, 1, 1, 0)]

        def learning_rate() -> Any:
            number = tf.cast(self._count.value, tf.int64) - begin
            # Keras hands its count over as a variable; a tensor of its type computes the same.
            return schedule(tf.cast(first + number * planned // taken, self._count.value.dtype))

        inner._get_current_learning_rate = learning_rate
        self.place(0, 1)

    def place(self, first: int, planned: int) -> None:
        """Says where the round that begins is in the run.

        Args:
            first: Batches planned before it.
            planned: Batches planned for it, 1 or more.
        """
        if self._place:
            for variable, value in zip(self._place, (first, planned, 1, int(self._count.numpy())), strict=True):
                variable.assign(value)

    def take(self, batches: int) -> None:
        """Says how many local batches this party takes in it."""
        if self._place:
            self._place[2].assign(max(batches, 1))
