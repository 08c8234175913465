# SPDX-License-Identifier: Apache-2.0
"""Losses: the loss of a batch, of one output or several, with weights of rows where there are some.

PyTorch's losses return one number for a batch. A weight of a row needs one for each row: a loss with a `reduction` is
asked for that. Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from fedray.errors import PlanError
from fedray.tree import Tree


class Losses:
    """The loss of a model, as a user wrote it.

    Args:
        torch: The torch module.
        loss: A module or function, or a list or dict of such, one for each output.

    Raises:
        PlanError: It is none, or has parameters of its own.
    """

    def __init__(self, torch: Any, loss: Any) -> None:
        self._torch = torch
        self.tree = Tree(loss, "loss")
        for name, one in self.tree.named():
            if not callable(one) or isinstance(one, type):
                found = one.__name__ if isinstance(one, type) else type(one).__name__
                raise PlanError(f"{name}: expected a loss, e.g. torch.nn.CrossEntropyLoss(), found {found}")
            if isinstance(one, torch.nn.Module) and any(p.requires_grad for p in one.parameters()):
                raise PlanError(
                    f"{name}: {type(one).__name__} has parameters to train, which no party would share; make it a part "
                    "of the module, and hand over a loss without any"
                )

    def pairs(self, outputs: Any, y: Any) -> Iterator[tuple[str, Any, Any, Any]]:
        """Yields name, loss, output and labels of each loss.

        Args:
            outputs: What the model returned.
            y: Labels, nested as the outputs.

        Raises:
            PlanError: The losses are not nested as the outputs.
        """
        if not self.tree.nested:
            yield "y", self.tree.nest, outputs, y
            return
        outputs, labels = Tree(outputs, "output"), Tree(y, "y")
        if not self.tree.same_form(outputs):
            found, expected = (", ".join(tree.names()) for tree in (self.tree, outputs))
            raise PlanError(f"loss: expected one for each output ({expected}), nested as they are, found {found}")
        yield from zip(labels.names(), self.tree.leaves(), outputs.leaves(), labels.leaves(), strict=True)

    def __call__(self, outputs: Any, y: Any, weight: Any = None) -> Any:
        """Returns the loss of a batch, a tensor without axes; several are added.

        Args:
            outputs: What the model returned.
            y: Labels, nested as the outputs.
            weight: One per row, nested as the labels; None where all are 1.

        Raises:
            PlanError: A loss gives something else, or one number for a batch where rows have weights.
        """
        pairs = list(self.pairs(outputs, y))
        weights = [None] * len(pairs) if weight is None else Tree(weight).leaves()
        if len(weights) != len(pairs):
            raise PlanError("sample_weight: expected one loss for each output, found one loss for all of them")
        total = None
        for (name, loss, output, labels), rows in zip(pairs, weights, strict=True):
            one = self._mean(name, loss, output, labels) if rows is None else self._weighed(loss, output, labels, rows)
            total = one if total is None else total + one
        return total

    def _mean(self, name: str, loss: Any, output: Any, y: Any) -> Any:
        value = loss(output, y)
        if not isinstance(value, self._torch.Tensor):
            raise PlanError(
                f"loss of {name}: expected a tensor, found {type(value).__name__}; compute it with torch's operations"
            )
        return value.mean() if value.ndim else value

    def _weighed(self, loss: Any, output: Any, y: Any, weight: Any) -> Any:
        reduction = reduction_of(loss)
        each = _with(loss, "none")(output, y)
        if not each.ndim or len(each) != len(weight):
            raise PlanError(
                f"sample_weight: the loss {name_of(loss)!r} gives one number for a batch, and weights of rows need one "
                "for each row; let it return one number per row, which are averaged"
            )
        each, weight = each.reshape(len(each), -1), weight.reshape(len(each), -1)
        if reduction == "sum":
            return (each * weight).sum()
        if reduction == "batchmean":
            return (each.sum(1, keepdim=True) * weight).sum() / len(each)
        divisor = self._divisor(loss, y) if reduction == "mean" else None
        if divisor is not None:
            return (each * weight).sum() / divisor
        return (each.mean(1, keepdim=True) * weight).mean()

    def _divisor(self, loss: Any, y: Any) -> Any:
        """Returns by what PyTorch divides a sum over class numbers; None where that is their number."""
        settings = settings_of(loss)
        weight, ignored = settings.get("weight"), settings.get("ignore_index")
        if ignored is None or y.is_floating_point():
            return None
        counted = y != ignored
        return counted.sum() if weight is None else weight[y[counted]].sum()


def settings_of(loss: Any) -> dict[str, Any]:
    """Returns what a loss was made with: attributes of a module, bound arguments of a function."""
    if isinstance(loss, functools.partial):
        return settings_of(loss.func) | loss.keywords
    if inspect.isfunction(loss) or inspect.isbuiltin(loss):
        return {n: p.default for n, p in _parameters(loss).items() if p.default is not p.empty}
    known = ("reduction", "weight", "ignore_index")
    return {name: getattr(loss, name) for name in known if hasattr(loss, name)}


def reduction_of(loss: Any) -> str:
    """Returns how a loss puts rows together, as PyTorch calls it; an empty text where it does not say."""
    reduction = settings_of(loss).get("reduction")
    return reduction if isinstance(reduction, str) else ""


def name_of(loss: Any) -> str:
    """Returns what a loss is called: its class, or the function's name."""
    inner = loss.func if isinstance(loss, functools.partial) else loss
    return str(getattr(inner, "__name__", type(inner).__name__))


def _with(loss: Any, reduction: str) -> Callable[..., Any]:
    if not reduction_of(loss):
        return loss  # type: ignore[no-any-return]
    if not hasattr(loss, "reduction"):
        return functools.partial(loss, reduction=reduction)
    other = copy.copy(loss)
    other.reduction = reduction
    return other  # type: ignore[no-any-return]


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # written in C, and silent about its arguments
        return {}
