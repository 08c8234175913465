# SPDX-License-Identifier: Apache-2.0
"""TorchMetrics: a model's torchmetrics, read as summable records and finished by themselves.

Nothing is computed anew: states that are sums are read, summed elsewhere, and put back into the same metric, whose
`compute()` then is the metric over all rows. Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.torch.asked import Asked
from fedray.backends.trial import Verdict
from fedray.errors import DataError, PlanError
from fedray.metrics import Mean, Metric, Tally

States = list[dict[str, Any]]


@dataclass(slots=True)
class _Average:
    """A function of output and labels, averaged over rows."""

    function: Callable[[Any, Any], Any]
    total: float = 0.0
    count: int = 0

    def update(self, name: str, output: Any, y: Any) -> None:
        values = self.function(output, y)
        rows = len(values) if getattr(values, "ndim", 0) else -1
        if rows != len(y):
            raise PlanError(
                f"metric {name!r}: expected a function that returns one number for each row, as a tensor; give another "
                "kind of metric as a torchmetrics.Metric"
            )
        self.total += float(values.detach().double().reshape(rows, -1).mean(1).sum()) if rows else 0.0
        self.count += rows


class TorchMetrics:
    """The metrics of one model, in the order in which they were handed over.

    Args:
        torch: The torch module.
        asked: The metrics and where each looks.
        device: Where the model is.
    """

    def __init__(self, torch: Any, asked: Sequence[Asked], device: Any) -> None:
        self._torch = torch
        self._asked = {one.name: one for one in asked}
        self._metrics: dict[str, Any] = {}
        for one in asked:
            # In float64, sums over many rows keep their digits; a class of a user's own may not be able to.
            made: Any = copy.deepcopy(one.metric).to(device) if one.is_object else _Average(one.metric)
            self._metrics[one.name] = made._apply(_widened) if one.is_stock else made
        self._apart: dict[str, str] = {}
        self._shapes: dict[str, list[tuple[int, ...]]] = {}
        self.reset()

    def settle(self, seen: TorchMetrics) -> None:
        """Takes the shapes of states from metrics that have seen rows: some have one number until then, and then more.

        Args:
            seen: The same metrics, or these themselves.
        """
        self._shapes = {n: [tuple(t.shape) for t in tensors_of(metric)] for n, metric in seen.objects.items()}

    @property
    def apart(self) -> dict[str, str]:
        """Name -> why it stays with its party, and what to do, in words."""
        return dict(self._apart)

    def keep_apart(self, reasons: Mapping[str, str]) -> None:
        """Lets metrics stay with their party from now on; the value of each is why."""
        self._apart |= {name: reasons[name] for name in self._metrics if name in reasons}

    @property
    def objects(self) -> dict[str, Any]:
        """Name -> metric of those that have a state of their own making."""
        return {name: metric for name, metric in self._metrics.items() if not isinstance(metric, _Average)}

    @property
    def directions(self) -> dict[str, str]:
        """Name -> `"max"` or `"min"`, where the metric knows which is better."""
        known = {name: getattr(metric, "higher_is_better", None) for name, metric in self.objects.items()}
        return {name: "max" if better else "min" for name, better in known.items() if better is not None}

    def update(self, outputs: Any, y: Any) -> None:
        """Lets every metric see a batch.

        Args:
            outputs: What the model returned, detached.
            y: Labels as the loss takes them, nested as the outputs.
        """
        for name, metric in self._metrics.items():
            self.show(name, metric, outputs, y)

    def show(self, name: str, metric: Any, outputs: Any, y: Any) -> None:
        """Lets one metric see a batch; see `update`."""
        asked = self._asked[name]
        output, labels = asked.looks_at(outputs), asked.looks_at(y)
        if isinstance(metric, _Average):
            metric.update(name, output, labels)
        else:
            metric.update(output, asked.labels(self._torch, output, labels))

    def read(self) -> list[Metric]:
        """Returns the metrics over the rows since the last reset."""
        return [self._read(name) for name in self._metrics]

    def reset(self, *, but_apart: bool = False) -> None:
        """Forgets the rows seen.

        Args:
            but_apart: Whether metrics that stay with their party go on: their values cannot be put together later.
        """
        for name, metric in self._metrics.items():
            if isinstance(metric, _Average):
                metric.total, metric.count = 0.0, 0
            elif not (but_apart and name in self._apart):
                metric.reset()

    def states(self) -> States:
        """Returns all states, in memory of their own."""
        return [self._copied(metric) for metric in self._metrics.values()]

    def set_states(self, states: States) -> None:
        """Puts back what `states` returned."""
        for metric, state in zip(self._metrics.values(), states, strict=True):
            for name, value in self._copied_state(state).items():
                setattr(metric, name, value)

    def finish(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Returns the metrics with the value that the metric itself computes from their state.

        Raises:
            DataError: A metric is not one of this model's, or its state does not fit.
        """
        return [self._finish(metric) if isinstance(metric, Tally) else metric for metric in metrics]

    def _read(self, name: str) -> Metric:
        metric = self._metrics[name]
        if isinstance(metric, _Average):
            return Mean(name, metric.total, float(metric.count))
        additive = name not in self._apart
        tensors = tensors_of(metric) if additive else []
        whole = tuple(not tensor.is_floating_point() for tensor in tensors)
        shapes = self._shapes.get(name) or [tuple(tensor.shape) for tensor in tensors]
        state = tuple(_shaped(name, tensor, shape) for tensor, shape in zip(tensors, shapes, strict=False))
        return Tally(name, state, _value(metric, name), additive, whole)

    def _finish(self, tally: Tally) -> Tally:
        metric = self.objects.get(tally.name)
        if metric is None:
            raise DataError(f"metric {tally.name!r} is not one of this model's: {', '.join(self._metrics)}")
        if not tally.additive:
            return tally
        own = copy.deepcopy(metric)
        expected, found = self._shapes.get(tally.name, []), [array.shape for array in tally.state]
        if expected != found:
            raise DataError(f"metric {tally.name!r}: expected state of shapes {expected}, found {found}")
        for name, tensor, array in zip(own._defaults, tensors_of(own), tally.state, strict=True):
            setattr(own, name, self._torch.from_numpy(np.array(array)).to(tensor))
        own._computed = None
        return replace(tally, value=_value(own, tally.name))

    def _copied(self, metric: Any) -> dict[str, Any]:
        if isinstance(metric, _Average):
            return {"total": metric.total, "count": metric.count}
        state = {name: getattr(metric, name) for name in metric._defaults}
        return self._copied_state(state | {"_update_count": metric._update_count, "_computed": None})

    @staticmethod
    def _copied_state(state: Mapping[str, Any]) -> dict[str, Any]:
        def copied(value: Any) -> Any:
            # A tensor in a list is never written to again; the list is.
            return list(value) if isinstance(value, list) else value.clone() if hasattr(value, "clone") else value

        return {name: copied(value) for name, value in state.items()}


