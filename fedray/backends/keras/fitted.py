# SPDX-License-Identifier: Apache-2.0
"""What becomes known once data has passed through a Keras model: its metrics and what its steps report.

Works on the modules and the model it is handed; imports no framework.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.keras import checks
from fedray.backends.keras.doubts import of_outputs
from fedray.backends.keras.flat import FlatVariables
from fedray.backends.keras.graph import Graphs, flat_logs, pack
from fedray.backends.keras.metrics import ADDITIVE, KerasMetrics, count_rows, why_apart
from fedray.backends.keras.shapes import fits, stock_name
from fedray.backends.keras.trial import verdicts
from fedray.errors import PlanError
from fedray.metrics import Mean, Metric, Word, words


@dataclass(frozen=True, slots=True)
class Reported:
    """What one kind of step reports, as Keras's history would: metrics of the model, bare values of a custom step.

    Attributes:
        owner: All metrics of the model.
        metrics: Names of those that the step reports.
        logs: Names of values that it returns and no metric keeps; they are averaged over rows.
        custom: Whether the step is the user's own.
    """

    owner: KerasMetrics
    metrics: tuple[str, ...]
    logs: tuple[str, ...]
    custom: bool = False

    def read(self, sums: NDArray[np.floating[Any]], rows: int) -> list[Metric]:
        """Returns the metrics, those of bare values from their sums over rows."""
        means = [Mean(name, float(total), float(rows)) for name, total in zip(self.logs, sums, strict=True)]
        return [*self.owner.read(self.metrics), *means]

    def loss(self, sums: NDArray[np.floating[Any]], rows: int) -> Mean | None:
        """Returns the loss among them alone, where it is a mean over rows: others, as AUC, take long to compute."""
        only = replace(self, metrics=tuple(name for name in self.metrics if name == "loss"))
        return next((one for one in only.read(sums, rows) if one.name == "loss" and isinstance(one, Mean)), None)

    @property
    def words(self) -> tuple[Word, ...]:
        """The numbers that the metrics' states flatten to."""
        found = words(self.read(np.zeros(len(self.logs)), 0))
        # A step of the user's own may weigh rows as it likes, and then even a count is no whole number.
        return tuple(replace(word, whole=word.whole and not self.custom) for word in found)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model that has seen data.

    Attributes:
        metrics: Its metrics.
        steps: Its steps, to be traced.
        trained: What its train_step reports.
        tested: What its test_step reports.
        doubts: What its makers can hardly mean, in words.
    """

    metrics: KerasMetrics
    steps: Graphs
    trained: Reported
    tested: Reported
    doubts: tuple[str, ...] = ()


def fit(tf: Any, keras: Any, model: Any, flat: FlatVariables, tensors: tuple[Any, ...]) -> Fitted:
    """Builds loss and metrics on a few rows, and finds out what the steps report.

    Args:
        tf: The tensorflow module.
        keras: The keras module.
        model: A built, compiled model.
        flat: Its variables.
        tensors: x, or x and y, or x, y and sample_weight of a few rows.
    """
    x, y, sample_weight = (*tensors, None, None)[:3]
    output = model(x)
    if len(tensors) > 1:
        if model.loss is not None:
            Graphs(tf, model, flat, (), ()).loss(x, y, output, sample_weight, training=False)
            count_rows(tf, model)
        _measure(model, x, y, output, sample_weight)
    metrics = KerasMetrics(keras, model)
    unknown = metrics.unknown
    if unknown:
        found = zip(unknown.items(), verdicts(tf, model, list(unknown.values()), tensors, output), strict=True)
        reasons = {name: why_apart(metric, verdict) for (name, metric), verdict in found}
        metrics.keep_apart({name: reason for name, reason in reasons.items() if reason})
    metrics.reset()
    trained, tested = (_reported(tf, keras, model, step, tensors, metrics) for step in ("train_step", "test_step"))
    doubts = of_outputs(keras, model, partial(stock_name, keras))
    return Fitted(metrics, Graphs(tf, model, flat, trained.logs, tested.logs), trained, tested, doubts)


def _measure(model: Any, x: Any, y: Any, output: Any, sample_weight: Any) -> None:
    """Lets the model's metrics see a few rows.

    Args:
        model: A built, compiled model.
        x: The rows.
        y: Their labels.
        output: What the model makes of the rows.
        sample_weight: Their weights, or None.

    Raises:
        PlanError: The labels are numbers of classes, and a metric takes them one by one.
    """
    try:
        model.compute_metrics(x, y, output, sample_weight=sample_weight)
    except Exception as error:
        kinds = {type(one).__name__ for metric in model.metrics for one in getattr(metric, "metrics", None) or [metric]}
        paired = sorted(kinds & ADDITIVE)
        shapes = [tuple(one.shape[1:]) for one in (y, output) if hasattr(one, "shape")]
        if not (paired and len(shapes) == 2 and not fits(*shapes)):
            raise
        raise PlanError(
            f"metrics: {', '.join(paired)}: one of them compares each label with an output of its own; expected labels "
            f"of shape {shapes[1]}, found {shapes[0]}; take 'accuracy' for numbers of classes, or one-hot labels with "
            "a loss for them"
        ) from error


def _reported(tf: Any, keras: Any, model: Any, step: str, batch: tuple[Any, ...], metrics: KerasMetrics) -> Reported:
    if not checks.is_custom(keras, model, step):
        return Reported(metrics, metrics.names, ())
    # Traced, not run: the weights must not move.
    traced = tf.function(getattr(model, step), autograph=False).get_concrete_function(pack(batch))
    logs = flat_logs(traced.structured_outputs)
    known = tuple(name for name in metrics.names if name in logs)
    return Reported(metrics, known, tuple(name for name in logs if name not in metrics.names), custom=True)
