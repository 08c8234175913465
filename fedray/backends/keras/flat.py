# SPDX-License-Identifier: Apache-2.0
"""FlatVariables: a Keras model's shared variables as one flat tensor, inside a traced function.

Works on the modules and variables it is handed; imports no framework. Knows no data and no step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fedray.backends.keras.frozen import frozen_ids
from fedray.backends.roles import check_something_is_shared, local_names
from fedray.backends.spec import Param, ParamSpec, Role


class FlatVariables:
    """A model's shared variables: trainable ones first, then the other floating-point weights (BatchNorm's statistics).

    Integer state (counters, seed generators) stays with the party and has no role.

    Args:
        tf: The tensorflow module.
        model: A built Keras model.
        local: Patterns for what stays in the party.

    Attributes:
        variables: The shared ones, in the order of the flat vector.
        trainable: Those of them that the optimizer changes.
        local: The local ones.
        own: Those of them that the optimizer changes.
        frozen: The frozen ones.
        spec: All of them, by name.
        size: Length of the flat vector.
        dtype: Its type.

    Raises:
        PlanError: A pattern fits no weight, or none is left to sum.
    """

    def __init__(self, tf: Any, model: Any, local: Sequence[str] = ()) -> None:
        self._tf = tf
        trainable = list(model.trainable_weights)
        others = [v for v in model.non_trainable_weights if "float" in str(v.dtype)]
        names = _unique([_short(v.path, model.name) for v in trainable + others])
        kept, frozen = local_names(local, names), frozen_ids(model)
        roles = {"shared": list[Any](), "frozen": list[Any](), "local": list[Any]()}
        params = []
        for place, (variable, name) in enumerate(zip(trainable + others, names, strict=True)):
            role: Role = "local" if name in kept else "frozen" if id(variable) in frozen else "shared"
            shape, dtype = tuple(int(n) for n in variable.shape), str(variable.dtype)
            params.append(Param(name, shape, dtype, place < len(trainable), role))
            roles[role].append((variable, place < len(trainable)))
        self.spec = ParamSpec(tuple(sorted(params, key=lambda param: list(roles).index(param.role))))
        check_something_is_shared(self.spec.names, sorted(kept))
        self.variables, self.frozen, self.local = ([variable for variable, _ in part] for part in roles.values())
        self.trainable, _, self.own = ([v for v, trained in part if trained] for part in roles.values())
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
        return self._join(self._dense(gradients, self.trainable))

    def own_gradients(self, gradients: Sequence[Any]) -> list[Any]:
        """Returns gradients of the local trainable variables, each as it is; None becomes zeros."""
        return self._dense(gradients, self.own)

    def split_gradient(self, flat: Any) -> list[Any]:
        """Returns one gradient per trainable variable, in its shape and dtype, from [spec.trainable]."""
        return self._split(flat, self.trainable)

    def _dense(self, gradients: Sequence[Any], like: Sequence[Any]) -> list[Any]:
        tf = self._tf
        dense = [tf.zeros(v.shape, v.dtype) if g is None else g for g, v in zip(gradients, like, strict=True)]
        return [tf.convert_to_tensor(g) for g in dense]

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
