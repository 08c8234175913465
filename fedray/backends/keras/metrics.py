# SPDX-License-Identifier: Apache-2.0
"""KerasMetrics: a model's own metric objects, read as summable records and finished by themselves.

Nothing is computed anew: state variables are read, summed elsewhere, and put back into the same stock metric, whose
`result()` then is the metric over all rows. Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import update_wrapper
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.trial import Verdict
from fedray.errors import DataError, PlanError
from fedray.metrics import Mean, Metric, Tally

_ADDITIVE = (
    "AUC F1Score FBetaScore FalseNegatives FalsePositives BinaryIoU IoU MeanIoU OneHotIoU OneHotMeanIoU Precision"
    " PrecisionAtRecall R2Score Recall RecallAtPrecision SensitivityAtSpecificity SpecificityAtSensitivity Sum"
    " TrueNegatives TruePositives"
)
ADDITIVE = frozenset(_ADDITIVE.split())
"""Stock metrics, besides the means, whose state variables are sums over rows."""

COUNTING = ADDITIVE - {"F1Score", "FBetaScore", "R2Score", "Sum"}
"""Those of them whose state variables count, so that they are whole numbers unless rows or labels have weights."""


class KerasMetrics:
    """The metrics of one model, in the order and under the names of Keras's own history.

    Args:
        keras: The keras module.
        model: A compiled model whose metrics are built.

    Raises:
        PlanError: A metric's result is a dict, which has no place in a history of numbers; or two have one name.
    """

    def __init__(self, keras: Any, model: Any) -> None:
        self._keras = keras
        # Where two have one name, Keras's history shows the later: a tracker of the user's own called "loss" before the
        # one that a custom step leaves at zero.
        self._metrics = {name: member for metric in model.metrics for name, member in _members(metric)}
        self._is_mean = {name: _is_mean(keras, metric) for name, metric in self._metrics.items()}
        self._apart: dict[str, str] = {}
        compiled = {id(metric) for metric in _compiled(model)}
        self._whole = {
            # Whoever made a metric outside of compile may feed it weights of its own.
            name: _whole(keras, metric) if id(metric) in compiled else ()
            for name, metric in self._metrics.items()
        }
        for name, metric in self._metrics.items():
            if not _is_stock(keras, metric) and isinstance(metric.result(), dict):
                raise PlanError(f"metric {name!r} returns a dict; return one number per metric object")

    @property
    def names(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(self._metrics)

    @property
    def unknown(self) -> dict[str, Any]:
        """Name -> metric of those that are not known to add up over rows: all but stock ones."""
        return {n: m for n, m in self._metrics.items() if not (_is_stock(self._keras, m) and _adds_up(self._keras, m))}

    @property
    def apart(self) -> dict[str, str]:
        """Name -> why it stays with its party, and what to do, in words."""
        return dict(self._apart)

    def keep_apart(self, reasons: Mapping[str, str]) -> None:
        """Lets metrics stay with their party from now on; the value of each is why."""
        self._apart |= {name: reasons[name] for name in self._metrics if name in reasons}

    @property
    def directions(self) -> dict[str, str]:
        """Metric name -> `"max"` or `"min"`, where Keras knows which is better."""
        known = {name: getattr(metric, "_direction", None) for name, metric in self._metrics.items()}
        ways = {"up": "max", "down": "min"}
        return {name: ways[direction] for name, direction in known.items() if direction in ways}

    @property
    def variables(self) -> list[Any]:
        """All state variables."""
        return [variable for metric in self._metrics.values() for variable in metric.variables]

    def read(self, names: Sequence[str]) -> list[Metric]:
        """Returns the metrics of these names over the rows since the last reset."""
        return [self._read(name) for name in names]

    def values(self) -> list[NDArray[Any]]:
        """Returns all state variables as they are."""
        return [variable.numpy() for variable in self.variables]

    def set_values(self, values: Sequence[NDArray[Any]]) -> None:
        """Puts back what `values` returned."""
        _assign(self.variables, values)

    def reset(self, *, but_apart: bool = False) -> None:
        """Forgets the rows seen.

        Args:
            but_apart: Whether metrics that stay with their party go on: their values cannot be put together later.
        """
        for name, metric in self._metrics.items():
            if not (but_apart and name in self._apart):
                metric.reset_state()

    def finish(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Returns the metrics with the value that the stock metric computes from their state.

        Raises:
            DataError: A metric is not one of this model's, or its state does not fit.
        """
        return [self._finish(metric) if isinstance(metric, Tally) else metric for metric in metrics]

    def _read(self, name: str) -> Metric:
        metric = self._metrics[name]
        state = tuple(np.asarray(variable.numpy(), np.float64) for variable in metric.variables)
        if self._is_mean[name] and name not in self._apart:
            return Mean(name, float(state[0]), float(state[1]), any(self._whole[name]))
        return Tally(name, state, _value(metric), name not in self._apart, self._whole[name])

    def _finish(self, tally: Tally) -> Tally:
        metric = self._metrics.get(tally.name)
        if metric is None:
            raise DataError(f"metric {tally.name!r} is not one of this model's: {', '.join(self._metrics)}")
        variables = list(metric.variables)
        expected, found = [tuple(v.shape) for v in variables], [array.shape for array in tally.state]
        if expected != found:
            raise DataError(f"metric {tally.name!r}: expected state of shapes {expected}, found {found}")
        saved = [variable.numpy() for variable in variables]
        try:
            _assign(variables, tally.state)
            return replace(tally, value=_value(metric))
        finally:
            _assign(variables, saved)


