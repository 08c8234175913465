# SPDX-License-Identifier: Apache-2.0
"""What a module makes of a batch: its loss and outputs, in the plain way, or in Lightning's.

Works on the objects it is handed; imports no framework. Knows no optimizer and no party.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fedray.backends.torch.compiled import Compiled
from fedray.backends.torch.labels import fitted
from fedray.backends.torch.losses import Losses
from fedray.errors import DataError, PlanError
from fedray.tree import Tree


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one batch.

    Attributes:
        loss: A tensor without axes.
        outputs: What the module returned, detached; None where a step of the user's own keeps them to itself.
        logs: Numbers that such a step logged, by name.
    """

    loss: Any
    outputs: Any = None
    logs: dict[str, float] = field(default_factory=dict)


class Task(Protocol):
    """What a module makes of a batch."""

    def measured(self, x: Any, y: Any, weight: Any, number: int, training: bool) -> Seen:
        """Returns the loss of a batch, with its gradients within reach.

        Args:
            x: Inputs.
            y: Labels, or None.
            weight: One per row, nested as the labels, or None.
            number: Of the batch, within the round.
            training: Whether it is trained on, or evaluated.
        """

    def outputs(self, x: Any) -> Any:
        """Returns what the module says of rows that are predicted."""

    def labels(self, y: Tree, outputs: Any) -> Tree:
        """Returns labels as the loss takes them.

        Args:
            y: Arrays of all rows.
            outputs: What the module returned for two rows.

        Raises:
            DataError: They do not fit.
            PlanError: The losses are not the outputs'.
        """


class PlainTask:
    """A module, and a loss of its outputs.

    Args:
        torch: The torch module.
        forward: The module, or what was compiled of it.
        loss: A loss, or one for each output.
    """

    def __init__(self, torch: Any, forward: Any, loss: Any) -> None:
        self._torch, self._forward, self._losses = torch, forward, Losses(torch, loss)

    def measured(self, x: Any, y: Any, weight: Any, number: int, training: bool) -> Seen:  # noqa: ARG002 (the module knows)
        """Returns loss and outputs; see `Task`."""
        outputs = called(self._forward, x)
        return Seen(self._losses(outputs, y, weight), detached(outputs))

    def outputs(self, x: Any) -> Any:
        """Returns the module's outputs."""
        return called(self._forward, x)

    def labels(self, y: Tree, outputs: Any) -> Tree:
        """Returns labels as each loss takes those of its output; see `Task`.

        One loss of several outputs is handed all of them as they are.

        Raises:
            DataError: They do not fit.
        """
        said = Tree(outputs, y.name)
        if said.nested and not self._losses.tree.nested:
            return y
        if not y.same_form(said) and not len(y.leaves()) == len(said.leaves()) == 1:
            expected, found = (", ".join(tree.names()) or "no array" for tree in (said, y))
            raise DataError(f"{y.name}: the model expects labels for its outputs, {expected}; found {found}")
        nest = said.rebuild(y.leaves()).nest
        pairs = self._losses.pairs(outputs, nest)
        return said.rebuild([fitted(self._torch, loss, name, labels, output) for name, loss, output, labels in pairs])


class LightningTask:
    """A module with a `training_step`, as Lightning calls it; what it logs is averaged over rows.

    Args:
        torch: The torch module.
        module: The module; its `log` is replaced where it has one.
    """

    def __init__(self, torch: Any, module: Any) -> None:
        self._torch, self._module = torch, module
        self._logged: dict[str, Any] = {}
        module.log = self._log
        module.log_dict = self._log_dict

    def measured(self, x: Any, y: Any, weight: Any, number: int, training: bool) -> Seen:
        """Returns the loss that the step returns, or that it logs; see `Task`.

        Raises:
            PlanError: It gives none, or rows have weights, which it would not look at.
        """
        if weight is not None:
            raise PlanError("sample_weight: a training_step of the model's own would not look at it; leave it out")
        self._logged = {}
        step = "training_step" if training or not is_own(self._module, "validation_step") else "validation_step"
        returned = getattr(self._module, step)((x, y) if y is not None else x, number)
        prefix = "train_" if step == "training_step" else "val_"
        logs = {name.removeprefix(prefix): value for name, value in self._logged.items()}
        logged = logs.pop("loss", None)
        loss = returned.get("loss") if isinstance(returned, Mapping) else returned
        loss = logged if loss is None else loss
        if not isinstance(loss, self._torch.Tensor) or loss.ndim:
            raise PlanError(
                f"{step}: expected it to return the loss of a batch, one number (or to log it as 'loss'), found "
                f"{type(loss).__name__}"
            )
        return Seen(loss, None, {name: self._number(name, value) for name, value in logs.items()})

    def outputs(self, x: Any) -> Any:
        """Returns what `predict_step` does, or the module itself."""
        if is_own(self._module, "predict_step"):
            return self._module.predict_step(x, 0)
        return called(self._module, x)

    def labels(self, y: Tree, outputs: Any) -> Tree:  # noqa: ARG002 (the step alone knows what it does with them)
        """Returns labels as they are."""
        return y

    def _log(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        """Takes a logged number; how Lightning's logger would have shown it does not matter here."""
        self._logged[name] = value

    def _log_dict(self, values: Mapping[str, Any], *_: Any, **__: Any) -> None:
        self._logged |= values

    def _number(self, name: str, value: Any) -> float:
        if not isinstance(value, int | float) and not (isinstance(value, self._torch.Tensor) and value.ndim == 0):
            raise PlanError(
                f"log({name!r}): expected a number of the batch, found {type(value).__name__}; log what it comes to "
                "for the batch, which is averaged over rows"
            )
        return float(value)


def task_of(torch: Any, compiled: Compiled, device: Any) -> Task:
    """Returns what a model makes of a batch.

    Args:
        torch: The torch module.
        compiled: The model; without a loss where its module has a `training_step`.
        device: Where the module is; its loss may hold weights of classes, and goes there too.
    """
    if compiled.loss is None:
        return LightningTask(torch, compiled.module)
    for loss in Tree(compiled.loss, "loss").leaves():
        if isinstance(loss, torch.nn.Module):
            loss.to(device)
    forward = torch.compile(compiled.module) if compiled.compile else compiled.module
    return PlainTask(torch, forward, compiled.loss)


def is_own(module: Any, method: str) -> bool:
    """Returns whether a module has a method that is not Lightning's own."""
    found = getattr(type(module), method, None)
    return found is not None and not str(getattr(found, "__module__", "")).split(".")[0].endswith("lightning")


def called(forward: Any, x: Any) -> Any:
    """Returns what a module gives for inputs: one, several in their order, or those of a dict by name."""
    if isinstance(x, dict):
        return forward(**x)
    return forward(*x) if isinstance(x, list | tuple) else forward(x)


def detached(nest: Any) -> Any:
    """Returns outputs without their gradients."""
    if isinstance(nest, dict):
        return {key: detached(value) for key, value in nest.items()}
    if isinstance(nest, list | tuple):
        return [detached(value) for value in nest]
    return nest.detach()