class TriedMetric:
    """A torchmetrics metric as a trial looks at it; see `fedray.backends.trial.verdict`.

    Args:
        metric: Its state is lost.
    """

    def __init__(self, metric: Any) -> None:
        self.metric = metric

    @property
    def variables(self) -> list[StateReading]:
        """Its states, in order."""
        return [StateReading(numbers(tensor), str(tensor.dtype)) for tensor in tensors_of(self.metric)]

    def reset_state(self) -> None:
        """Forgets the rows seen."""
        self.metric.reset()


@dataclass(frozen=True, slots=True)
class StateReading:
    """One state of a metric: its numbers, and their type's name."""

    array: NDArray[np.float64]
    dtype: str

    def numpy(self) -> NDArray[np.float64]:
        """Returns the numbers."""
        return self.array


def tensors_of(metric: Any) -> list[Any]:
    """Returns the states of a metric that are tensors, in the order in which it declared them."""
    states = [getattr(metric, name) for name in metric._defaults]
    return [state for state in states if not isinstance(state, list)]


def numbers(tensor: Any) -> NDArray[np.float64]:
    """Returns the numbers of a state, float64."""
    return np.asarray(tensor.detach().double().cpu().numpy(), np.float64)


def why_not_sums(metric: Any) -> str:
    """Returns why a metric's own declarations keep it with its party, and what to do; empty where they do not."""
    kinds = metric._reductions
    for name, default in metric._defaults.items():
        if isinstance(default, list):
            return (
                f"its state {name!r} is a list of all rows; take one whose state is a sum, e.g. with thresholds=100 "
                "for curves and areas under them"
            )
        kind = getattr(kinds.get(name), "__name__", str(kinds.get(name)))
        if kind != "dim_zero_sum":
            return (
                f"its state {name!r} is put together by {kind.removeprefix('dim_zero_')}, not by a sum; let its class "
                "declare dist_reduce_fx='sum' for states that are sums over rows"
            )
        if bool((default != 0).any()):
            return f"its state {name!r} does not start at zero; let it"
    return "" if metric._defaults else "it has no state; declare it with add_state, as sums over rows"


def why_apart(metric: Any, stock: bool, verdict: Verdict) -> str:
    """Returns why a metric stays with its party, and what to do; empty where it is merged.

    Args:
        metric: One whose states are declared to be sums.
        stock: Whether its class is torchmetrics' own.
        verdict: What a trial has shown.
    """
    declared = getattr(metric, "additive", None)
    if declared is False:
        return "its class says additive = False"
    if verdict == "no":
        return (
            "a trial shows that its state over some rows is not the sum of its states over parts of them; let its "
            "states be sums over rows, starting at zero, and compute the value in compute()"
        )
    if verdict == "rows" or declared is True or stock:
        return ""
    if verdict == "batches":
        return (
            "a trial shows that its state counts batches, not rows; let its states be sums over rows, or say additive "
            "= True in its class where a mean over all batches will do"
        )
    return "made-up rows did not show whether its state adds up over rows; say additive = True in its class if it does"


def _shaped(name: str, tensor: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Returns the numbers of a state in the shape that it has once rows were seen.

    Args:
        name: The metric's.
        tensor: Its state.
        shape: That shape.

    Raises:
        PlanError: It has another one.
    """
    found = numbers(tensor)
    if found.shape == shape:
        return found
    if found.ndim:
        raise PlanError(
            f"metric {name!r}: its state had shape {shape} and has {found.shape} now; its states could not be added"
        )
    return np.full(shape, found)


def _widened(tensor: Any) -> Any:
    return tensor.double() if tensor.is_floating_point() else tensor


def _value(metric: Any, name: str) -> float | NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a metric that has seen no rows yet
        try:
            value = metric.compute()
        except (RuntimeError, ValueError):  # it wants more rows than there are, as R2Score does
            return math.nan
    if not hasattr(value, "detach"):
        raise PlanError(
            f"metric {name!r} gives a {type(value).__name__}, which has no place in a history of numbers; hand over "
            "metrics that give one number, or one for each class"
        )
    found = numbers(value)
    return float(found) if found.ndim == 0 else found