def _value(metric: Any) -> float | NDArray[np.float64]:
    value = np.asarray(metric.result(), np.float64)
    return float(value) if value.ndim == 0 else value


def _assign(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _is_stock(keras: Any, metric: Any) -> bool:
    return type(metric) is getattr(keras.metrics, type(metric).__name__, None)


def _adds_up(keras: Any, metric: Any) -> bool:
    return isinstance(metric, keras.metrics.Mean) or type(metric).__name__ in ADDITIVE


def _is_mean(keras: Any, metric: Any) -> bool:
    return isinstance(metric, keras.metrics.Mean) and type(metric).result is keras.metrics.Mean.result


def why_apart(metric: Any, verdict: Verdict) -> str:
    """Returns why a metric stays with its party, and what to do; empty where it is merged.

    Args:
        metric: One whose class is a user's own.
        verdict: What a trial has shown. Where it shows nothing, and where the state adds up over batches only, the
            class's own word decides.
    """
    declared = getattr(metric, "additive", None)
    if declared is False:
        return "its class says additive = False"
    says = "its class says additive = True, but " if declared is True else ""
    if not metric.variables:
        return f"{says}it has no state; make its state with add_variable, sums over rows that start at zero"
    if verdict == "no":
        return (
            f"{says}a trial shows that its state over some rows is not the sum of its states over parts of them; let "
            "its variables be sums over rows, starting at zero, and compute the value in result()"
        )
    if verdict == "rows" or declared is True:
        return ""
    if verdict == "batches":
        return (
            "a trial shows that its state counts batches, not rows; let its variables be sums over rows, or say "
            "additive = True in its class where a mean over all batches will do"
        )
    return "made-up rows did not show whether its state adds up over rows; say additive = True in its class if it does"


def _whole(keras: Any, metric: Any) -> tuple[bool, ...]:
    """Returns which state variables of a metric are whole numbers, whatever the labels; see `Tally.whole`."""
    if not _is_stock(keras, metric):
        return ()
    if isinstance(metric, keras.metrics.Mean):
        return (False, True)
    counts = type(metric).__name__ in COUNTING and getattr(metric, "label_weights", None) is None
    return (True,) * len(metric.variables) if counts else ()


def _compiled(model: Any) -> list[Any]:
    """Returns the metrics that `compile` made: the loss, that of each output, and those that were asked for."""
    losses = model._compile_loss.metrics if model._compile_loss is not None else []
    asked = [member for metric in model.metrics for _, member in _members(metric) if member is not metric]
    return [model._loss_tracker, *losses, *asked]


def _members(metric: Any) -> list[tuple[str, Any]]:
    """Returns (name in the history, metric) of one of a model's metrics, or of the container of those it compiled.

    The container alone knows which output a metric belongs to, and puts its name before the metric's.
    """
    if type(metric).__name__ != "CompileMetrics":
        return [(metric.name, metric)]
    members = metric.metrics
    names = list(metric.result()) if members else []
    if len(names) != len(members):
        found = ", ".join(member.name for member in members)
        raise PlanError(f"metrics: two of {found} would have one name in the history; give them others with name=...")
    return list(zip(names, members, strict=True))


def count_rows(tf: Any, model: Any) -> None:
    """Lets the losses of a model's single outputs count rows.

    Keras counts each batch once where its number of rows is not part of the graph, so that a small last batch weighs as
    much as the others and the sums of several parties are no mean over rows.

    Args:
        tf: The tensorflow module.
        model: A compiled model whose loss is built.
    """
    compiled = model._compile_loss
    if compiled is None or not compiled.metrics:
        return
    for place, tracker in enumerate(compiled.metrics):
        one = compiled._flat_losses[place]
        loss, update = _counted(tf, one.loss, tracker.update_state)
        compiled._flat_losses[place] = one._replace(loss=loss)
        tracker.update_state = update


def _counted(tf: Any, loss: Callable[..., Any], update: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Returns a loss that notes how many rows it is given, and an update of its tracker that weighs with them."""
    rows: list[Any] = []

    def noted(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        rows[:] = [tf.shape(tf.nest.flatten(y_pred)[0])[0]]
        return loss(y_true, y_pred, sample_weight)

    def weighed(value: Any, sample_weight: Any = None) -> Any:  # noqa: ARG001 (what Keras passes is the batch's length)
        return update(value, sample_weight=rows[0])

    return update_wrapper(noted, loss, assigned=(), updated=()), weighed  # who looks for the loss finds it under this
