# SPDX-License-Identifier: Apache-2.0
"""Asked: the metrics that a user handed over, each with its name and the output that it looks at.

Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.callables import takes_two
from fedray.errors import DataError, PlanError


@dataclass(frozen=True, slots=True)
class Asked:
    """One metric.

    Attributes:
        name: In the history.
        metric: A torchmetrics object, or a function of output and labels.
        path: Where its output is among several; empty for the only one.
        is_object: Whether it is a torchmetrics object.
        is_stock: Whether its class is torchmetrics' own.
    """

    name: str
    metric: Any
    path: tuple[Any, ...]
    is_object: bool
    is_stock: bool

    def looks_at(self, nest: Any) -> Any:
        """Returns its output, or its labels, among those of all outputs."""
        return reduce(operator.getitem, self.path, nest)

    def labels(self, torch: Any, output: Any, y: Any) -> Any:
        """Returns labels as torchmetrics' classes of classification take them: numbers of classes, integers.

        Args:
            torch: The torch module.
            output: Of the model.
            y: As the loss takes them.
        """
        if not self.wants_classes or not y.is_floating_point():
            return y
        one_hot = type(self.metric).__name__.startswith("Multiclass") and y.shape == output.shape
        return y.argmax(1) if one_hot else y.to(torch.int64)

    def check_labels(self, name: str, y: NDArray[Any]) -> None:
        """Refuses labels that are no classes, where the metric would take them for such.

        Args:
            name: What they are called.
            y: As the loss takes them.

        Raises:
            DataError: They are not.
        """
        if self.wants_classes and y.dtype.kind == "f" and not np.array_equal(y, np.rint(y)):
            raise DataError(
                f"{name}: the metric {type(self.metric).__name__!r} expects classes, 0 or 1 or their numbers, found "
                "fractions; take a metric of numbers, or hand over classes"
            )

    @property
    def wants_classes(self) -> bool:
        """Whether it is one of torchmetrics' metrics of classification, which take no floating-point labels."""
        return self.is_stock and type(self.metric).__name__.startswith(("Binary", "Multiclass", "Multilabel"))


def asked_for(metrics: Any, metric_class: Callable[[], Any]) -> list[Asked]:
    """Returns the metrics of a model.

    Args:
        metrics: A list; a dict under names of their own; or lists or dicts of them for each output.
        metric_class: Returns the base class of torchmetrics.

    Raises:
        PlanError: One is of another kind, or two have one name.
    """
    found = list(_asked(metrics, (), metric_class))
    twice = [name for name, count in Counter(["loss", *(one.name for one in found)]).items() if count > 1]
    if twice:
        raise PlanError(f"metrics: two would be called {twice[0]!r}; pass a dict, under names of their own")
    return found


def _asked(metrics: Any, path: tuple[Any, ...], metric_class: Callable[[], Any]) -> Iterator[Asked]:
    if not isinstance(metrics, Mapping | Sequence) or isinstance(metrics, str):
        raise PlanError(f"metrics: expected a list, or a dict by name, found {type(metrics).__name__}")
    entries = metrics.items() if isinstance(metrics, Mapping) else enumerate(metrics)
    for key, one in entries:
        if isinstance(one, Mapping | list | tuple) and not _is_function(one):
            yield from _asked(one, (*path, key), metric_class)
            continue
        function = _is_function(one)
        if not function and not (hasattr(one, "compute") and isinstance(one, metric_class())):
            raise PlanError(
                f"metrics: expected torchmetrics objects or functions of (output, y), found {type(one).__name__}"
            )
        if function and not takes_two(one):
            raise PlanError(
                f"metrics: expected a function of (output, y), and {getattr(one, '__name__', 'one')!r} takes other "
                "arguments; it returns a number for each row"
            )
        plain = getattr(one, "__name__", "") if function else type(one).__name__.lower()
        name = key if isinstance(key, str) else plain
        name = "_".join([*map(str, path), name])
        stock = not function and type(one).__module__.startswith("torchmetrics.")
        yield Asked(name, one, path, not function, stock)


def _is_function(one: Any) -> bool:
    return callable(one) and not isinstance(one, type) and not hasattr(one, "compute")
