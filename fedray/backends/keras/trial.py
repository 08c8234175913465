# SPDX-License-Identifier: Apache-2.0
"""How Keras's metrics are tried: which of a model's rows each sees, and by what call.

What a trial is, and what it finds: `fedray/backends/trial.py`.

Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.keras.graph import pack
from fedray.backends.trial import SPLITS, MadeUp, Showing, Verdict, made_up, verdict
from fedray.tree import Tree


def verdicts(tf: Any, model: Any, metrics: Sequence[Any], tensors: tuple[Any, ...], output: Any) -> list[Verdict]:
    """Returns what was found out about each metric; leaves their states and the model's weights as they were.

    Args:
        tf: The tensorflow module.
        model: A built, compiled model whose metrics are built.
        metrics: Some of its metrics.
        tensors: x, or x and y, of a few rows, for their shapes and types.
        output: What the model returns for them.
    """
    x, y = (*tensors, None)[:2]
    rows = [made_up(x, y, output, kind) for kind in ("classes", "numbers")]
    kept = [(variable, variable.numpy()) for variable in [*model.non_trainable_variables, *model.metrics_variables]]
    try:
        # Where each update takes the whole model, which may be large, one split of the rows has to do.
        found = []
        for metric in metrics:
            compiled = _compiled(tf, model._compile_metrics, metric)
            splits = SPLITS if compiled else SPLITS[1:2]
            found.append(verdict(metric, compiled or _by_step(tf, model), rows, splits))
        return found
    finally:
        for variable, value in kept:
            variable.assign(value)


def _by_step(tf: Any, model: Any) -> Showing:
    """Returns how a metric that the model updates itself sees a batch: by the model's own step."""

    def update(rows: MadeUp, index: NDArray[np.int64], weighted: bool) -> None:
        nests = (rows.x, rows.y, rows.weight if weighted else None)
        model.test_step(pack(tuple(_picked(tf, nest, index) for nest in nests if nest is not None)))

    return update


def _compiled(tf: Any, compiled: Any, metric: Any) -> Showing | None:
    """Returns how Keras lets a compiled metric see a batch of its own output; None for any other metric."""
    place, takes_weights = _place(compiled, metric)
    if place is None:
        return None

    def update(rows: MadeUp, index: NDArray[np.int64], weighted: bool) -> None:
        y, output = (compiled._flatten_y(_picked(tf, nest, index))[place] for nest in (rows.y, rows.output))
        weight = _picked(tf, rows.weight, index) if weighted and takes_weights else None
        metric.update_state(y, output, sample_weight=weight)

    return update


def _picked(tf: Any, nest: Any, index: NDArray[np.int64]) -> Any:
    return Tree(nest).map(lambda array: tf.convert_to_tensor(array[index])).nest


def _place(compiled: Any, metric: Any) -> tuple[int | None, bool]:
    """Returns the number of the output whose compiled metric this is, if any, and whether it is given weights."""
    if compiled is not None and compiled.built:
        for lists, weighted in ((compiled._flat_metrics, False), (compiled._flat_weighted_metrics, True)):
            for place, members in enumerate(lists):
                if members is not None and any(member is metric for member in members.metrics):
                    return place, weighted
    return None, False
