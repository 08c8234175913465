# SPDX-License-Identifier: Apache-2.0
"""Probe: what a Keras model returns, found out with two rows before any training.

Works on the modules and the model it is handed; imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedray.backends.keras import layers
from fedray.backends.keras.data import two_rows
from fedray.errors import PlanError
from fedray.tree import Tree


class Probe:
    """Passes two rows through a model, once for each form of them.

    A form that has passed is not passed again: seeding would have TensorFlow prepare every graph anew.

    Args:
        tf: The tensorflow module.
        model: A compiled Keras model.
        seeded: Runs work under the model's seed.
    """

    def __init__(self, tf: Any, model: Any, seeded: Callable[[Callable[[], Any]], Any]) -> None:
        self._tf, self._model, self._seeded = tf, model, seeded
        self._outputs: dict[str, Tree] = {}

    def outputs(self, x: Tree) -> Tree:
        """Returns what the model gives for no rows of this form; builds a model that has waited for its form.

        Raises:
            PlanError: A layer cannot work on rows as they come here; the message names it.
        """
        form = repr(x.map(lambda array: self._tf.TensorSpec([None, *array.shape[1:]], array.dtype)).nest)
        if form not in self._outputs:
            layers.check_prepared(self._model)
            tensors = two_rows(x).map(self._tf.convert_to_tensor).nest
            output = Tree(self._seeded(lambda: self._pass(tensors)), "output")
            layers.check_stateless(self._model)
            layers.check_prepared(self._model)
            self._outputs[form] = output.map(lambda tensor: tensor.numpy()[:0])
        return self._outputs[form]

    def nothing(self, specs: Any) -> Tree:
        """Returns the same for the specs of bound data."""
        return self._outputs[repr(specs)]

    def _pass(self, tensors: Any) -> Any:
        fixed = [tensor for tensor in getattr(self._model, "inputs", None) or () if tensor.shape[0] is not None]
        if not fixed:
            return self._model(tensors)
        # Most layers do not mind; one that does must not reshape rows into others in silence.
        said = (
            f"model {self._model.name!r}: Input {fixed[0].name!r} fixes a batch of {fixed[0].shape[0]} rows, and a "
            "layer needs that number; batches here have as many rows as a party's share. Expected Input(shape=...), "
            "with the first axis open in every layer"
        )
        try:
            output = self._model(tensors)
        except Exception as error:
            raise PlanError(f"{said} ({' '.join(str(error).split())[:200]})") from error
        if any(tuple(leaf.shape)[:1] != (2,) for leaf in Tree(output).leaves()):
            raise PlanError(said)
        return output
