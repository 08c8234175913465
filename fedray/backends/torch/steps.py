# SPDX-License-Identifier: Apache-2.0
"""Stepper: the steps of one module on batches of rows: forward, backward, a hook, and what the optimizer makes of it.

Works on the objects it is handed; imports no framework. Knows no metrics' meaning and no strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fedray.backends.torch.data import TorchData, picked
from fedray.backends.torch.flat import FlatTensors
from fedray.backends.torch.schedule import PlannedScheduler
from fedray.backends.torch.tasks import Seen, Task
from fedray.errors import DataError, PlanError
from fedray.strategies.strategy import Hook

See: TypeAlias = Callable[[Seen, Any, int], None]
"""Is told what came of a batch, its labels, and how many rows it has."""


class Stepper:
    """The steps of one module.

    Args:
        torch: The torch module.
        module: The model's module.
        task: What it makes of a batch.
        flat: Its tensors.
        optimizer: Its optimizer.
        schedule: Where that optimizer's scheduler is.
        max_norm: What the norm of all gradients is clipped to, or None.

    Attributes:
        untouched: Which trainable tensors, shared ones before local ones, the loss does not depend on. PyTorch leaves
            those alone; a gradient of zeros would let weight decay shrink them.
    """

    def __init__(
        self,
        torch: Any,
        module: Any,
        task: Task,
        flat: FlatTensors,
        optimizer: Any,
        schedule: PlannedScheduler,
        max_norm: float | None,
    ) -> None:
        self._torch, self._module, self._task, self._flat = torch, module, task, flat
        self._optimizer, self._schedule, self._max_norm = optimizer, schedule, max_norm
        self._trained = [*flat.trainable, *flat.own]
        self.untouched: frozenset[int] = frozenset()

    def train(
        self, data: TorchData, batches: Sequence[Any], see: See, hook: Hook | None, state: Mapping[str, Any]
    ) -> None:
        """Takes a step of the optimizer on every batch.

        Args:
            data: The party's rows.
            batches: Row numbers of each.
            see: Is told what came of each.
            hook: Changes each gradient of shared tensors; None for the optimizer's own step.
            state: What the hook is given.
        """
        self._schedule.take(len(batches))
        self._module.train()
        for number, rows in enumerate(batches):
            self._schedule.go_to(number)
            self.backward(data, rows, number, see)
            if hook is not None:
                self._pull(hook, state)
            self._step()

    def gradient(self, data: TorchData, batches: Sequence[Any], see: See) -> tuple[Any, list[Any]]:
        """Returns mean gradients over all rows: of shared tensors [trainable], and of each local one; see `train`."""
        flat, rows = self._flat, 0
        total, own = flat.joined([self._torch.zeros_like(t) for t in flat.trainable]), None
        self._module.train()
        untouched = frozenset(range(len(self._trained))) if batches else self.untouched
        for number, chosen in enumerate(batches):
            self.backward(data, chosen, number, see)
            shared, parts = self._gradients()
            total += shared * len(chosen)
            scaled = [part * len(chosen) for part in parts]
            own = scaled if own is None else [a + b for a, b in zip(own, scaled, strict=True)]
            rows += len(chosen)
            untouched &= {place for place, tensor in enumerate(self._trained) if tensor.grad is None}
        self.untouched = untouched
        return total / max(rows, 1), [part / max(rows, 1) for part in own or ()]

    def apply(self, gradient: Any, own: Sequence[Any] | None) -> None:
        """Lets the optimizer take one step along a gradient; local tensors have no part in it where they have none.

        Args:
            gradient: Of shared tensors, [trainable].
            own: Of each local tensor that the optimizer changes, or None.
        """
        parts = [*self._flat.split(gradient, self._flat.trainable), *(own or [None] * len(self._flat.own))]
        for place, (tensor, part) in enumerate(zip(self._trained, parts, strict=True)):
            tensor.grad = None if part is None or place in self.untouched else part.clone()
        self._schedule.go_to(0)
        self._step()

    def evaluate(self, data: TorchData, batches: Sequence[Any], see: See) -> None:
        """Measures every batch, and changes nothing; see `train`."""
        self._module.eval()
        with self._torch.no_grad():
            for number, rows in enumerate(batches):
                x, y, weight = (picked(nest, rows) for nest in (data.x, data.y, data.weight))
                see(self._task.measured(x, y, weight, number, training=False), y, len(rows))

    def predict(self, data: TorchData, rows: Any) -> Any:
        """Returns the outputs for some rows."""
        self._module.eval()
        with self._torch.no_grad():
            return self._task.outputs(picked(data.x, rows))

    def backward(self, data: TorchData, rows: Any, number: int, see: See) -> Seen:
        """Computes the gradients of one batch.

        Args:
            data: The party's rows.
            rows: Row numbers.
            number: Of the batch, within the round.
            see: Is told what came of it.

        Raises:
            DataError: It has one row, and a layer needs several.
        """
        for tensor in self._trained:
            tensor.grad = None
        x, y, weight = (picked(nest, rows) for nest in (data.x, data.y, data.weight))
        try:
            seen = self._task.measured(x, y, weight, number, training=True)
        except ValueError as error:
            if len(rows) > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise DataError(
                "x: found a batch of one row, of which BatchNorm has no statistics; expected GroupNorm or LayerNorm in "
                "its place, or more of this party's rows in a round: a larger batch_size, or more rows"
            ) from error
        seen.loss.backward()
        see(seen, y, len(rows))
        return seen

    def grads(self) -> list[Any]:
        """Returns the gradients as they are, None where the loss does not depend on a tensor."""
        return [tensor.grad for tensor in self._trained]

    def _gradients(self) -> tuple[Any, list[Any]]:
        dense = [self._torch.zeros_like(t) if t.grad is None else _dense(t.grad) for t in self._trained]
        shared = len(self._flat.trainable)
        return self._flat.joined(dense[:shared]), dense[shared:]

    def _pull(self, hook: Hook, state: Mapping[str, Any]) -> None:
        shared, _ = self._gradients()
        with self._torch.no_grad():
            changed = hook(state, shared, self._flat.joined(self._flat.trainable))
        parts = self._flat.split(changed, self._flat.trainable)
        for tensor, part in zip(self._flat.trainable, parts, strict=True):
            if tensor.grad is not None:
                tensor.grad = part

    def _step(self) -> None:
        if self._max_norm is not None:
            self._torch.nn.utils.clip_grad_norm_(self._trained, self._max_norm)
        self._optimizer.step()


def _dense(gradient: Any) -> Any:
    if gradient.is_sparse:
        raise PlanError(
            "model: an Embedding with sparse=True has gradients that a strategy cannot change or average; leave sparse "
            "out, or use strategy 'fed_avg_w'"
        )
    return gradient
