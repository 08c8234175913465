# SPDX-License-Identifier: Apache-2.0
"""FlatVariables: a Keras model's averaged variables as one flat tensor, inside a traced function.

Works on the modules and variables it is handed; imports no framework. Knows no data and no step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fedray.backends.spec import Param, ParamSpec
from fedray.errors import PlanError


class FlatVariables:
    """Trainable variables first, then the other floating-point weights (BatchNorm's statistics); all are averaged.

    Integer state (counters, seed generators) stays with the party and is not in here.

    Args:
        tf: The tensorflow module.
        model: A built Keras model.

    Raises:
        PlanError: The model has no weights.
    """

    def __init__(self, tf: Any, model: Any) -> None:
        self._tf = tf
        trainable = list(model.trainable_weights)
        others = [v for v in model.non_trainable_weights if "float" in str(v.dtype)]
        self.variables = trainable + others
        self.trainable = trainable
        if not self.variables:
            raise PlanError("model: expected at least one weight to train, found none")
        names = _unique([_short(v.path, model.name) for v in self.variables])
        places = [(tuple(int(n) for n in v.shape), str(v.dtype)) for v in self.variables]
        self.spec = ParamSpec(
            tuple(
                Param(name, shape, dtype, trainable=place < len(trainable))
                for place, (name, (shape, dtype)) in enumerate(zip(names, places, strict=True))
            )
        )
        self.size = self.spec.size
        self.dtype = tf.as_dtype(self.spec.dtype)

    def get(self) -> Any:
        """Returns every variable end to end, [size]."""
        return self._join(self.variables)

    def get_trainable(self) -> Any:
        """Returns the trainable variables end to end, [spec.trainable]."""
        return self._join(self.trainable)

    def get_others(self) -> Any:
        """Returns the non-trainable variables end to end, [size - spec.trainable]."""
        return self._join(self.variables[len(self.trainable) :])

    def put(self, flat: Any) -> None:
        """Assigns every variable from [size]."""
        for variable, part in zip(self.variables, self._split(flat, self.variables), strict=True):
            variable.assign(part)

    def put_others(self, flat: Any) -> None:
        """Assigns the non-trainable variables from [size - spec.trainable]."""
        others = self.variables[len(self.trainable) :]
        for variable, part in zip(others, self._split(flat, others), strict=True):
            variable.assign(part)

    def join_gradients(self, gradients: Sequence[Any]) -> Any:
        """Returns gradients end to end, [spec.trainable]; None (a variable the loss does not touch) becomes zeros."""
        tf = self._tf
        dense = [tf.zeros(v.shape, v.dtype) if g is None else g for g, v in zip(gradients, self.trainable, strict=True)]
        return self._join([tf.convert_to_tensor(g) for g in dense])

    def split_gradient(self, flat: Any) -> list[Any]:
        """Returns one gradient per trainable variable, in its shape and dtype, from [spec.trainable]."""
        return self._split(flat, self.trainable)

    def _join(self, tensors: Sequence[Any]) -> Any:
        tf = self._tf
        parts = [tf.reshape(tf.cast(tensor, self.dtype), [-1]) for tensor in tensors]
        return tf.concat(parts, 0) if parts else tf.zeros([0], self.dtype)

    def _split(self, flat: Any, like: Sequence[Any]) -> list[Any]:
        if not like:
            return []
        tf = self._tf
        parts = tf.split(flat, [math.prod(v.shape) for v in like])
        return [tf.cast(tf.reshape(part, v.shape), v.dtype) for part, v in zip(parts, like, strict=True)]


def _short(path: str, model: str) -> str:
    """Names a variable by its path within the model."""
    return path.removeprefix(f"{model}/")


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        number = seen.get(name, 0)
        seen[name] = number + 1
        result.append(f"{name}#{number}" if number else name)
    return tuple(result)
